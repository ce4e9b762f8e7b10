from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from helmops.model.declarations import ReleasePolicy, ReleaseSelector
from tests.unit.model.manifests import policy

HTTP = {"url": "https://web.example.com/healthz"}
QUERY = {"address": "http://prometheus:9090", "query": "up"}
JOB = {"template": {"spec": {"containers": []}}}


def refused(**spec: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        policy(**spec)
    return str(raised.value)


def test_a_policy_that_says_nothing_has_the_safe_defaults() -> None:
    spec = policy().spec
    assert (spec.mode, spec.prune, spec.out_of_band) == ("enforce", False, "hold")
    assert (spec.upgrade.allow, spec.upgrade.downgrade) == (None, "hold")
    assert spec.verify.watch == timedelta(0)
    assert spec.verify.checks == ()
    assert spec.remediation.hooks == ()
    document = {"apiVersion": "helmops.dev/v1alpha1", "kind": "ReleasePolicy"}
    assert ReleasePolicy.model_validate({**document, "metadata": {"name": "p"}}).spec == spec


def test_a_check_has_defaults_for_its_times_and_thresholds() -> None:
    (check,) = policy(verify={"checks": [{"name": "web", "http": HTTP}]}).spec.verify.checks
    assert check.interval == timedelta(seconds=5)
    assert check.timeout == timedelta(minutes=1)
    assert (check.failure_threshold, check.success_threshold) == (3, 1)
    assert check.http is not None
    assert check.http.method == "GET"
    assert check.http.expect.status == (200,)


def test_a_whole_check_is_read() -> None:
    http = {
        **HTTP,
        "method": "POST",
        "headers": {"Accept": "application/json"},
        "body": "{}",
        "expect": {
            "status": [200, 204],
            "body": "^ok",
            "headers": {"X-Version": "^6[.]"},
            "jsonPath": [{"path": "{.status}", "equals": "ok"}],
        },
        "tls": {"insecureSkipVerify": True, "serverName": "web"},
        "secretRef": {"name": "login"},
        "timeout": "2s",
    }
    (check,) = policy(verify={"checks": [{"name": "web", "http": http}]}).spec.verify.checks
    assert check.http is not None
    assert check.http.manifest() == http


@pytest.mark.parametrize(
    "kind",
    [
        {"http": HTTP},
        {
            "cel": {
                "object": {"apiVersion": "v1", "kind": "Pod", "name": "a"},
                "expr": "object.status.phase == 'Running'",
            }
        },
        {"prometheus": {"address": "http://prometheus:9090", "query": "up"}},
        {"job": JOB},
    ],
)
def test_a_check_is_of_exactly_one_kind(kind: dict[str, Any]) -> None:
    policy(verify={"checks": [{"name": "a", **kind}]})
    another = {"job": JOB} if "job" not in kind else {"http": HTTP}
    for wrong in ({**kind, **another}, {}):
        assert "exactly one" in refused(verify={"checks": [{"name": "a", **wrong}]})


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"http": {"url": "ftp://x"}}, "pattern"),
        ({"http": {"url": "https:///path"}}, "pattern"),
        ({"http": {**HTTP, "expect": {"body": "("}}}, "not a regular expression"),
        ({"http": {**HTTP, "expect": {"headers": {"a": "["}}}}, "not a regular expression"),
        ({"http": {**HTTP, "expect": {"status": [99]}}}, "100"),
        ({"http": {**HTTP, "expect": {"status": []}}}, "at least 1"),
        ({"http": HTTP, "timeout": "0s"}, "longer than 0s"),
        ({"http": HTTP, "interval": "0s"}, "longer than 0s"),
        ({"http": HTTP, "failureThreshold": 0}, "greater than or equal to 1"),
        ({"http": {**HTTP, "retries": 1}}, "not permitted"),
        ({"job": {"template": {}}}, "at least 1"),
        ({"prometheus": {**QUERY, "query": ""}}, "at least 1"),
        ({"prometheus": {**QUERY, "expr": "result.all(r, r.value <"}}, "ends too early"),
        ({"prometheus": {**QUERY, "expr": "object.x"}}, "undeclared reference to 'object.x'"),
        ({"prometheus": {**QUERY, "expr": "true", "threshold": {"min": 1}}}, "exclude each other"),
        ({"prometheus": {**QUERY, "threshold": {}}}, "at least one of `min`"),
        ({"prometheus": {**QUERY, "threshold": {"min": 1, "above": 1}}}, "exclude each other"),
        ({"prometheus": {**QUERY, "threshold": {"min": 2, "max": 1}}}, "no number is between"),
        ({"prometheus": {**QUERY, "threshold": {"min": 1, "below": 1}}}, "no number is between"),
        ({"prometheus": {**QUERY, "threshold": {"max": "1"}}}, "valid number"),
        ({"prometheus": {**QUERY, "threshold": {"max": float("nan")}}}, "finite"),
        ({"prometheus": {**QUERY, "noData": "ignore"}}, "'fail' or 'pass'"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(check: dict[str, Any], said: str) -> None:
    assert said in refused(verify={"checks": [{"name": "a", **check}]})


@pytest.mark.parametrize("threshold", [{"min": 1, "max": 1}, {"above": 0, "below": 1.5}])
def test_a_threshold_may_have_two_bounds(threshold: dict[str, float]) -> None:
    check = {"name": "a", "prometheus": {**QUERY, "threshold": threshold}}

    [parsed] = policy(verify={"checks": [check]}).spec.verify.checks

    assert parsed.manifest() == check


def test_a_check_asks_with_the_credentials_of_its_kind() -> None:
    secret = {"secretRef": {"name": "login"}}
    checks = [
        {"name": "a", "http": HTTP | secret},
        {"name": "b", "prometheus": QUERY | secret},
        {"name": "c", "job": JOB},
    ]

    refs = [check.secret_ref for check in policy(verify={"checks": checks}).spec.verify.checks]

    assert [ref and ref.name for ref in refs] == ["login", "login", None]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], "at least 1"),
        ([" "], "begins with the name"),
        ("rm -rf /", "valid tuple"),
        (["sleep", 5], "valid string"),
    ],
)
def test_a_command_is_a_program_and_its_arguments(command: Any, said: str) -> None:
    hook = {"name": "a", "at": "failed", "command": command}

    assert said in refused(remediation={"hooks": [hook]})


