"""What `rollback` and `test` have in common; how each of them ends is in its own file."""

from __future__ import annotations

import pytest

from helmops.cli.app import status_of
from tests.fakes.cluster_state import FakeChart
from tests.fakes.installation import URL, Machine
from tests.unit.reconcile.samples import chart, policy, release, repository

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("command", ["rollback", "test"])
def test_a_timeout_that_is_none_is_a_mistake_of_usage(
    machine: Machine, capsys: Capture, command: str
) -> None:
    assert status_of([command, "web", "--timeout", "soon"]) == 2
    assert "--timeout" in capsys.readouterr().err


def test_what_is_declared_goes_before_what_is_remembered(machine: Machine) -> None:
    machine.offer(FakeChart("app", "1.0.0", tests=("t",)), FakeChart("app", "1.1.0"))
    sources = repository("charts", url=URL)
    machine.declare(sources, release("web", chart=chart(chart="app", version="1.0.0")))
    status_of(["reconcile", "-q"])
    machine.declare(sources, release("web", chart=chart(chart="app", version="1.1.0")))
    assert status_of(["test", "web"]) == 0
    assert machine.cluster.runs["upgrade"] == 1


def test_without_declarations_the_policies_are_remembered_too(machine: Machine) -> None:
    """Otherwise a test by hand of an observed release would begin to act on it."""
    machine.offer(FakeChart("app", "1.0.0", tests=("t",)))
    machine.declare(
        repository("charts", url=URL),
        release("web", chart=chart(chart="app")),
        policy(mode="observe"),
    )
    status_of(["reconcile", "-q"])
    machine.undeclare()
    assert status_of(["test", "web"]) == 1
    assert not machine.cluster.runs
