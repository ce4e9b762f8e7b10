"""Options that several commands have, with the names of kubectl and helm.

Most of them are settings: a command takes them as `**settings` and hands them to `settings_of`,
which knows the environment variables and says what is wrong with them, all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


class Format(StrEnum):
    """How a command prints what it found."""

    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def _all(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, in this order on the help page."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


namespace = click.option(
    "--namespace",
    "-n",
    metavar="NAME",
    help="Namespace; that of documents without one. [env: HELMOPS_NAMESPACE; default: default]",
)
everywhere = click.option(
    "--all-namespaces", "-A", "everywhere", is_flag=True, help="Releases of all namespaces."
)
filename = _all(
    click.option(
        "--filename",
        "-f",
        "filenames",
        multiple=True,
        metavar="PATH|GIT_URL",
        help="Directory, file or git+https://… with declarations; may be given several times. "
        "[env: HELMOPS_FILENAME]",
    ),
    click.option(
        "--kubectl",
        metavar="PATH",
        help="The kubectl that builds kustomizations. [env: HELMOPS_KUBECTL; default: kubectl]",
    ),
    click.option(
        "--remote-bases",
        is_flag=True,
        default=None,
        help="Let kustomizations load from other places. [env: HELMOPS_REMOTE_BASES]",
    ),
)
state = click.option(
    "--state",
    metavar="URL",
    help="State database, as sqlite:///PATH. [env: HELMOPS_STATE]",
)
cluster = _all(
    click.option(
        "--context", metavar="NAME", help="Context of the kubeconfig. [env: HELMOPS_CONTEXT]"
    ),
    click.option(
        "--kubeconfig",
        metavar="PATH",
        help="Kubeconfig file. [env: KUBECONFIG; else ~/.kube/config, else the cluster inside]",
    ),
)
helm = click.option(
    "--helm", metavar="PATH", help="The helm binary. [env: HELMOPS_HELM; default: helm]"
)
defaults = click.option(
    "--defaults",
    metavar="safe|flux",
    help="What absent fields mean. [env: HELMOPS_DEFAULTS; default: safe]",
)
watch_namespace = click.option(
    "--watch-namespace",
    "watch_namespaces",
    multiple=True,
    metavar="NAME",
    help="See only this namespace; may be given several times. Absent: all that are allowed. "
    "[env: HELMOPS_WATCH_NAMESPACE]",
)
concurrency = click.option(
    "--concurrency",
    metavar="N",
    help="Releases acted on at once. [env: HELMOPS_CONCURRENCY; default: 8]",
)
allow_commands = click.option(
    "--allow-commands",
    is_flag=True,
    callback=lambda _context, _parameter, value: value or None,
    help="Run hooks that are a command; whoever writes policies then runs programs here. "
    "[env: HELMOPS_ALLOW_COMMANDS]",
)
#: What it takes to look at releases.
lookup = _all(namespace, cluster, state)
#: What it takes to act on releases.
acting = _all(namespace, cluster, state, helm, defaults, watch_namespace, allow_commands)

output = click.option(
    "--output",
    "-o",
    type=click.Choice([each.value for each in Format]),
    default=Format.TEXT.value,
    show_default=True,
    callback=lambda _context, _parameter, value: Format(value),
    help="How to print.",
)
timeout = click.option(
    "--timeout",
    default="15m",
    show_default=True,
    metavar="DURATION",
    help="How long to go on, as 5m or 90s.",
)
watch = click.option(
    "--watch", "-w", "is_watched", is_flag=True, help="Print again whenever it changes."
)


def _names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """For completion: what the state database knows. Fails silently, as completion must."""
    try:
        from helmops.cli.session import settings_of
        from helmops.store.peek import published

        settings = settings_of(
            namespace=context.params.get("namespace"), state=context.params.get("state")
        )
        path = settings.state.path
        keys = [key for key, _, _ in published(path)] if path else []
        names = [k.name if k.namespace == settings.namespace else str(k) for k in keys]
        return sorted(name for name in names if name.startswith(incomplete))
    except Exception:
        return []


name = click.argument("name", metavar="[NAMESPACE/]NAME", shell_complete=_names)
names = click.argument("names", metavar="[[NAMESPACE/]NAME]...", nargs=-1, shell_complete=_names)
required_names = click.argument(
    "names", metavar="[NAMESPACE/]NAME...", nargs=-1, required=True, shell_complete=_names
)
