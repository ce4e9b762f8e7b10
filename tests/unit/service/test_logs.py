from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import assume, given
from hypothesis import strategies as st

from helmops.model.releases import DeclarationKey
from helmops.service import logs
from helmops.service.logs import Redactor, about_release

WEB, API = DeclarationKey("shop", "web"), DeclarationKey("shop", "api")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("helmops")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def text_of(say: Callable[[], Any], **configured: Any) -> str:
    stream = configured.pop("stream", None) or io.StringIO()
    logs.configure("text", stream=stream, environment={}, **configured)
    say()
    return stream.getvalue()


def json_of(say: Callable[[], Any], **configured: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    logs.configure("json", stream=stream, environment={}, **configured)
    say()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def log() -> Any:
    return structlog.get_logger("helmops.reconcile")


def test_a_line_of_text_has_time_level_release_revision_and_what() -> None:
    def say() -> None:
        with about_release(WEB, 3):
            log().info("upgraded to %s", "6.5.1", action="Upgrade", seconds=2)

    line = text_of(say)
    assert line[2] == line[5] == ":"
    assert line[9:] == "info     shop/web v3  upgraded to 6.5.1  action=Upgrade seconds=2\n"


def test_a_line_of_json_has_the_same_under_names() -> None:
    def say() -> None:
        with about_release(WEB, 3, chart="podinfo"):
            log().warning("held")

    (line,) = json_of(say)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "message": "held",
        "release": "shop/web",
        "revision": 3,
        "chart": "podinfo",
        "logger": "helmops.reconcile",
    }


def test_the_release_is_on_lines_of_adapters_and_libraries_too() -> None:
    def say() -> None:
        with about_release(WEB, 3):
            logging.getLogger("helmops.cluster").info("read %d", 5, extra={"action": "read"})
            logging.getLogger("kubernetes.client").warning("slow")

    first, second = json_of(say)
    assert (first["release"], first["revision"], first["action"]) == ("shop/web", 3, "read")
    assert first["message"] == "read 5"
    assert second["release"] == "shop/web"


async def test_passes_that_run_at_once_do_not_mix_up_their_releases() -> None:
    stream = io.StringIO()
    logs.configure("json", stream=stream, environment={})
    turn = asyncio.Event()

    async def run(key: DeclarationKey) -> None:
        with about_release(key):
            await turn.wait()
            log().info(str(key))

    running = [asyncio.create_task(run(key)) for key in (WEB, API)]
    turn.set()
    await asyncio.gather(*running)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["release"] == line["message"] for line in lines] == [True, True]


def test_libraries_speak_from_warning_up_and_we_from_our_level_up() -> None:
    def say() -> None:
        for name in ("kubernetes", "apscheduler.scheduler", "uvicorn.error", "git.cmd"):
            logging.getLogger(name).info("library info")
            logging.getLogger(name).warning("library warning")
        log().debug("our debug")
        log().info("our info")

    messages = [line["message"] for line in json_of(say)]
    assert messages == ["library warning"] * 4 + ["our info"]
    assert "our debug" in text_of(say, level="DEBUG")


def test_python_s_warnings_are_lines_of_the_log() -> None:
    def say() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("deprecated", UserWarning, stacklevel=1)

    assert "deprecated" in json_of(say)[0]["message"]


def test_configuring_twice_does_not_double_the_lines() -> None:
    stream = io.StringIO()
    for _ in range(2):
        logs.configure("text", stream=stream, environment={})
    log().info("once")
    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal, {"TERM": "xterm"}, True),
        (Terminal, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    stream: Callable[[], io.StringIO], environment: dict[str, str], coloured: bool
) -> None:
    out = stream()
    logs.configure("text", stream=out, environment=environment)
    log().error("no")
    assert ("\x1b[" in out.getvalue()) == coloured


