"""Options that several commands have, with the names of kubectl and helm."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """How a command prints what it found."""

    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        envvar="HELMOPS_NAMESPACE",
        help="Namespace; that of documents without one.",
        show_default="default",
    ),
]
AllNamespaces = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="Releases of all namespaces.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig", help="Kubeconfig file; else KUBECONFIG, ~/.kube/config, the cluster inside."
    ),
]
Filename = Annotated[
    list[str] | None,
    typer.Option(
        "--filename",
        "-f",
        help="Directory, file or git+https://… with declarations; may be given several times. "
        "[env: HELMOPS_FILENAME]",
    ),
]
State = Annotated[
    str | None,
    typer.Option("--state", help="State database, as sqlite:///PATH. [env: HELMOPS_STATE]"),
]
Defaults = Annotated[
    str | None,
    typer.Option(
        "--defaults",
        help="What absent fields mean: safe or flux. [env: HELMOPS_DEFAULTS]",
        show_default="safe",
    ),
]
Helm = Annotated[str | None, typer.Option("--helm", help="The helm binary. [env: HELMOPS_HELM]")]
Output = Annotated[
    Format, typer.Option("--output", "-o", help="How to print.", show_default="text")
]
LogFormat = Annotated[
    str | None, typer.Option("--log-format", help="Logs as text or json.", show_default="text")
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", help="debug, info, warning or error.", show_default="info"),
]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to go on, as 5m or 90s.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Print again whenever it changes.")]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", help="Releases acted on at once.", show_default="8"),
]
WatchNamespace = Annotated[
    list[str] | None,
    typer.Option(
        "--watch-namespace",
        help="See only this namespace; may be given several times. Absent: all that are allowed.",
    ),
]
