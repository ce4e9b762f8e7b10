"""What SOPS encrypted, with a stand-in for sops; the real one is in tests/e2e/test_sops.py."""

import os
import stat
from pathlib import Path

import pytest

from helmops.errors import DecryptionFailed
from helmops.sources.sops import Sops, is_encrypted, recipients_of

ENCRYPTED = b"""\
apiVersion: v1
kind: Secret
stringData:
    password: ENC[AES256_GCM,data:abc,iv:def,tag:ghi,type:str]
sops:
    age:
        - recipient: age1first
          enc: |
            -----BEGIN AGE ENCRYPTED FILE-----
        - recipient: age1second
          enc: x
    pgp:
        - fp: 0123ABCD
    lastmodified: "2026-01-01T00:00:00Z"
    mac: ENC[AES256_GCM,data:abc,type:str]
    version: 3.13.3
"""


def stand_in(path: Path, script: str) -> str:
    """An executable that notes each of its runs and then does as the script says."""
    path.write_text(f"#!/bin/sh\necho run >> {path}.runs\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def runs(executable: str) -> int:
    return len(Path(f"{executable}.runs").read_text().splitlines())


@pytest.mark.parametrize(
    "text",
    [
        ENCRYPTED,
        ENCRYPTED.replace(b"\n", b"\r\n"),
        b'{"a": "ENC[x]", "sops": {"mac": "ENC[y]"}}',
        b'sops:  # added\n  "mac": "ENC[y]"\n',
    ],
)
def test_what_has_metadata_and_a_mac_is_encrypted(text: bytes) -> None:
    assert is_encrypted(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"sops: nice\nmac: ENC[",
        b"tools:\n  sops:\n    mac: ENC[x]\n",
        b"sops:\n  version: 3\n",
        b"data:\n  values.yaml: |\n    sops:\n      mac: ENC[x]\n",
    ],
)
def test_what_only_speaks_of_sops_is_not(text: bytes) -> None:
    assert not is_encrypted(text)


def test_recipients_are_told_in_order_and_once() -> None:
    assert recipients_of(ENCRYPTED + b"    - recipient: age1first\n") == (
        "age1first",
        "age1second",
        "0123ABCD",
    )


def test_other_texts_pass_without_a_run_of_sops(tmp_path: Path) -> None:
    assert Sops(str(tmp_path / "none")).decrypt(b"a: 1\n", "a.yaml") == b"a: 1\n"


def test_the_text_goes_through_pipes_and_its_name_tells_the_format(tmp_path: Path) -> None:
    sops = stand_in(tmp_path / "sops", 'echo "# $@"; cat')
    assert Sops(sops).decrypt(ENCRYPTED, "apps/x.yaml") == (
        b"# decrypt --input-type yaml --output-type yaml\n" + ENCRYPTED
    )
    as_json = b'{"sops": {"mac": "ENC[y]"}}'
    assert Sops(sops).decrypt(as_json, "x.JSON", ignore_mac=True) == (
        b"# decrypt --input-type json --output-type json --ignore-mac\n" + as_json
    )


def test_a_text_that_did_not_change_is_decrypted_once(tmp_path: Path) -> None:
    executable = stand_in(tmp_path / "sops", "echo plain")
    sops = Sops(executable)
    for _ in range(3):
        assert sops.decrypt(ENCRYPTED, "a.yaml") == b"plain\n"
    assert runs(executable) == 1


def test_keys_that_were_read_are_tried_besides_the_environments(tmp_path: Path) -> None:
    executable = stand_in(tmp_path / "sops", 'printf "%s" "$SOPS_AGE_KEY"')
    sops = Sops(executable, {"SOPS_AGE_KEY": "OWN", "PATH": os.environ["PATH"]})
    assert sops.decrypt(ENCRYPTED, "a.yaml", age_keys=("ONE", "TWO")) == b"OWN\nONE\nTWO"
    assert sops.decrypt(ENCRYPTED, "a.yaml") == b"OWN"


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("exit 128", "no key at hand decrypts it"),
        ("exit 51", "its MAC is wrong"),
        ("echo 'cannot read' >&2; exit 1", "sops failed: cannot read"),
        ("exit 3", "it says nothing"),
    ],
)
def test_a_failure_names_the_file_and_its_recipients(
    tmp_path: Path, script: str, what: str
) -> None:
    executable = stand_in(tmp_path / "sops", script)
    with pytest.raises(DecryptionFailed) as caught:
        Sops(executable).decrypt(ENCRYPTED, "apps/db.yaml")
    assert str(caught.value).startswith("apps/db.yaml: ")
    assert what in str(caught.value)
    assert "it is for age1first, age1second, 0123ABCD" in str(caught.value)
    assert "ENC[" not in str(caught.value)


def test_a_failure_is_remembered_for_a_moment(tmp_path: Path) -> None:
    executable = stand_in(tmp_path / "sops", "exit 128")
    sops = Sops(executable)
    for _ in range(3):
        with pytest.raises(DecryptionFailed):
            sops.decrypt(ENCRYPTED, "a.yaml")
    assert runs(executable) == 1


def test_without_sops_the_file_is_named_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DecryptionFailed, match=r"x\.yaml: .*cannot be started.*HELMOPS_SOPS"):
        Sops(str(tmp_path / "none")).decrypt(ENCRYPTED, "x.yaml")