def test_further_lines_and_tracebacks_are_indented_below_theirs() -> None:
    def say() -> None:
        try:
            raise ValueError("why")
        except ValueError:
            log().exception("helm said:\n12:00:00 error  forged")

    first, *rest = text_of(say).splitlines()
    assert first.endswith("helm said:")
    assert rest[0] == "         12:00:00 error  forged"
    assert rest[-1] == "         ValueError: why"
    assert all(line.startswith("         ") for line in rest)


def test_control_characters_do_not_reach_the_terminal() -> None:
    line = text_of(lambda: log().info("a\x1b[31mb\rc\u202ed", field="x\x07\ny z"))
    assert "a\\x1b[31mb\\rc\\u202ed" in line
    assert 'field="x\\x07\\ny z"' in line


def secret_lines(say: Callable[[], Any], *secrets: str) -> str:
    redactor = Redactor(secrets)
    return text_of(say, redactor=redactor) + json.dumps(json_of(say, redactor=redactor))


def test_secret_values_are_hidden_wherever_they_are() -> None:
    def say() -> None:
        log().info("password hunter2-pw", values={"a": ["hunter2-pw", {"hunter2-pw": 1}]})
        log().info("as %s", "hunter2-pw")
        logging.getLogger("requests").warning("url https://u:%s@host", "hunter2-pw")
        logging.getLogger("requests").warning("bytes", extra={"body": b"hunter2-pw"})
        try:
            raise ValueError("hunter2-pw")
        except ValueError:
            log().exception("failed", error=ValueError("hunter2-pw"))
            logging.getLogger("git").exception("failed too")
        with about_release(WEB, note="hunter2-pw"):
            log().info("bound")

    said = secret_lines(say, "hunter2-pw")
    assert "hunter2" not in said
    assert said.count(logs.HIDDEN) >= 18


def test_numbers_that_are_secret_are_hidden_too() -> None:
    assert "86428642" not in secret_lines(lambda: log().info("pin", pin=86428642), "86428642")


def test_encoded_secrets_are_hidden() -> None:
    secret = "p@ss/w=rd with ümlaut"
    redactor = Redactor([secret])
    encoded = base64.b64encode(secret.encode()).decode()
    for form in (secret, encoded, "p%40ss%2Fw%3Drd%20with%20%C3%BCmlaut", repr(secret)):
        assert logs.HIDDEN in redactor.text(f"x {form} y"), form


def test_a_line_of_a_key_is_hidden_by_itself() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nabc\n-----END KEY-----\n"
    redactor = Redactor([key])
    assert redactor.text("read MIIEvQIBADANBgkqhkiG9w0") == f"read {logs.HIDDEN}"
    assert redactor.text(f"read {key}") == f"read {logs.HIDDEN}"
    assert redactor.text("abc") == "abc"


def test_a_secret_that_begins_as_another_is_hidden_as_a_whole() -> None:
    redactor = Redactor(["hunter"])
    redactor.add("hunter-and-more")
    assert redactor.text("hunter-and-more") == logs.HIDDEN


def test_values_too_short_to_be_told_from_words_are_left_and_nothing_breaks() -> None:
    redactor = Redactor(["", "a", "\n"])
    assert redactor.text("a banana") == "a banana"


def test_the_redactor_does_not_show_what_it_hides() -> None:
    assert "hunter2" not in repr(Redactor(["hunter2-pw"]))


@given(secret=st.text(min_size=4), before=st.text(), after=st.text())
def test_no_text_keeps_a_secret(secret: str, before: str, after: str) -> None:
    assume("\0" not in secret)
    assume(secret not in before + after + logs.HIDDEN)
    hidden = Redactor([secret]).text(f"{before}\0{secret}\0{after}")
    assert secret not in hidden.replace(logs.HIDDEN, "\0")
    assert logs.HIDDEN in hidden


def test_a_reader_that_went_away_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    logs.configure("text", stream=Gone(), environment={})
    log().info("nobody listens")
    assert capsys.readouterr().err == ""
