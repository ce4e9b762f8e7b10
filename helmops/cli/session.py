"""What commands have in common: settings out of options, and an installation to work with."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from helmops.model.releases import DeclarationKey
    from helmops.service.settings import Settings
    from helmops.service.wiring import Installation

T = TypeVar("T")


def settings_of(**options: Any) -> Settings:
    """Settings from a command's options and the environment. Raises UsageError."""
    from helmops.service.settings import Settings

    return Settings.load(options, os.environ)


class Terminated(Exception):
    """The command was ended by SIGTERM, after it cleaned up."""


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end. SIGTERM cancels it, as Ctrl-C does: raises Terminated.

    A command that handles SIGTERM itself takes it over while it does.
    """
    import asyncio
    import signal

    is_terminated = False

    async def until_terminated() -> T:
        task = asyncio.current_task()

        def terminate() -> None:
            nonlocal is_terminated
            is_terminated = True
            if task is not None:
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(until_terminated())
    except asyncio.CancelledError:
        if is_terminated:
            raise Terminated from None
        raise


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    read_only: bool = False,
    tell: Callable[[DeclarationKey, str], None] | None = None,
) -> AsyncIterator[Installation]:
    """An installation for one command."""
    from helmops.service.wiring import Installation

    async with Installation.open(settings, read_only=read_only, tell=tell) as installation:
        yield installation


def key_of(name: str, namespace: str) -> DeclarationKey:
    """`NAME` or `NAMESPACE/NAME` as a key."""
    from helmops.model.releases import DeclarationKey

    before, slash, after = name.partition("/")
    return DeclarationKey(before, after) if slash else DeclarationKey(namespace, name)


async def follow(seconds: float, show: Callable[[], Awaitable[str]]) -> None:
    """Print a text, and again whenever it is another one, until interrupted."""
    import asyncio

    last = None
    while True:
        text = await show()
        if text != last:
            click.echo(text)
            last = text
        await asyncio.sleep(seconds)
