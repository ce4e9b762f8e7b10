"""`helmops run`."""

from __future__ import annotations

from typing import Annotated

import typer

from helmops.cli import options
from helmops.cli.session import run_async, settings_of


def run(
    filename: options.Filename = None,
    namespace: options.Namespace = None,
    state: options.State = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            help="HOST:PORT for health, metrics and a page. [env: HELMOPS_LISTEN]",
            show_default="127.0.0.1:9640",
        ),
    ] = None,
    defaults: options.Defaults = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    helm: options.Helm = None,
    concurrency: options.Concurrency = None,
    watch_namespace: options.WatchNamespace = None,
    observe: Annotated[
        bool, typer.Option("--observe", help="Look and say what would be done; write nothing.")
    ] = False,
    grace_period: Annotated[
        str | None,
        typer.Option("--grace-period", help="Time to end after SIGTERM.", show_default="30s"),
    ] = None,
    log_format: options.LogFormat = None,
    log_level: options.LogLevel = None,
) -> None:
    """Run the service: watch declarations and sources, and keep the releases as declared."""
    from helmops.errors import UsageError
    from helmops.service.serve import serve

    settings = settings_of(
        filenames=filename,
        namespace=namespace,
        state=state,
        listen=listen,
        defaults=defaults,
        context=context,
        kubeconfig=kubeconfig,
        helm=helm,
        concurrency=concurrency,
        watch_namespaces=watch_namespace,
        observe=observe or None,
        grace_period=grace_period,
        log_format=log_format,
        log_level=log_level,
    )
    if not settings.filenames:
        raise UsageError(
            "there are no declarations to run with",
            next_step="name them: -f DIR or -f git+https://…",
        )
    run_async(serve(settings))
