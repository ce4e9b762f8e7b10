from __future__ import annotations

import asyncio
from datetime import timedelta

import click
import pytest
from click.shell_completion import ShellComplete

from helmops.cli.app import main
from helmops.store.address import StateAddress
from helmops.store.journal import SqlJournal
from tests.fakes.installation import Machine
from tests.unit.cli.test_get import known
from tests.unit.decide.samples import NOW


def completions(*words: str) -> list[str]:
    """What the shell offers for the last word."""
    shell = ShellComplete(main, {}, "helmops", "_HELMOPS_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def published(machine: Machine) -> Machine:
    """A state database that knows three releases."""

    async def write() -> None:
        path = machine.home / "state" / "helmops" / "state.db"
        journal = SqlJournal(StateAddress.of_file(path), now=lambda: NOW)
        await journal.open()
        for record in (known("web"), known("worker"), known("web", "other")):
            await journal.publish(record.evolve(updated_at=NOW + timedelta(0)))
        await journal.close()

    asyncio.run(write())
    return machine


@pytest.mark.parametrize("command", ["why", "history", "rollback", "suspend", "reconcile"])
def test_names_are_completed_out_of_the_state_database(published: Machine, command: str) -> None:
    assert completions(command, "w") == ["web", "worker"]
    assert completions(command, "wo") == ["worker"]
    assert completions(command, "o") == ["other/web"]


def test_names_of_another_namespace_are_completed_from_there(published: Machine) -> None:
    assert completions("why", "-n", "other", "w") == ["web"]


def test_completion_asks_no_cluster_and_fails_silently(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completions("why", "w") == []
    monkeypatch.setenv("HELMOPS_STATE", "nonsense")
    assert completions("why", "w") == []
    assert machine.server.asked == []


def test_commands_and_formats_are_completed() -> None:
    assert completions("rec") == ["reconcile"]
    assert completions("get", "rel") == ["release", "releases"]
    assert completions("get", "releases", "-o", "") == ["text", "wide", "json", "yaml", "name"]


def commands(group: click.Group, path: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        if isinstance(command, click.Group):
            found += commands(command, f"{path}{name} ")
        else:
            found.append((f"{path}{name}", command))
    return found


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=path) for path, command in commands(main)]
)
def test_every_command_and_option_says_what_it_does(command: click.Command) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=path) for path, command in commands(main)]
)
def test_short_options_mean_the_same_everywhere(command: click.Command) -> None:
    meanings = {
        "-n": "namespace", "-f": "filenames", "-o": "output", "-A": "everywhere",
        "-w": "is_watched", "-q": "quiet", "-h": "help",
    }  # fmt: skip
    for parameter in command.params:
        for option in parameter.opts:
            if len(option) == 2:
                assert meanings[option] == parameter.name
