"""Prometheus checks against a real Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from devcluster.certificates import Authority
from devcluster.prometheus import PASSWORD, USER, Prometheus
from helmops.checks.release_checks import ReleaseChecks
from helmops.errors import DeclarationError
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import PolicyCheck
from helmops.model.health import CheckResult
from helmops.model.releases import ReleaseId
from tests.fakes.clock import FakeClock
from tests.fakes.objects import FakeObjects

WEB = ReleaseId("shop", "web")
NOBODY = HttpCredentials()
RATIO = 'errors_total{app="{release}"} / requests_total{app="{release}"}'


@pytest.fixture
async def checks() -> AsyncIterator[ReleaseChecks]:
    async with Http(workers=1) as http:
        yield ReleaseChecks(FakeObjects(FakeClock()), http, FakeClock())


async def run(
    checks: ReleaseChecks, server: Prometheus, credentials: HttpCredentials = NOBODY, **fields: Any
) -> CheckResult:
    check = PolicyCheck.model_validate(
        {"name": "errors", "prometheus": {"address": server.url} | fields, "interval": "1ms"}
    )
    return await checks.policy_check(check, WEB, (), credentials)


async def test_a_rate_of_errors_is_held_against_a_threshold(
    checks: ReleaseChecks, prometheus: Prometheus
) -> None:
    prometheus.set('requests_total{app="web"}', 200)
    prometheus.set('errors_total{app="web"}', 1)
    assert (await run(checks, prometheus, query=RATIO, threshold={"max": 0.01})).passed

    prometheus.set('errors_total{app="web"}', 50)
    result = await run(checks, prometheus, query=RATIO, threshold={"max": 0.01})

    assert not result.passed
    assert result.attempts == 3
    assert 'gives 0.25 for {app="web", instance="127.0.0.1:' in result.message
    assert result.message.endswith("not at most 0.01 (3 times in a row)")


@pytest.mark.parametrize(
    ("query", "rule", "passed"),
    [
        ("1", {}, True),
        ("vector(0)", {}, False),
        ("up", {"expr": "result.all(r, r.metric.job == 'tests' && r.value == 1)"}, True),
        ("nobody_has_it", {}, False),
        ("nobody_has_it", {"noData": "pass"}, True),
        ("vector(0) / vector(0)", {"noData": "pass", "threshold": {"max": 1}}, True),
        ("vector(1) / vector(0)", {"threshold": {"max": 1}}, False),
        (" + ".join(["vector(1)"] * 500), {"threshold": {"min": 500, "max": 500}}, True),
    ],
)
async def test_what_prometheus_answers_is_understood(
    checks: ReleaseChecks, prometheus: Prometheus, query: str, rule: dict[str, Any], passed: bool
) -> None:
    result = await run(checks, prometheus, query=query, **rule)

    assert result.passed is passed, result.message


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("sum(", "does not understand `sum(`: "),
        ("up[5m]", "gives a matrix, not a vector or a number"),
        ("label_replace(up, '9', '', '', '')", "cannot answer"),
    ],
)
async def test_a_query_that_cannot_be_asked_is_no_verdict(
    checks: ReleaseChecks, prometheus: Prometheus, query: str, told: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        await run(checks, prometheus, query=query)

    assert told in caught.value.what
    assert caught.value.field == "spec.verify.checks.prometheus.query"


@pytest.fixture
def ca(authority: Authority) -> str:
    return authority.certificate.read_text()


async def test_a_login_over_tls(
    checks: ReleaseChecks,
    serve_prometheus: Callable[..., Prometheus],
    authority: Authority,
    ca: str,
) -> None:
    guarded = serve_prometheus(tls=authority.issue("prometheus"), login=True)

    assert (await run(checks, guarded, HttpCredentials(USER, PASSWORD, ca=ca), query="1")).passed
    with pytest.raises(DeclarationError) as caught:
        await run(checks, guarded, HttpCredentials(USER, "wrong horse", ca=ca), query="1")
    assert caught.value.field == "spec.verify.checks.prometheus.secretRef"
    untrusted = await run(checks, guarded, HttpCredentials(USER, PASSWORD), query="1")
    assert not untrusted.passed
    assert "certificate" in untrusted.message


async def test_a_prometheus_that_is_away_is_a_failed_check(
    checks: ReleaseChecks, serve_prometheus: Callable[..., Prometheus]
) -> None:
    away = serve_prometheus()
    away.close()

    result = await run(checks, away, query="1")

    assert not result.passed
    assert result.attempts == 3
