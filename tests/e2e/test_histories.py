"""One of the histories of docs/histories.md, told anew; `make histories` tells them all."""

from __future__ import annotations

from collections.abc import Callable

from devcluster.chart_server import ChartRepository
from scripts.histories import HISTORIES, WithHelmops, WithRollback, tell
from tests.e2e.helmops_process import Helmops

FAILED_INSTALL = HISTORIES[1]


def test_a_failed_install_that_helm_calls_superseded_is_gone_back_to_by_helm_alone(
    make_helmops: Callable[..., Helmops],
    make_namespace: Callable[[], str],
    chart_repository: ChartRepository,
) -> None:
    with_helm, with_helmops = make_helmops(), make_helmops()
    with_helmops.namespace = make_namespace()
    by_helm = tell(FAILED_INSTALL, WithRollback, chart_repository, with_helm)
    assert by_helm.content == "zero"
    by_helmops = tell(FAILED_INSTALL, WithHelmops, chart_repository, with_helmops)
    assert (by_helmops.content, by_helmops.status) == ("one", "deployed")
