"""What Prometheus sees. All names begin with `helmops_`, units are in the names.

Labels are bounded: words of ours, and namespace and name of declared releases, which are dropped
when a release is (`forget`). No version, no message, no URL is a label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from helmops import __version__
from helmops.model.releases import DeclarationKey

#: A pass with nothing to do takes milliseconds, an upgrade that waits takes minutes.
_PASS_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_HELM_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_POLL_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RELEASE = ("namespace", "name")


class Metrics:
    """All metrics of one helmops, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._states: dict[DeclarationKey, str] = {}
        self._passes = Counter(
            "helmops_passes",
            "Passes over releases, by how they ended.",
            ["outcome"],
            registry=registry,
        )
        self._pass_seconds = Histogram(
            "helmops_pass_duration_seconds",
            "How long passes took, waiting for readiness included.",
            ["outcome"],
            buckets=_PASS_BUCKETS,
            registry=registry,
        )
        self._actions = Counter(
            "helmops_actions",
            "Actions that passes took, by kind and by how they ended.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._action_seconds = Histogram(
            "helmops_action_duration_seconds",
            "How long actions took.",
            ["kind"],
            buckets=_HELM_BUCKETS,
            registry=registry,
        )
        self._helm_seconds = Histogram(
            "helmops_helm_duration_seconds",
            "How long helm processes ran, by command and by how they ended.",
            ["command", "outcome"],
            buckets=_HELM_BUCKETS,
            registry=registry,
        )
        self._polls = Counter(
            "helmops_source_polls",
            "Polls of sources, by kind of source and by what came of them.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._poll_seconds = Histogram(
            "helmops_source_poll_duration_seconds",
            "How long polls of sources took.",
            ["kind"],
            buckets=_POLL_BUCKETS,
            registry=registry,
        )
        self._rollbacks = Counter(
            "helmops_rollbacks",
            "Rollbacks of a release, by how they ended.",
            [*_RELEASE, "outcome"],
            registry=registry,
        )
        self._last_success = Gauge(
            "helmops_release_last_success_timestamp_seconds",
            "When a release was last seen as declared and healthy, as Unix time.",
            _RELEASE,
            registry=registry,
        )
        self._ready = Gauge(
            "helmops_release_ready",
            "Whether a release is ready (1) or not (0).",
            _RELEASE,
            registry=registry,
        )
        self._by_state = Gauge(
            "helmops_releases",
            "Releases by state.",
            ["state"],
            registry=registry,
        )
        Gauge(
            "helmops_build_info",
            "Always 1; the version is the label.",
            ["version"],
            registry=registry,
        ).labels(__version__).set(1)

    def pass_ended(self, outcome: str, duration: timedelta) -> None:
        """Count a pass. `outcome` is one of few words: settled, retry, stalled, error."""
        self._passes.labels(outcome).inc()
        self._pass_seconds.labels(outcome).observe(duration.total_seconds())

    def action_ended(self, kind: str, *, succeeded: bool, duration: timedelta) -> None:
        """Count an action; `kind` is the name of its class, as `Upgrade`."""
        self._actions.labels(kind, _word(succeeded)).inc()
        self._action_seconds.labels(kind).observe(duration.total_seconds())

    def helm_ended(self, command: str, *, succeeded: bool, duration: timedelta) -> None:
        """Count a helm process; `command` is `install`, `upgrade` and so on."""
        self._helm_seconds.labels(command, _word(succeeded)).observe(duration.total_seconds())

    def source_polled(self, kind: str, outcome: str, duration: timedelta) -> None:
        """Count a poll. `kind` is the declaration's (`HelmRepository`), `outcome` one of
        changed, unchanged, failed.
        """
        self._polls.labels(kind, outcome).inc()
        self._poll_seconds.labels(kind).observe(duration.total_seconds())

    def rolled_back(self, key: DeclarationKey, *, succeeded: bool) -> None:
        """Count a rollback of a release."""
        self._rollbacks.labels(key.namespace, key.name, _word(succeeded)).inc()

    def release_is(self, key: DeclarationKey, state: str, *, ready: bool) -> None:
        """Note the state of a release."""
        before = self._states.get(key)
        if before != state:
            if before is not None:
                self._by_state.labels(before).dec()
            self._by_state.labels(state).inc()
            self._states[key] = state
        self._ready.labels(key.namespace, key.name).set(int(ready))

    def release_succeeded(self, key: DeclarationKey, at: datetime) -> None:
        """Note that a release was seen as declared and healthy."""
        self._last_success.labels(key.namespace, key.name).set(at.timestamp())

    def forget(self, key: DeclarationKey) -> None:
        """Drop all series of a release that is not declared any more."""
        state = self._states.pop(key, None)
        if state is not None:
            self._by_state.labels(state).dec()
        names = (key.namespace, key.name)
        for gauge in (self._ready, self._last_success):
            with contextlib.suppress(KeyError):
                gauge.remove(*names)
        for succeeded in (True, False):
            with contextlib.suppress(KeyError):
                self._rollbacks.remove(*names, _word(succeeded))

    def watch_queue(
        self,
        *,
        depth: Callable[[], int],
        running: Callable[[], int],
        delayed: Callable[[], int],
    ) -> None:
        """Ask a work queue for its sizes at each scrape."""
        self._ask("helmops_queue_depth", "Releases that wait for their turn.", depth)
        self._ask("helmops_queue_running", "Releases that have a pass just now.", running)
        self._ask("helmops_queue_delayed", "Releases that come back by themselves later.", delayed)

    def watch_journal(self, *, backlog: Callable[[], int], dropped: Callable[[], int]) -> None:
        """Ask the store at each scrape what it could not write."""
        self._ask("helmops_store_backlog", "Events and states that wait to be written.", backlog)
        self._ask(
            "helmops_store_dropped_events",
            "Events that were lost because the state could not be written for too long.",
            dropped,
        )

    def _ask(self, name: str, meaning: str, number: Callable[[], int]) -> None:
        Gauge(name, meaning, registry=self.registry).set_function(number)


def _word(succeeded: bool) -> str:
    return "succeeded" if succeeded else "failed"
