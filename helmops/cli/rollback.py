"""`helmops rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.single import act_on_one


def rollback(
    name: Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME.")],
    to: Annotated[
        int,
        typer.Option("--to", min=0, help="Revision; absent or 0: the last one seen healthy."),
    ] = 0,
    namespace: options.Namespace = None,
    state: options.State = None,
    defaults: options.Defaults = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    helm: options.Helm = None,
    timeout: options.Timeout = "15m",
    output: options.Output = Format.TEXT,
) -> None:
    """Put a release back to a revision that was seen healthy, and hold it there.

    It stays until `helmops resume` or a changed declaration. Works from what helmops remembers,
    so that no declarations are needed.
    """
    from helmops.model.actions import Request
    from helmops.service.identity import who

    act_on_one(
        name,
        Request(rollback_to=to, by=who()),
        succeeded=lambda passed: passed.record.hold is not None and _is_healthy(passed.record),
        timeout=timeout,
        output=output,
        namespace=namespace,
        state=state,
        defaults=defaults,
        context=context,
        kubeconfig=kubeconfig,
        helm=helm,
    )


def _is_healthy(record: object) -> bool:
    from helmops.model.records import Record, Verdict

    return (
        isinstance(record, Record)
        and record.head is not None
        and record.head.verdict is not Verdict.FAILED
    )
