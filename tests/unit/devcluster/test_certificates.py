import ssl
from pathlib import Path

import pytest

from devcluster.certificates import Authority
from devcluster.errors import DevclusterError


def test_what_an_authority_issues_loads_with_its_key(tmp_path: Path) -> None:
    pair = Authority.create(tmp_path / "ca", "test").issue("server")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair.certificate, pair.key)
    assert tmp_path.joinpath("ca").stat().st_mode & 0o777 == 0o700


def test_a_machine_without_openssl_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevclusterError, match="apt-get install openssl"):
        Authority.create(tmp_path / "ca", "test")


def test_a_name_that_openssl_does_not_take_is_an_error_with_its_words(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "ca", "test")
    with pytest.raises(DevclusterError, match="openssl req failed"):
        authority.issue("server", also=("IP:not-an-address",))
