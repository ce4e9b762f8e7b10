"""The command line: one thin file per command, imported when it is called.

Exit status: 0 done, 1 failed or not ready, 2 usage or declaration error; `plan`: 0 nothing to do,
2 changes, 1 any error, usage included.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from typing import Any

import click

from helmops.cli.session import Terminated
from helmops.errors import DeclarationError, HelmopsError, UsageError

#: Command: where it is, and its line on the help page, in the page's order.
_COMMANDS = {
    "run": ("run_service:run", "Run the service."),
    "reconcile": ("reconcile:reconcile", "Run passes until the releases are settled."),
    "plan": ("plan:plan", "Say what a pass would do, and why."),
    "build": ("build:build", "Print the declarations as helmops understands them."),
    "get": ("get:get", "Look at releases, sources and policies."),
    "history": ("history:history", "List the revisions of a release and what was seen of them."),
    "events": ("events:events", "List what happened."),
    "ledger": ("ledger:ledger", "Look at what was decided and done, and verify it."),
    "why": ("why:why", "Say why a release is as it is, and what comes next."),
    "suspend": ("hold:suspend", "Leave releases alone."),
    "resume": ("hold:resume", "Go on with suspended or held releases."),
    "rollback": ("rollback:rollback", "Put a release back to what was seen healthy."),
    "quarantine": ("quarantine:quarantine", "List, put and lift versions not to be tried again."),
    "absorb": ("absorb:absorb", "Print the values that would absorb a change made by hand."),
    "test": ("test:test", "Run a chart's tests on what is released."),
    "check": ("check:check", "Look whether helmops can work here."),
    "values": ("values:values", "Show the values of a release, and where each comes from."),
    "versions": ("versions:versions", "List what a repository offers of a chart."),
    "cache": ("cache:cache", "Look at what was fetched, and throw some of it away."),
    "schema": ("schema:schema", "Print JSON Schemas of the declarations."),
    "demo": ("demo:demo", "See it work, on a local cluster."),
    "completion": ("completion:completion", "Print a script for the shell's completion."),
    "version": ("version:version", "Print the version."),
}
#: Commands whose status 2 means "there are changes", so that errors have to be 1.
_TWO_MEANS_CHANGES = frozenset({"plan"})


class _Commands(click.Group):
    """Imports a command's module when the command is called: starting must be quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"helmops.cli.{module}"), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Keeps Helm releases as declared, and rolls back only to what was seen healthy."""


def run() -> None:
    """Run a command and exit. Errors are told to a person, on standard error."""
    sys.exit(status_of(sys.argv[1:]))


def status_of(arguments: list[str]) -> int:
    """Run a command; gives its exit status."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    usage_status = 1 if command in _TWO_MEANS_CHANGES else 2
    try:
        status: Any = main.main(arguments, prog_name="helmops", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return usage_status
    except click.ClickException as error:
        error.show()
        return usage_status
    except (UsageError, DeclarationError) as error:
        click.echo(f"helmops: {error}", err=True)
        return usage_status
    except HelmopsError as error:
        click.echo(f"helmops: {error}", err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("helmops: interrupted; the next pass goes on from here", err=True)
        return 130
    except Terminated:
        click.echo("helmops: terminated; the next pass goes on from here", err=True)
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if os.environ.get("HELMOPS_LOG_LEVEL") == "debug":
            raise
        click.echo(f"helmops: {_defect(error)}", err=True)
        return 1
    return status if isinstance(status, int) else 0


def _defect(error: Exception) -> str:
    """What nobody thought of, without its text and its traceback: they may hold secret values."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror} (HELMOPS_LOG_LEVEL=debug shows where)"
    last = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{os.path.basename(last.filename)}:{last.lineno}"
    return (
        f"a defect of helmops: {type(error).__name__} at {at} "
        "(HELMOPS_LOG_LEVEL=debug shows all of it, which may hold secret values; please report it)"
    )
