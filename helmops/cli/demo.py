"""`helmops demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_LEVELS_TO_CHECKOUT = 2


@click.command()
@click.option(
    "--context",
    default="",
    metavar="NAME",
    help="Use this cluster of the kubeconfig, in a namespace of its own: helmops-demo. Absent: a "
    "cluster on this machine, which is started for it.",
)
@click.option("--keep", is_flag=True, help="Leave the cluster and the releases as they are.")
@click.option("--no-wait", is_flag=True, help="End at once, on a terminal too.")
def demo(context: str, keep: bool, no_wait: bool) -> None:
    """Show the main job: releases from Git, a broken version, the way back.

    Never touches a cluster that was not named. Ends by itself where there is no terminal, and
    leaves nothing running. Status 1: something did not happen in time.
    """
    from helmops.errors import HelmopsError, UsageError

    checkout = Path(__file__).resolve().parents[_LEVELS_TO_CHECKOUT]
    if not (checkout / "devcluster" / "demo.py").exists():
        raise UsageError(
            "the demo needs the charts and the local cluster of a checkout, which the installed "
            "package does not have",
            next_step="clone the repository and run `make demo` there",
        )
    # The package beside ours: it is not installed with helmops.
    sys.path.insert(0, str(checkout))
    from devcluster import demo as demonstration
    from devcluster.errors import DevclusterError

    try:
        status = demonstration.run(context=context, keep=keep, wait=not no_wait)
    except DevclusterError as error:
        raise HelmopsError(str(error), where="demo") from error
    raise click.exceptions.Exit(status)
