from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from prometheus_client import generate_latest

from helmops.model.releases import DeclarationKey
from helmops.service.metrics import Metrics

WEB, API = DeclarationKey("shop", "web"), DeclarationKey("shop", "api")
SECOND = timedelta(seconds=1)


def value(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(series, labels)


def all_used() -> Metrics:
    metrics = Metrics()
    metrics.pass_ended("settled", SECOND)
    metrics.action_ended("Upgrade", succeeded=True, duration=SECOND)
    metrics.helm_ended("upgrade", succeeded=False, duration=SECOND)
    metrics.source_polled("HelmRepository", "unchanged", SECOND)
    metrics.rolled_back(WEB, succeeded=True)
    metrics.release_is(WEB, "InSync", ready=True)
    metrics.release_succeeded(WEB, datetime(2026, 1, 5, tzinfo=UTC))
    metrics.watch_queue(depth=lambda: 3, running=lambda: 2, delayed=lambda: 1)
    metrics.watch_journal(backlog=lambda: 5, dropped=lambda: 4)
    return metrics


def test_each_happening_counts_under_a_name_with_its_unit() -> None:
    metrics = all_used()
    names = {"namespace": "shop", "name": "web"}
    assert value(metrics, "helmops_passes_total", outcome="settled") == 1
    assert value(metrics, "helmops_pass_duration_seconds_sum", outcome="settled") == 1
    assert value(metrics, "helmops_actions_total", kind="Upgrade", outcome="succeeded") == 1
    assert value(metrics, "helmops_action_duration_seconds_count", kind="Upgrade") == 1
    assert (
        value(metrics, "helmops_helm_duration_seconds_sum", command="upgrade", outcome="failed")
        == 1
    )
    assert (
        value(metrics, "helmops_source_polls_total", kind="HelmRepository", outcome="unchanged")
        == 1
    )
    assert value(metrics, "helmops_rollbacks_total", **names, outcome="succeeded") == 1
    assert value(metrics, "helmops_release_ready", **names) == 1
    assert (
        value(metrics, "helmops_release_last_success_timestamp_seconds", **names) == 1_767_571_200
    )


def test_releases_are_counted_by_their_present_state() -> None:
    metrics = Metrics()
    metrics.release_is(WEB, "OutOfSync", ready=False)
    metrics.release_is(API, "OutOfSync", ready=False)
    metrics.release_is(WEB, "InSync", ready=True)
    metrics.release_is(WEB, "InSync", ready=True)
    assert value(metrics, "helmops_releases", state="OutOfSync") == 1
    assert value(metrics, "helmops_releases", state="InSync") == 1


def test_a_forgotten_release_leaves_no_series_behind() -> None:
    metrics = all_used()
    metrics.release_is(API, "InSync", ready=True)
    metrics.forget(WEB)
    metrics.forget(WEB)
    text = generate_latest(metrics.registry).decode()
    assert 'name="web"' not in text
    assert 'name="api"' in text
    assert value(metrics, "helmops_releases", state="InSync") == 1


def test_sizes_are_asked_for_at_each_scrape() -> None:
    sizes = [1, 2]
    metrics = Metrics()
    metrics.watch_queue(depth=lambda: sizes.pop(0), running=lambda: 0, delayed=lambda: 0)
    assert [value(metrics, "helmops_queue_depth"), value(metrics, "helmops_queue_depth")] == [1, 2]


def test_the_process_is_in_it() -> None:
    assert value(Metrics(), "process_open_fds") is not None


def test_names_and_units_follow_the_conventions_of_prometheus() -> None:
    text = generate_latest(all_used().registry).decode()
    ours = dict(re.findall(r"^# TYPE (helmops_\w+) (\w+)$", text, re.M))
    ours = {name: kind for name, kind in ours.items() if not name.endswith("_created")}
    assert len(ours) > 12
    for name, kind in ours.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert kind != "histogram" or name.endswith("_seconds"), name
        assert re.search(rf"^# HELP {name} \S.*\.$", text, re.M), name


def test_two_helmops_in_one_process_do_not_share_their_numbers() -> None:
    first, second = Metrics(), Metrics()
    first.pass_ended("settled", SECOND)
    assert value(second, "helmops_passes_total", outcome="settled") is None