def test_what_a_command_is_given_is_not_shown() -> None:
    hook = {"name": "a", "at": "failed", "command": ["notify", "--password", "hunter2"]}

    assert "hunter2" not in repr(policy(remediation={"hooks": [hook]}))


def test_a_hook_is_a_job_or_a_webhook() -> None:
    webhook = {"url": "https://hooks.example.com"}
    hooks = [
        {"name": "a", "at": "beforeUpgrade", "webhook": webhook},
        {"name": "b", "at": "afterRollback", "job": JOB, "timeout": "1m", "onError": "stop"},
    ]
    first, second = policy(remediation={"hooks": hooks}).spec.remediation.hooks
    assert first.webhook is not None
    assert (first.webhook.method, first.timeout, first.on_error) == (
        "POST",
        timedelta(minutes=5),
        "continue",
    )
    assert (second.timeout, second.on_error) == (timedelta(minutes=1), "stop")
    for wrong in ({}, {"webhook": webhook, "job": JOB}):
        hook = {"name": "a", "at": "failed", **wrong}
        assert "exactly one" in refused(remediation={"hooks": [hook]})


def test_a_hook_runs_at_one_of_five_points() -> None:
    hook = {"name": "a", "at": "afterFailure", "webhook": {"url": "https://a.example.com"}}
    assert "beforeUpgrade" in refused(remediation={"hooks": [hook]})


def test_names_are_unique_within_a_policy() -> None:
    check = {"name": "a", "http": HTTP}
    assert "`a` twice" in refused(verify={"checks": [check, check]})
    hook = {"name": "b", "at": "failed", "job": JOB}
    assert "`b` twice" in refused(remediation={"hooks": [hook, hook]})


@pytest.mark.parametrize(
    ("selector", "matching"),
    [
        ({}, {"web", "db", "bare"}),
        ({"names": ["web", "other"]}, {"web"}),
        ({"matchLabels": {"tier": "front"}}, {"web"}),
        ({"matchLabels": {"tier": "front"}, "names": ["db"]}, set()),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, {"web", "db"}),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, {"bare"}),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}, {"db"}),
        (
            {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}]},
            {"web", "bare"},
        ),
    ],
)
def test_a_selector_means_releases_as_kubernetes_selectors_do(
    selector: dict[str, Any], matching: set[str]
) -> None:
    releases = {"web": {"tier": "front"}, "db": {"tier": "back"}, "bare": {}}
    read = ReleaseSelector.model_validate(selector)
    assert {name for name, labels in releases.items() if read.matches(name, labels)} == matching


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["b"]},
        {"key": "a", "operator": "Gt", "values": ["1"]},
    ],
)
def test_a_selector_expression_that_makes_no_sense_is_refused(expression: dict[str, Any]) -> None:
    refused(selector={"matchExpressions": [expression]})


def test_headers_and_bodies_are_not_printed() -> None:
    http = {**HTTP, "headers": {"Authorization": "hunter2"}, "body": "hunter3"}
    assert "hunter" not in repr(policy(verify={"checks": [{"name": "a", "http": http}]}))
