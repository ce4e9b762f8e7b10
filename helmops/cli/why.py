"""`helmops why`."""

from __future__ import annotations

from typing import Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, run_async, settings_of


@click.command()
@options.name
@options.lookup
@options.output
def why(name: str, output: Format, **given: Any) -> None:
    """Say in a few lines why a release is as it is, and what would go where next."""
    settings = settings_of(**given)
    key = key_of(name, settings.namespace)

    async def show() -> None:
        from helmops.cli.output import as_text
        from helmops.service.lookup import one

        told = explain(await one(settings, key))
        if output in (Format.JSON, Format.YAML):
            click.echo(as_text(told, output))
            return
        width = max(len(line) for line in told)
        for label, text in told.items():
            for number, line in enumerate(text if isinstance(text, list) else [text]):
                click.echo(f"{(label if number == 0 else ''):<{width}}  {line}")

    run_async(show())


def explain(manifest: dict[str, Any]) -> dict[str, Any]:
    """Why a release is as it is: labels and sentences, in the order of importance."""
    status = manifest["status"]
    ours = status.get("helmops") or {}
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    history = status.get("history") or []
    metadata = manifest["metadata"]
    told: dict[str, Any] = {"release": f"{metadata['namespace']}/{metadata['name']}"}
    ready = conditions.get("Ready", {})
    told["ready"] = f"{ready.get('status', 'Unknown')}: {ready.get('reason', 'never passed over')}"
    told["state"] = ours.get("state") or "unknown"
    told["because"] = ready.get("message") or "it was not passed over yet"
    if ours.get("removed"):
        told["declaration"] = "gone; the release is left running, and nobody looks after it"
    if ours.get("suspended"):
        told["suspended"] = "by `helmops suspend`; `helmops resume` goes on"
    hold = ours.get("hold")
    if hold:
        told["because"] = f"held: {hold['message']}"
        if hold["plan"]:
            told["going on would"] = hold["plan"]
    if history:
        head = history[0]
        told["runs"] = (
            f"revision {head['version']}, {head['chartName']}@{head['chartVersion']}, "
            f"{head['helmops']['verdict']}"
        )
    failed = next((h for h in history if h["helmops"]["verdict"] == "failed"), None)
    if failed is not None and failed["helmops"]["message"] not in told["because"]:
        told["last failure"] = (
            f"revision {failed['version']}, {failed['chartName']}@{failed['chartVersion']}: "
            f"{failed['helmops']['message']}"
        )
    if conditions.get("FetchFailed"):
        told["source"] = conditions["FetchFailed"]["message"]
    if ours.get("heldBack"):
        told["held back"] = ours["heldBack"][:5]
    told["rollback goes to"] = _target(history, ours)
    told["next"] = _next(ours, conditions)
    if ours.get("origin"):
        told["declared at"] = ours["origin"]
    return told


def _target(history: list[dict[str, Any]], ours: dict[str, Any]) -> str:
    """Where a failure of the next revision would go: the newest one seen healthy."""
    healthy = ours.get("lastHealthy")
    if not healthy:
        reason = "no revision was seen healthy"
        if history and history[0]["helmops"]["health"] == "skipped":
            reason += " (disableWait is set)"
        return f"nothing: {reason}, so a failure would be left as it is"
    return f"revision {healthy['revision']} ({healthy['chartVersion']}), seen healthy"


def _next(ours: dict[str, Any], conditions: dict[str, dict[str, Any]]) -> str:
    if ours.get("removed"):
        return "nothing, as long as nothing declares it"
    if ours.get("suspended"):
        return "nothing before `helmops resume`"
    if ours.get("state") == "Suspended":
        return "nothing before spec.suspend is false"
    if ours.get("hold"):
        return "nothing before `helmops resume` or a changed declaration"
    if ours.get("nextTry"):
        return f"another look at {ours['nextTry']}"
    if "Stalled" in conditions:
        return "nothing before the declaration, the chart or its source changes"
    if "Reconciling" in conditions:
        return "under way; if it was broken off, the next pass goes on"
    return "an upgrade when the chart, the values or the policy change"
