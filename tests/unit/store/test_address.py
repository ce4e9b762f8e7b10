from pathlib import Path

import pytest

from helmops.errors import UsageError
from helmops.store.address import StateAddress


def test_three_slashes_are_a_path_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = StateAddress.parse("sqlite:///state/helm ops.db")
    monkeypatch.chdir("/")
    assert address.path == tmp_path / "state" / "helm ops.db"


def test_four_slashes_are_an_absolute_path() -> None:
    address = StateAddress.parse("sqlite:////var/lib/helmops/state.db")
    assert address.path == Path("/var/lib/helmops/state.db")
    assert address.shown == "sqlite:////var/lib/helmops/state.db"


def test_a_home_directory_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ops")
    assert StateAddress.parse("sqlite:///~/state.db").path == Path("/home/ops/state.db")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/var/lib/state.db", "sqlite:////var/lib/state.db"),
        ("", "sqlite:///PATH"),
        ("sqlite:/var/lib/state.db", "by a URL"),
        ("sqlite://state.db", "sqlite:///state.db"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////var/lib/", "names no file"),
        ("sqlite:///:memory:", "gone with the process"),
        ("sqlite:///state.db?mode=ro", "no options"),
        ("sqlite+aiosqlite:///state.db", "aiosqlite"),
        ("mysql://host/db", "mysql"),
        ("postgresql://host", "names no database"),
        ("postgresql://user:pw@host:port/db", "percent-encode"),
    ],
)
def test_what_cannot_be_used_is_said_with_what_can(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        StateAddress.parse(text)
    assert says in str(caught.value)
    assert "--state" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "PostgreSQL"])
def test_a_server_goes_to_psycopg(scheme: str) -> None:
    address = StateAddress.parse(f"{scheme}://ops@db.example:5433/state")
    assert address.url == "postgresql+psycopg://ops@db.example:5433/state"
    assert address.path is None


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ops:hunter2@db.example/state",
        "postgresql://db.example/state?user=ops&password=hunter2",
        "postgresql://ops:hunter2@[::1]:5432/state",
    ],
)
def test_a_password_is_not_shown(text: str) -> None:
    address = StateAddress.parse(text)
    assert "hunter2" in address.url
    assert "hunter2" not in repr(address)
    assert "hunter2" not in address.shown


@pytest.mark.parametrize("text", ["postgresql://u:hunter2@h:port/db", "mongo://u:hunter2@h/db"])
def test_an_error_does_not_repeat_a_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        StateAddress.parse(text)
    assert "hunter2" not in str(caught.value)
