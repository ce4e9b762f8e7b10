from __future__ import annotations

import asyncio
import os
import signal

import pytest

from helmops.cli.session import Terminated, follow, key_of, run_async, settings_of
from helmops.errors import UsageError
from helmops.model.releases import DeclarationKey


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("web", ("apps", "web")),
        ("other/web", ("other", "web")),
        ("other/web/x", ("other", "web/x")),
    ],
)
def test_a_name_may_have_its_namespace_before_it(name: str, key: tuple[str, str]) -> None:
    assert key_of(name, "apps") == DeclarationKey(*key)


def test_settings_come_from_options_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELMOPS_NAMESPACE", "apps")
    monkeypatch.setenv("HELMOPS_DEFAULTS", "flux")
    settings = settings_of(namespace="other", defaults=None)
    assert (settings.namespace, settings.defaults) == ("other", "flux")
    with pytest.raises(UsageError, match="--concurrency"):
        settings_of(concurrency="many")


def test_a_coroutine_is_run_to_its_end() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert run_async(answer()) == 42


def test_sigterm_ends_it_after_it_cleaned_up() -> None:
    cleaned = []

    async def works() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)
        finally:
            cleaned.append("up")

    with pytest.raises(Terminated):
        run_async(works())
    assert cleaned == ["up"]


def test_a_text_is_printed_when_it_is_another_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["one", "one", "two", "two", "one"]

    async def show() -> str:
        if not texts:
            raise KeyboardInterrupt
        return texts.pop(0)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(follow(0, show))
    assert capsys.readouterr().out == "one\ntwo\none\n"
