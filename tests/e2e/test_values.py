"""Values from everywhere: the cluster, files by patterns, and what SOPS encrypted."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devcluster import encryption
from devcluster.chart_server import ChartRepository
from devcluster.errors import ToolMissing
from tests.e2e.helmops_process import Helmops, documents, release, repository, secret, until

FROM = [
    {"kind": "ConfigMap", "name": "base"},
    {"kind": "Secret", "name": "token", "valuesKey": "token", "targetPath": "data.token"},
]


def put(helmops: Helmops, kind: str, name: str, **data: str) -> None:
    """Create or replace a ConfigMap or Secret in the cluster, as somebody else does."""
    if kind == "Secret":
        data = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    path = f"/api/v1/namespaces/{helmops.namespace}/{kind.lower()}s"
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data}
    if helmops.get(f"{kind.lower()}s/{name}") is None:
        helmops.cluster.request("POST", path, body)
    else:
        helmops.cluster.request("PUT", f"{path}/{name}", body)


def test_what_changes_in_the_cluster_is_released_at_once_and_else_nothing_is_asked(
    helmops: Helmops, chart_repository: ChartRepository
) -> None:
    put(helmops, "ConfigMap", "base", **{"values.yaml": "data: {message: one}"})
    put(helmops, "Secret", "token", token="first-token")
    helmops.declare(repository(chart_repository.url, interval="1h"), file="charts.yaml")
    helmops.declare(release(valuesFrom=FROM))
    with helmops.serve() as service:
        service.until_ready()
        assert helmops.data() | {"chart": ""} == {
            "message": "one",
            "token": "first-token",
            "chart": "",
        }
        put(helmops, "ConfigMap", "base", **{"values.yaml": "data: {message: two}"})
        until("the ConfigMap is released", lambda: helmops.data()["message"] == "two")
        put(helmops, "Secret", "token", token="other-token")
        until("the Secret is released", lambda: helmops.data()["token"] == "other-token")
        service.until_ready()
        assert "-token" not in service.log
        shown = helmops.run("values", "app", "-o", "json")
        assert shown.json == {"data": {"message": "two", "token": "(hidden)"}}
        assert service.terminate() == 0
    assert list(helmops.revisions()) == [1, 2, 3]


class Keys:
    """An age key, and files encrypted for it by the real sops."""

    def __init__(self, directory: Path, programs: dict[str, Path]) -> None:
        self.sops = programs["sops"]
        self.file = directory / "age.txt"
        subprocess.run([programs["age-keygen"], "-o", self.file], check=True, capture_output=True)
        self.recipient = next(
            line.rpartition(" ")[2]
            for line in self.file.read_text().splitlines()
            if "public key" in line
        )

    def encrypt(self, text: str, *options: str) -> str:
        whom = ("--age", self.recipient, "--filename-override", "x.yaml")
        told = subprocess.run(
            [self.sops, "encrypt", *whom, *options],
            input=text.encode(),
            capture_output=True,
            check=True,
            env={"PATH": os.environ["PATH"]},
        )
        return told.stdout.decode()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    try:
        return Keys(tmp_path, encryption.programs(print))
    except ToolMissing as missing:
        pytest.skip(str(missing))


def test_what_sops_encrypted_is_released_and_shown_to_nobody(
    make_helmops: Callable[..., Helmops], keys: Keys, chart_repository: ChartRepository
) -> None:
    helmops = make_helmops(more_environment={"HELMOPS_SOPS": str(keys.sops)})
    helmops.declare(repository(chart_repository.url), file="charts.yaml")
    values_from: list[dict[str, Any]] = [
        {"kind": "Secret", "name": "db"},
        {"kind": "File", "path": "values/*.yaml"},
    ]
    helmops.declare(release(valuesFrom=values_from), release("other"))
    plain = documents(secret("db", **{"values.yaml": "data: {password: s3cret-of-db}"}))
    locked = keys.encrypt(plain, "--encrypted-regex", "^(data|stringData)$")
    assert "s3cret" not in locked
    (helmops.declarations / "db.yaml").write_text(locked)
    (helmops.declarations / "values").mkdir()
    file = helmops.declarations / "values" / "a.yaml"
    file.write_text(keys.encrypt("data: {message: s3cret-of-file, mode: x}\n"))
    (helmops.declarations / "values" / "b.yaml").write_text("data: {mode: z}\n")

    ended = helmops.reconcile(status=None)
    assert ended.status != 0
    assert f"db.yaml: no key at hand decrypts it; it is for {keys.recipient}" in ended.text
    assert helmops.revisions() == {}
    assert helmops.revisions("other") == {1: "deployed"}

    helmops.more_environment["SOPS_AGE_KEY_FILE"] = str(keys.file)
    told = helmops.reconcile().text
    assert helmops.data() | {"chart": ""} == {
        "password": "s3cret-of-db",
        "message": "s3cret-of-file",
        "mode": "z",
        "chart": "",
    }
    shown = helmops.run("values", "app", "--explain")
    assert "s3cret" not in told + shown.text
    assert "over spec.valuesFrom[1]  values/a.yaml:3" in shown.stdout
    assert 'data.password: "(hidden)"' in shown.stdout
    found = [p for p in helmops.directory.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    assert found == []
