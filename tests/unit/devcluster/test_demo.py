from __future__ import annotations

import io
import json
from typing import Any

import pytest
import yaml

from devcluster import demo
from devcluster.demo import Teller, readable


def entry(**fields: object) -> str:
    line = {"time": "2026-01-02T10:11:12.5Z", "level": "info", "message": "did", **fields}
    return json.dumps(line) + "\n"


def test_a_line_of_the_log_is_told_as_time_release_and_what() -> None:
    assert readable(entry(release="demo/shop"), "demo") == ("10:11:12", "shop", "did", "info")


def test_a_line_about_no_release_is_helmops_own() -> None:
    assert readable(entry(), "demo") == ("10:11:12", "helmops", "did", "info")


def test_a_release_of_another_namespace_keeps_its_namespace() -> None:
    told = readable(entry(release="prod/shop"), "demo")
    assert told is not None
    assert told[1] == "prod/shop"


@pytest.mark.parametrize("line", ["Traceback (most recent call last):\n", "[1]\n", '{"a": 1}\n'])
def test_what_is_no_log_is_told_as_it_is(line: str) -> None:
    assert readable(line, "demo") == ("", "helmops", line.rstrip(), "error")


def test_empty_lines_are_left_out() -> None:
    assert readable("\n", "demo") is None


def test_without_a_terminal_there_are_no_colours() -> None:
    stream = io.StringIO()
    Teller(stream).line("ready\nand more", "shop", at="10:11:12", colour="32")
    assert stream.getvalue() == "10:11:12  shop       ready\n                     and more\n"


def test_on_a_terminal_there_are_colours_unless_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    Teller(coloured).line("ready", "shop", colour="32")
    monkeypatch.setenv("NO_COLOR", "1")
    Teller(plain).line("ready", "shop", colour="32")
    assert "\x1b[32mready\x1b[0m" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def snapshot(action: str, version: str, verdict: str) -> dict[str, Any]:
    return {"action": action, "chartVersion": version, "helmops": {"verdict": verdict}}


INSTALL = snapshot("install", "1.0.0", "healthy")
BROKEN = snapshot("upgrade", "1.1.0", "failed")


@pytest.mark.parametrize(
    ("history", "is_back"),
    [
        ([], False),
        ([INSTALL], False),
        ([BROKEN, INSTALL], False),
        ([snapshot("rollback", "1.0.0", "unknown"), BROKEN, INSTALL], False),
        ([snapshot("rollback", "1.0.0", "failed"), BROKEN, INSTALL], False),
        ([snapshot("rollback", "1.0.0", "healthy"), BROKEN, INSTALL], True),
    ],
)
def test_the_release_is_back_when_what_was_restored_is_healthy(
    history: list[dict[str, Any]], is_back: bool
) -> None:
    assert demo._is_back({"shop": {"status": {"history": history}}}) is is_back


def release(ready: str, verdict: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": "Because", "message": "of that"}
    return {"status": {"conditions": [condition], "helmops": {"verdict": verdict}}}


def test_all_releases_have_to_be_ready_and_seen_healthy() -> None:
    healthy = dict.fromkeys(("settings", "catalog", "shop"), release("True", "healthy"))
    assert demo._all_healthy(healthy)
    assert not demo._all_healthy({**healthy, "shop": release("True", "unknown")})
    assert not demo._all_healthy({**healthy, "shop": release("Unknown", "healthy")})
    assert not demo._all_healthy({"shop": healthy["shop"]})


def test_what_was_waited_for_in_vain_is_told_with_how_it_is() -> None:
    told = list(demo._how_it_is({"shop": release("False", "failed")}))
    assert told[-1] == "shop: Because: of that"
    assert told[0] == "settings: not seen yet"


def test_documents_that_follow_each_other_are_told_apart() -> None:
    watched = demo._Watched()
    for ready in ("False", "True"):
        shop = {"metadata": {"name": "shop"}, **release(ready, "healthy")}
        for line in (json.dumps({"items": [shop]}, indent=2) + "\n").splitlines(keepends=True):
            watched.take(line)
    assert watched.current["shop"]["status"]["conditions"][0]["status"] == "True"


@pytest.mark.parametrize("folder", ["local", "any-cluster"])
def test_the_broken_commit_changes_the_version_of_shop_and_nothing_else(folder: str) -> None:
    declarations = demo._DECLARATIONS / folder
    (changed,) = (declarations / "broken").iterdir()
    before = yaml.safe_load((declarations / "declared" / changed.name).read_text())
    after = yaml.safe_load(changed.read_text())
    assert changed.name == "shop.yaml"
    assert after["spec"]["chart"]["spec"].pop("version") == "1.1.x"
    assert before["spec"]["chart"]["spec"].pop("version") == "1.0.x"
    assert before == after
