"""`helmops why`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from helmops.cli import options
from helmops.cli.options import Format
from helmops.cli.session import key_of, run_async, settings_of

#: So many versions that are kept back are named, and lines of evidence shown: it is one screen.
_BLOCKED_SHOWN = 5
_EVIDENCE_LINES = 3
_REASON_LENGTH = 80


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
        labelled = list(lines(told))
        width = max(len(label) for label, _ in labelled)
        for label, text in labelled:
            for number, line in enumerate(text if isinstance(text, list) else [text]):
                click.echo(f"{(label if number == 0 else ''):<{width}}  {line}")

    run_async(show())


def explain(manifest: dict[str, Any]) -> dict[str, Any]:
    """Why a release is as it is, for programs: a HelmRelease with `status` in, camelCase keys out.

    `because` and `next` are sentences; `blocked` are the versions that a rule keeps back, each with
    the rule and when it ends by itself; `rollbackTarget` is where a failure of the next revision
    goes, or null, and then `rollbackTargetMissing` says why.
    """
    status = manifest["status"]
    ours = status.get("helmops") or {}
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    history = status.get("history") or []
    metadata = manifest["metadata"]
    ready = conditions.get("Ready", {})
    hold = ours.get("hold")
    healthy = ours.get("lastHealthy")
    return {
        "release": f"{metadata['namespace']}/{metadata['name']}",
        "ready": {
            "status": ready.get("status", "Unknown"),
            "reason": ready.get("reason", "never passed over"),
        },
        "state": ours.get("state") or "unknown",
        "because": f"held: {hold['message']}"
        if hold
        else ready.get("message") or "it was not passed over yet",
        "removed": bool(ours.get("removed")),
        "suspended": bool(ours.get("suspended")),
        "hold": {"reason": hold.get("reason", ""), "wouldDo": hold["plan"]} if hold else None,
        "runs": _revision(history[0]) if history else None,
        "healthLost": ours.get("healthLost"),
        "lastFailure": _last_failure(history),
        "source": conditions["FetchFailed"]["message"] if "FetchFailed" in conditions else None,
        "blocked": list(_blocked(ours)),
        "rollbackTarget": {"revision": healthy["revision"], "version": healthy["chartVersion"]}
        if healthy
        else None,
        "rollbackTargetMissing": "" if healthy else _why_no_target(history),
        "next": _next(ours, conditions),
        "nextTry": ours.get("nextTry"),
        "declaredAt": ours.get("origin") or None,
    }


def lines(told: dict[str, Any]) -> Iterator[tuple[str, str | list[str]]]:
    """An explanation for people: labels and what stands behind them, the most important first."""
    yield "release", told["release"]
    yield "ready", f"{told['ready']['status']}: {told['ready']['reason']}"
    yield "state", told["state"]
    yield "because", told["because"]
    if told["removed"]:
        yield "declaration", "gone; the release is left running, and nobody looks after it"
    if told["suspended"]:
        yield "suspended", "by `helmops suspend`; `helmops resume` goes on"
    if told["hold"] and told["hold"]["wouldDo"]:
        yield "going on would", told["hold"]["wouldDo"]
    if told["runs"]:
        yield "runs", _shown(told["runs"])
    if told["healthLost"]:
        yield "health", f"lost since {told['healthLost']['at']}: {told['healthLost']['message']}"
    if failure := told["lastFailure"]:
        message = failure["message"]
        said = "" if message in told["because"] else f": {message}"
        yield "last failure", f"revision {failure['revision']}, {failure['chart']}{said}"
        if evidence := failure["evidence"]:
            name = told["release"].partition("/")[2]
            shown = evidence["summary"].splitlines()[:_EVIDENCE_LINES]
            if evidence["number"]:
                shown.append(f"all of it: helmops events {name} --evidence {evidence['number']}")
            if shown:
                yield "evidence", shown
        if failure["barriers"]:
            yield "cannot be undone", failure["barriers"]
    if told["source"]:
        yield "source", told["source"]
    if blocked := told["blocked"]:
        shown = [
            f"{b['version']}: {b['rule']}"
            + (f", next tried {b['nextTry']}" if b["nextTry"] else "")
            for b in blocked[:_BLOCKED_SHOWN]
        ]
        if len(blocked) > _BLOCKED_SHOWN:
            shown.append(f"and {len(blocked) - _BLOCKED_SHOWN} more")
        yield "kept back", shown
    target = told["rollbackTarget"]
    yield (
        "rollback goes to",
        f"revision {target['revision']} ({target['version']}), seen healthy"
        if target
        else f"nothing: {told['rollbackTargetMissing']}, so a failure would be left as it is",
    )
    yield "next", told["next"]
    if told["declaredAt"]:
        yield "declared at", told["declaredAt"]


def _revision(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "revision": entry["version"],
        "chart": f"{entry['chartName']}@{entry['chartVersion']}",
        "verdict": entry["helmops"]["verdict"],
    }


def _shown(revision: dict[str, Any]) -> str:
    return f"revision {revision['revision']}, {revision['chart']}, {revision['verdict']}"


def _last_failure(history: list[dict[str, Any]]) -> dict[str, Any] | None:
    failed = next((h for h in history if h["helmops"]["verdict"] == "failed"), None)
    if failed is None:
        return None
    ours = failed["helmops"]
    return {
        **_revision(failed),
        "message": ours["message"],
        "evidence": ours.get("evidence"),
        "barriers": ours.get("barriers") or [],
    }


def _blocked(ours: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Versions that a rule keeps back. Those in quarantine come first, each once."""
    quarantined = ours.get("quarantine") or []
    for entry in quarantined:
        until = entry.get("until")
        yield {
            "version": entry["version"],
            "rule": f"in quarantine since {entry['at']}: {_shortened(entry['why'])}",
            "nextTry": until or "after `helmops quarantine lift`, or with new content",
        }
    known = {entry["version"] for entry in quarantined}
    for text in ours.get("heldBack") or ():
        version, _, rule = text.partition(": ")
        if version not in known:
            yield {"version": version, "rule": rule, "nextTry": None}


def _shortened(text: str) -> str:
    """The beginning; the whole of it is told as the last failure, or in the evidence."""
    return text if len(text) <= _REASON_LENGTH else f"{text[: _REASON_LENGTH - 1]}…"


def _why_no_target(history: list[dict[str, Any]]) -> str:
    if history and history[0]["helmops"]["health"] == "skipped":
        return "no revision was seen healthy (disableWait is set)"
    return "no revision was seen healthy"


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
    stalled = conditions.get("Stalled")
    if stalled is not None and stalled.get("reason") == "Quarantined":
        return "nothing before `helmops quarantine lift`, new content, or another version in range"
    if stalled is not None:
        return "nothing before the declaration, the chart or its source changes"
    if "Reconciling" in conditions:
        return "under way; if it was broken off, the next pass goes on"
    return "an upgrade when the chart, the values or the policy change"
