"""There is no engine to build the image with here, so its steps are checked one by one."""

import fnmatch
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STEPS = [
    re.sub(r"\s*\\\n\s*", " ", step)
    for step in re.findall(
        r"^[A-Z]+ (?:.*\\\n)*.*$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
]


def _step(prefix: str) -> str:
    return next(step for step in STEPS if step.startswith(prefix))


def _stage(name: str) -> list[str]:
    start = next(i for i, step in enumerate(STEPS) if step.endswith(f" AS {name}"))
    rest = STEPS[start + 1 :]
    end = next((i for i, step in enumerate(rest) if step.startswith("FROM")), len(rest))
    return rest[:end]


def _ignored(path: str) -> bool:
    """Whether .dockerignore keeps `path`, at the top of the checkout, out: the last rule wins."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.strip().rstrip("/")
        if rule and not rule.startswith("#") and fnmatch.fnmatch(path, rule.lstrip("!")):
            ignored = not rule.startswith("!")
    return ignored


def test_everything_that_is_copied_is_let_through_and_nothing_secret_is() -> None:
    for step in STEPS:
        if step.startswith("COPY") and "--from" not in step:
            for source in step.split()[1:-1]:
                assert not _ignored(source.rstrip("/")), source
    assert _ignored(".git")
    assert _ignored("state.db")


def test_helm_is_fetched_by_python_alone_from_what_is_copied(tmp_path: Path) -> None:
    """The stage has no packages installed, so the command must run without them."""
    copied, run = _stage("helm")[1:3]
    assert copied == "COPY devcluster/ devcluster/"
    command = re.search(r"\$\((.+?)\)", run)
    assert command is not None
    arguments = command[1].split()
    assert arguments[0] == "python"
    (tmp_path / "devcluster").symlink_to(ROOT / "devcluster")
    isolated = [sys.executable, "-S", *arguments[1:], "--help"]
    shown = subprocess.run(isolated, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "print the paths of helm" in shown.stdout


def test_it_does_not_run_as_root_and_says_so_as_a_number() -> None:
    assert re.fullmatch(r"USER [1-9]\d+:[1-9]\d+", _step("USER"))
    assert STEPS.index(_step("USER")) < STEPS.index(_step("ENTRYPOINT"))


def test_all_that_it_writes_is_on_volumes() -> None:
    volumes = json.loads(_step("VOLUME").removeprefix("VOLUME "))
    written = re.findall(r"(?:HOME|HELMOPS_CACHE_DIR)=(\S+)", _step("ENV"))
    written += re.findall(r"HELMOPS_STATE=sqlite:///(\S+)", _step("ENV"))
    assert len(written) == 3
    for path in written:
        assert any(Path(path).is_relative_to(volume) for volume in volumes), path


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_ends_with_0_only_where_the_service_is_well(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = json.loads(_step("HEALTHCHECK").partition(" CMD ")[2])
    port = re.search(r"HELMOPS_LISTEN=\S+:(\d+)", _step("ENV"))
    assert port is not None
    assert f":{port[1]}/healthz" in command[2]
    monkeypatch.setattr(_Health, "status", status)
    # A proxy that nobody answers for: the check must not go through it.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        script = command[2].replace(f":{port[1]}/", f":{server.server_port}/")
        ended = subprocess.run(
            [sys.executable, command[1], script], capture_output=True, check=False
        )
        thread.join()
    assert ended.returncode == code


def test_the_entrypoint_is_the_service_and_takes_its_options() -> None:
    assert json.loads(_step("ENTRYPOINT").removeprefix("ENTRYPOINT ")) == ["helmops", "run"]
