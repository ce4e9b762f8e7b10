"""Hooks that are a command: refused, and run where the operator allowed them."""

from __future__ import annotations

from pathlib import Path

from devcluster.chart_server import ChartRepository
from tests.e2e.helmops_process import Helmops, policy, release, repository


def test_a_command_is_run_only_where_commands_are_allowed(
    helmops: Helmops, chart_repository: ChartRepository, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    script = f'echo "$HELMOPS_RELEASE $HELMOPS_REVISION $HELMOPS_AT ${{HELMOPS_STATE:-}}" > {told}'
    hook = {"name": "note", "at": "afterSuccess", "command": ["/bin/sh", "-c", script]}
    helmops.declare(
        repository(chart_repository.url), release("app"), policy(remediation={"hooks": [hook]})
    )

    helmops.reconcile(status=1)
    seen = helmops.see()
    assert seen.condition("Stalled")["reason"] == "NotSupported"
    assert "spec.remediation.hooks[0].command" in seen.condition("Stalled")["message"]
    assert "HELMOPS_ALLOW_COMMANDS" in seen.condition("Stalled")["message"]
    assert helmops.revisions() == {}

    helmops.reconcile("--allow-commands")
    assert helmops.see().is_ready
    assert told.read_text() == "app 1 afterSuccess \n"
