"""Everything in this folder runs against real parts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from devcluster.cluster import Cluster
from tests.e2e.helmops_process import Helmops

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def make_helmops(
    cluster: Cluster, namespace: str, helm4: Path, tmp_path: Path
) -> Callable[..., Helmops]:
    """Makes installations of helmops over one namespace, each with a state and cache of its own."""
    made: list[Helmops] = []

    def make(helm: Path = helm4, **options: object) -> Helmops:
        directory = tmp_path / f"helmops-{len(made)}"
        made.append(Helmops(directory, cluster, namespace, helm, **options))  # type: ignore[arg-type]
        return made[-1]

    return make


@pytest.fixture
def helmops(make_helmops: Callable[..., Helmops]) -> Helmops:
    """helmops with helm 4, in a namespace of its own."""
    return make_helmops()


@pytest.fixture
def helmops_of_either(make_helmops: Callable[..., Helmops], helm: Path) -> Helmops:
    """helmops with helm 4, and once more with helm 3."""
    return make_helmops(helm)
