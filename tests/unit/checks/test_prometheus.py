"""Queries as checks; answers are as Prometheus 2.42 gives them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from helmops.checks.prometheus import PrometheusProbe
from helmops.checks.runner import Outcome
from helmops.errors import DeclarationError
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import PrometheusCheck
from helmops.model.releases import ReleaseId
from tests.fakes.web_server import Answer, WebServer, web_server

WEB = ReleaseId("shop", "web")
API = "/api/v1/query"


@pytest.fixture(scope="module")
def started() -> Iterator[WebServer]:
    with web_server() as one:
        yield one


@pytest.fixture
def server(started: WebServer) -> WebServer:
    started.routes.clear()
    started.asked.clear()
    return started


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http(workers=1) as one:
        yield one


class Asking:
    def __init__(self, http: Http, server: WebServer) -> None:
        self.http, self.server = http, server

    def answers(self, result: Any, kind: str = "vector") -> None:
        self.gives(200, {"status": "success", "data": {"resultType": kind, "result": result}})

    def samples(self, *values: str) -> None:
        self.answers(
            [
                {"metric": {"__name__": "m", "pod": f"p{n}"}, "value": [1.5, value]}
                for n, value in enumerate(values)
            ]
        )

    def gives(self, status: int, body: Any) -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.server.routes[API] = Answer(status, text)

    async def ask(
        self, query: str = "m", credentials: HttpCredentials | None = None, **fields: Any
    ) -> Outcome:
        check = PrometheusCheck.model_validate(
            {"address": self.server.url, "query": query} | fields
        )
        return await PrometheusProbe(self.http, check, WEB, credentials or HttpCredentials())()


@pytest.fixture
def prometheus(http: Http, server: WebServer) -> Asking:
    return Asking(http, server)


@pytest.mark.parametrize(
    ("threshold", "values", "passed"),
    [
        (None, ["0.1", "5"], True),
        (None, ["1", "0"], False),
        ({"max": 0.5}, ["0.5"], True),
        ({"max": 0.5}, ["0.1", "0.51"], False),
        ({"below": 0.5}, ["0.5"], False),
        ({"min": 2}, ["2"], True),
        ({"min": 2}, ["1.9"], False),
        ({"above": 2}, ["2"], False),
        ({"min": 1, "max": 2}, ["1", "2"], True),
        ({"min": 1, "max": 2}, ["3"], False),
        ({"max": 100}, ["+Inf"], False),
        ({"min": 0}, ["-Inf"], False),
        ({"max": 0}, ["NaN", "0"], True),
    ],
)
async def test_every_sample_must_keep_the_threshold(
    prometheus: Asking, threshold: dict[str, Any] | None, values: list[str], passed: bool
) -> None:
    prometheus.samples(*values)

    assert (await prometheus.ask(threshold=threshold)).passed is passed


async def test_a_failure_names_the_samples_that_are_out(prometheus: Asking) -> None:
    prometheus.samples("9", "0.1", "8", "7", "6")

    outcome = await prometheus.ask("sum by (pod) (m)", threshold={"min": 0, "max": 0.5})

    assert outcome == Outcome(
        False,
        '`sum by (pod) (m)` gives 9 for m{pod="p0"}; 8 for m{pod="p2"}; 7 for m{pod="p3"}; 1 more: '
        "not at least 0 and at most 0.5",
    )


async def test_a_success_says_what_was_seen(prometheus: Asking) -> None:
    prometheus.answers([1.5, "0.25"], "scalar")

    assert await prometheus.ask() == Outcome(True, "`m` gives 0.25: above 0")


@pytest.mark.parametrize(
    ("expression", "passed"),
    [
        ("result.all(r, r.value < 10)", True),
        ("result.exists(r, r.metric.pod == 'p1' && r.value == 2)", True),
        ("result.size() > 2", False),
        ("result[0].value > result[1].value", False),
    ],
)
async def test_an_expression_sees_labels_and_values(
    prometheus: Asking, expression: str, passed: bool
) -> None:
    prometheus.samples("1", "2")

    outcome = await prometheus.ask(expr=expression)

    assert outcome.passed is passed
    assert outcome.message == (
        f'`m` gives 1 for m{{pod="p0"}}; 2 for m{{pod="p1"}}: `{expression}` is '
        f"{str(passed).lower()}"
    )


async def test_an_expression_that_cannot_be_evaluated_has_failed(prometheus: Asking) -> None:
    prometheus.samples("1")

    outcome = await prometheus.ask(expr="result[0].metric.zone == 'a'")

    assert not outcome.passed
    assert "there is no field `zone`" in outcome.message


@pytest.mark.parametrize("result", [[], [{"metric": {}, "value": [1.5, "NaN"]}]])
@pytest.mark.parametrize("rule", [{}, {"expr": "result.size() == 0"}, {"threshold": {"max": 0}}])
@pytest.mark.parametrize("no_data", ["fail", "pass"])
async def test_no_data_mean_what_is_declared(
    prometheus: Asking, result: list[Any], rule: dict[str, Any], no_data: str
) -> None:
    prometheus.answers(result)

    outcome = await prometheus.ask(noData=no_data, **rule)

    assert outcome == Outcome(no_data == "pass", "`m` gives no data")


async def test_no_data_fail_unless_declared(prometheus: Asking) -> None:
    prometheus.answers([])

    assert not (await prometheus.ask()).passed


async def test_the_query_is_about_this_release(prometheus: Asking) -> None:
    prometheus.samples("1")

    await prometheus.ask('up{namespace="{namespace}", app="{release}"}')

    [asked] = prometheus.server.asked
    assert (asked.method, urlsplit(asked.path).path) == ("GET", API)
    assert parse_qs(urlsplit(asked.path).query) == {
        "query": ['up{namespace="shop", app="web"}'],
    }


async def test_a_long_query_goes_into_the_body(prometheus: Asking) -> None:
    prometheus.samples("1")
    prometheus.server.routes[API] = (answer := prometheus.server.routes[API])
    query = " + ".join(["metric_of_a_long_name"] * 200)

    assert (await prometheus.ask(query)).passed

    [asked] = prometheus.server.asked
    assert (asked.method, asked.path) == ("POST", API)
    assert parse_qs(asked.body.decode()) == {"query": [query]}
    assert answer is prometheus.server.routes[API]


async def test_credentials_and_headers_are_sent(prometheus: Asking) -> None:
    prometheus.samples("1")

    await prometheus.ask(
        headers={"X-Scope-OrgID": "shop"}, credentials=HttpCredentials(bearer_token="tok-12345")
    )

    [asked] = prometheus.server.asked
    assert asked.headers["authorization"] == "Bearer tok-12345"
    assert asked.headers["x-scope-orgid"] == "shop"


async def test_an_address_may_have_a_path(prometheus: Asking) -> None:
    prometheus.samples("1")
    prometheus.server.routes["/prom" + API] = prometheus.server.routes.pop(API)

    assert (await prometheus.ask(address=f"{prometheus.server.url}/prom/")).passed


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_server_in_trouble_is_a_failed_try(prometheus: Asking, status: int) -> None:
    prometheus.gives(status, b"<html>Bad gateway</html>")

    outcome = await prometheus.ask()

    assert not outcome.passed
    assert outcome.message.startswith(
        f"Prometheus: {prometheus.server.url}{API}?query=***: {status}"
    )
    assert "html" not in outcome.message


async def test_a_query_that_took_too_long_is_a_failed_try(prometheus: Asking) -> None:
    error = "query timed out in expression evaluation"
    prometheus.gives(503, {"status": "error", "errorType": "timeout", "error": error})

    outcome = await prometheus.ask()

    assert not outcome.passed
    assert outcome.message.endswith(error)


async def test_a_server_that_is_away_is_a_failed_try(http: Http) -> None:
    with web_server() as server:
        away = Asking(http, server)
    outcome = await away.ask(timeout="5s")

    assert not outcome.passed
    assert outcome.message.startswith("Prometheus: http://127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "body", "field", "told"),
    [
        (
            400,
            {"status": "error", "errorType": "bad_data", "error": "1:5: parse error: unclosed"},
            "query",
            "Prometheus does not understand `m`: 1:5: parse error: unclosed",
        ),
        (
            422,
            {"status": "error", "errorType": "execution", "error": "many-to-many matching"},
            "query",
            "Prometheus cannot answer `m`: many-to-many matching",
        ),
        (401, b"Unauthorized\n", "secretRef", "answers 401 Unauthorized"),
        (403, b"", "secretRef", "answers 403 Forbidden"),
        (404, b"404 page not found\n", "address", "answers 404 Not Found"),
        (200, b"<html>Sign in</html>", "address", "does not answer as Prometheus does"),
        (200, b"[]", "address", "does not answer as Prometheus does"),
        (
            200,
            {"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1]}]}},
            "address",
            "does not answer as Prometheus does",
        ),
        (
            200,
            {"data": {"resultType": "matrix", "result": []}},
            "query",
            "`m` gives a matrix, not a vector or a number",
        ),
        (
            200,
            {"data": {"resultType": "string", "result": [1.5, "a"]}},
            "query",
            "`m` gives a string, not a vector or a number",
        ),
    ],
)
async def test_what_says_nothing_of_the_release_is_no_verdict(
    prometheus: Asking, status: int, body: Any, field: str, told: str
) -> None:
    prometheus.gives(status, body)

    with pytest.raises(DeclarationError) as caught:
        await prometheus.ask()

    assert caught.value.field == f"spec.verify.checks.prometheus.{field}"
    assert told in caught.value.what


async def test_what_a_server_repeats_of_credentials_is_not_shown(prometheus: Asking) -> None:
    error = "bad token tok-12345"
    prometheus.gives(400, {"status": "error", "errorType": "bad_data", "error": error})

    with pytest.raises(DeclarationError) as caught:
        await prometheus.ask(credentials=HttpCredentials(bearer_token="tok-12345"))

    assert "tok-12345" not in str(caught.value)


async def test_long_texts_are_cut(prometheus: Asking) -> None:
    pod = "p" * 400
    prometheus.answers([{"metric": {"pod": pod}, "value": [1.5, "0"]}])

    assert len((await prometheus.ask("m" * 500)).message) == 300
