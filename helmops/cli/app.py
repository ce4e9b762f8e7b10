"""The command line: one thin file per command.

Exit status: 0 done, 1 failed or not ready, 2 usage or declaration error; `plan`: 0 nothing to do,
2 changes, 1 any error, usage included.
"""

from __future__ import annotations

import sys

import typer

from helmops.cli import (
    check,
    demo,
    events,
    get,
    history,
    hold,
    plan,
    reconcile,
    rollback,
    run_service,
    schema,
    test,
    version,
    versions,
    why,
)
from helmops.errors import DeclarationError, HelmopsError, UsageError

app = typer.Typer(
    name="helmops",
    help="Keeps Helm releases as declared, and rolls back only to what was seen healthy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run_service.run)
app.command("reconcile")(reconcile.reconcile)
app.command("plan")(plan.plan)
app.add_typer(get.app, name="get")
app.command("history")(history.history)
app.command("events")(events.events)
app.command("why")(why.why)
app.command("suspend")(hold.suspend)
app.command("resume")(hold.resume)
app.command("rollback")(rollback.rollback)
app.command("test")(test.test)
app.command("check")(check.check)
app.command("versions")(versions.versions)
app.command("schema")(schema.schema)
app.command("demo")(demo.demo)
app.command("version")(version.version)

#: Commands whose status 2 means "there are changes", so that errors have to be 1.
_TWO_MEANS_CHANGES = frozenset({"plan"})


def run() -> None:
    """Run a command and exit. Errors are one line for a person, on standard error."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    usage_status = 1 if command in _TWO_MEANS_CHANGES else 2
    try:
        app(standalone_mode=True)
    except (UsageError, DeclarationError) as error:
        print(f"helmops: {error}", file=sys.stderr)  # noqa: T201 - the command line speaks
        sys.exit(usage_status)
    except HelmopsError as error:
        print(f"helmops: {error}", file=sys.stderr)  # noqa: T201 - the command line speaks
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except SystemExit as end:
        if end.code == 2 and usage_status == 1 and not _ended_by_command(end):
            sys.exit(1)
        raise


def _ended_by_command(end: SystemExit) -> bool:
    """Whether a command chose this status itself, rather than the parser of options."""
    return getattr(end, "__context__", None) is None or type(end.__context__).__name__ == "Exit"
