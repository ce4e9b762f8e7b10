"""`helmops check`."""

from __future__ import annotations

import typer

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import run_async, settings_of


def check(
    namespace: options.Namespace = None,
    state: options.State = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    helm: options.Helm = None,
    filename: options.Filename = None,
    output: options.Output = Format.TEXT,
) -> None:
    """Look whether helmops can work here: helm, git, the API server, rights, state, declarations.

    Status 0: all is well. 1: something is missing.
    """
    settings = settings_of(
        namespace=namespace,
        state=state,
        context=context,
        kubeconfig=kubeconfig,
        helm=helm,
        filenames=filename,
    )

    async def show() -> bool:
        from helmops.cli.output import as_text
        from helmops.service.checkup import checkup

        findings = await checkup(settings)
        if output in (Format.JSON, Format.YAML):
            told = [{"name": f.name, "ok": f.is_good, "message": f.message} for f in findings]
            typer.echo(as_text(told, output))
        else:
            for finding in findings:
                typer.echo(f"{'✔' if finding.is_good else '✗'} {finding.name}: {finding.message}")
        return all(finding.is_good for finding in findings)

    raise typer.Exit(0 if run_async(show()) else 1)
