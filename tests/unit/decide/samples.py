"""Values that go into the decider: whole ones, of which each test changes what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from helmops.model.actions import (
    Action,
    Desired,
    Done,
    HookOutcome,
    Observation,
    Outcome,
    Target,
    Unresolved,
)
from helmops.model.charts import ChartArtifact
from helmops.model.declarations import (
    Defaults,
    HelmReleaseSpec,
    ReleasePolicySpec,
    with_defaults,
)
from helmops.model.records import (
    Attempt,
    EvidenceNote,
    InFlight,
    KeptCopy,
    Origin,
    Proof,
    Record,
    Snapshot,
    Verdict,
)
from helmops.model.releases import DeclarationKey, HelmStatus, ReleaseId, Revision, TestHook

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
KEY = DeclarationKey("apps", "web")
RELEASE = ReleaseId("apps", "web")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def revision(
    number: int = 1,
    status: HelmStatus = HelmStatus.DEPLOYED,
    *,
    version: str = "1.0.0",
    digest: str = "",
    chart: str = "web",
    config: str = "values",
    tests: tuple[TestHook, ...] = (),
) -> Revision:
    """A stored revision, its digest `d<number>` unless said otherwise."""
    return Revision(
        number=number,
        status=status,
        digest=digest or f"d{number}",
        chart_name=chart,
        chart_version=version,
        app_version="",
        config_digest=config,
        first_deployed=NOW - timedelta(days=1),
        last_deployed=NOW - timedelta(hours=1) + number * MINUTE,
        test_hooks=tests,
    )


def snapshot(of: Revision | None = None, origin: Origin = Origin.INSTALL, **other: Any) -> Snapshot:
    """What is known of a revision; seen healthy unless said otherwise."""
    of = of or revision()
    fields: dict[str, Any] = {
        "released": Proof.PASSED,
        "health": Proof.PASSED,
        "tests": Proof.SKIPPED,
        "artifact_digest": f"artifact {of.chart_version}",
        "judged_at": NOW - 10 * MINUTE,
        **other,
    }
    return Snapshot(
        revision=of.number,
        digest=of.digest,
        origin=origin,
        status=of.status,
        chart_name=of.chart_name,
        chart_version=of.chart_version,
        app_version=of.app_version,
        config_digest=of.config_digest,
        first_deployed=of.first_deployed,
        last_deployed=of.last_deployed,
        test_hooks=of.test_hooks,
        **fields,
    )


def failed(of: Revision, origin: Origin = Origin.UPGRADE, **other: Any) -> Snapshot:
    """A revision that helm could not release."""
    fields = {
        "released": Proof.FAILED,
        "health": Proof.PENDING,
        "message": "it broke",
        "evidence": EvidenceNote(1, "it broke"),
        **other,
    }
    return snapshot(of, origin, **fields)


def observed(*revisions: Revision, **other: Any) -> Observation:
    return Observation(revisions=revisions, **other)


def target(version: str = "1.0.0", *, chart: str = "web", **other: Any) -> Target:
    """A chart at hand; equal to what `revision(version=...)` runs."""
    artifact = ChartArtifact(
        name=chart,
        version=version,
        path=f"/cache/{chart}-{version}.tgz",
        digest=other.pop("digest", f"artifact {version}"),
        source="HelmRepository/charts",
        revision=version,
    )
    return Target(**{"chart": artifact, "values": {}, "config_digest": "values", **other})


def desired(
    to: Target | Unresolved | str = "1.0.0",
    *,
    policy: Mapping[str, Any] | None = None,
    defaults: Defaults = Defaults.SAFE,
    given: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Desired:
    """What is wanted; `spec` are fields of `HelmRelease.spec`, `given` those of `Desired`."""
    written = {
        "interval": "1h",
        "chart": {
            "spec": {"chart": "web", "sourceRef": {"kind": "HelmRepository", "name": "charts"}}
        },
        **spec,
    }
    # Nothing is inspected before an upgrade, unless a test is about that.
    uninspected = {"remediation": {"irreversible": "rollback"}}
    if policy and "remediation" in policy:
        uninspected["remediation"] |= policy["remediation"]
        policy = {**policy, **uninspected}
    wanted = Desired(
        key=KEY,
        release=RELEASE,
        spec=with_defaults(HelmReleaseSpec.model_validate(written), defaults),
        policy=ReleasePolicySpec.model_validate(uninspected | dict(policy or {})),
        defaults=defaults,
        declaration_digest="declared",
        target=target(to) if isinstance(to, str) else to,
    )
    return replace(wanted, **(given or {}))


def record(*history: Snapshot, **other: Any) -> Record:
    """A record of the declaration that `desired` makes, newest snapshot first; a copy of the newest
    healthy revision is kept.
    """
    healthy = next((s for s in history if s.verdict is Verdict.HEALTHY), None)
    fields: dict[str, Any] = {
        "kept": KeptCopy(healthy.revision, healthy.digest) if healthy else None,
        "declaration_digest": "declared",
        "generation": 1,
        "observed_generation": 1,
        **other,
    }
    return Record(key=KEY, release=RELEASE, history=history, **fields)


def attempt(action: Origin = Origin.UPGRADE, version: str = "1.0.0", **other: Any) -> Attempt:
    """A try at what `target(version)` says."""
    fields: dict[str, Any] = {"at": NOW - MINUTE, "changed_storage": True, **other}
    return Attempt(
        action=action,
        generation=1,
        chart_version=version,
        artifact_digest=f"artifact {version}",
        artifact_revision=version,
        config_digest="values",
        **fields,
    )


def in_flight(action: str = "upgrade", base: int = 1, **other: Any) -> InFlight:
    """The note of an action towards `revision(version="2.0.0")`."""
    fields: dict[str, Any] = {"at": NOW - MINUTE, "holder": "test", **other}
    if action in ("install", "upgrade"):
        fields = {
            "chart_name": "web",
            "chart_version": "2.0.0",
            "config_digest": "values",
            "artifact_digest": "artifact 2.0.0",
            "upstream_digest": "artifact 2.0.0",
            **fields,
        }
    return InFlight(action=action, base=base, **fields)


def done(action: Action, *, succeeded: bool = True, **other: Any) -> Done:
    """An action of this pass that ended just now."""
    return Done(action, outcome(succeeded=succeeded, **other))


def outcome(*, succeeded: bool = True, **other: Any) -> Outcome:
    fields: dict[str, Any] = {"started": NOW - 2 * SECOND, "finished": NOW, **other}
    if not succeeded:
        fields = {"reason": "ItFailed", "message": "it broke", **fields}
    return Outcome(succeeded=succeeded, **fields)


def hook_policy(at: str, name: str = "tell", on_error: str = "continue") -> dict[str, Any]:
    """A policy with one remediation hook."""
    hook = {"name": name, "at": at, "onError": on_error, "webhook": {"url": "http://hooks/"}}
    return {"remediation": {"hooks": [hook]}}


def hook_outcome(name: str = "tell", *, succeeded: bool = True, stops: bool = False) -> HookOutcome:
    return HookOutcome(name, succeeded, "done" if succeeded else "exit 1", "a line\n", stops)
