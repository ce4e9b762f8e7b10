from pathlib import Path

import pytest

from devcluster import tools


@pytest.fixture(autouse=True)
def _empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH, and wheels that are there already."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(tools.Wheel, "unpacked", lambda wheel, say: Path("/wheels", wheel.version))


def _prints(path: Path, text: str, code: int = 0) -> Path:
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    path.chmod(0o755)
    return path


def _find_all() -> dict[str, str]:
    return {name: str(path) for name, path in tools.find_all(lambda text: None).items()}


def test_where_nothing_is_installed_all_come_from_the_wheels() -> None:
    assert _find_all() == {
        "helm": "/wheels/2.0.0/helm",
        "helm3": "/wheels/2.1.0/helm",
        "kubectl": "/wheels/2.0.0/kubectl",
    }


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("v4.3.1+gc0d08d0", {"helm"}),
        ("v4.5.0", {"helm"}),
        ("v4.2.9", set()),
        ("v3.19.0+g3d8990f", {"helm3"}),
        ("v3.14.2", set()),
        ("v5.0.0", set()),
        ("who are you", set()),
    ],
)
def test_the_helm_on_path_is_taken_for_what_it_is(
    tmp_path: Path, version: str, fits: set[str]
) -> None:
    installed = str(_prints(tmp_path / "bin" / "helm", version))
    assert {name for name, path in _find_all().items() if path == installed} == fits


def test_a_stand_in_that_fails_is_not_taken(tmp_path: Path) -> None:
    _prints(tmp_path / "bin" / "helm", "v4.3.1", code=1)
    assert _find_all()["helm"] == "/wheels/2.0.0/helm"


@pytest.mark.parametrize(("version", "fits"), [("v1.35.9", False), ("v1.38.0", True)])
def test_kubectl_may_be_one_minor_version_away(tmp_path: Path, version: str, fits: bool) -> None:
    installed = str(_prints(tmp_path / "bin" / "kubectl", f"Client Version: {version}"))
    assert (_find_all()["kubectl"] == installed) is fits
