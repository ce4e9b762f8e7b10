"""`helmops test`."""

from __future__ import annotations

from typing import Annotated

import typer

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.single import act_on_one


def test(
    name: Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME.")],
    namespace: options.Namespace = None,
    state: options.State = None,
    defaults: options.Defaults = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    helm: options.Helm = None,
    timeout: options.Timeout = "15m",
    output: options.Output = Format.TEXT,
) -> None:
    """Run the chart's tests on what is released. A failure counts as a failed release."""
    from helmops.model.actions import Request, RunTests
    from helmops.service.identity import who

    act_on_one(
        name,
        Request(test=True, by=who()),
        succeeded=lambda passed: any(
            isinstance(done.action, RunTests) and done.outcome.succeeded for done in passed.done
        ),
        timeout=timeout,
        output=output,
        namespace=namespace,
        state=state,
        defaults=defaults,
        context=context,
        kubeconfig=kubeconfig,
        helm=helm,
    )


test.__test__ = False  # type: ignore[attr-defined]  # a command, whatever pytest thinks of it
