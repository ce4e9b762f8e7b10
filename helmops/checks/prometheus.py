"""The Prometheus check: a query whose samples keep their bounds, or please an expression.

`{release}` and `{namespace}` in the query stand for the release's. A server that does not answer,
or answers with a 5xx or 429, is a failed try, as with any HTTP check. What says nothing of the
release raises DeclarationError, and no verdict follows: a query that Prometheus does not
understand, credentials that it refuses, an address where there is no Prometheus.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlencode

from helmops.checks.runner import Outcome
from helmops.errors import DeclarationError, ExpressionError, SourceError
from helmops.http import Http, Response
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import PrometheusCheck, Threshold
from helmops.model.expression import compile_expression
from helmops.model.redaction import redact, secrets_of
from helmops.model.releases import ReleaseId

_LARGEST_ANSWER = 16 * 1024 * 1024
#: A longer query goes into a body: proxies refuse long URLs.
_LONGEST_IN_URL = 2000
_NAMED_SAMPLES = 3
_LONGEST_MESSAGE = 300
_ABOVE_ZERO = Threshold(above=0)
#: Answers after which the same question may be answered a moment later.
_PASSING = frozenset({408, 425, 429})

#: `{metric: {label: text}, value: number}`, as the expression sees it.
Sample = dict[str, Any]


class PrometheusProbe:
    """One query for one release. Raises ExpressionError for an expression that does not compile."""

    def __init__(
        self, http: Http, check: PrometheusCheck, release: ReleaseId, credentials: HttpCredentials
    ) -> None:
        self._http = http
        self._check = check
        self._credentials = credentials
        self._secrets = secrets_of(credentials, *check.headers.values())
        self._query = check.query.replace("{release}", release.name).replace(
            "{namespace}", release.namespace
        )
        self._expression = (
            compile_expression(check.expr, {"result": "dyn"}) if check.expr is not None else None
        )

    async def __call__(self) -> Outcome:
        """Ask once. Raises DeclarationError for what cannot be asked."""
        try:
            response = await self._ask()
        except SourceError as error:
            return Outcome(False, f"Prometheus: {error.where}: {error.what}")
        if response.status >= 500 or response.status in _PASSING:
            said = _error_of(response)[1]
            answer = f"Prometheus: {response.url}: {response.status} {response.reason}".rstrip()
            return Outcome(False, self._shown(f"{answer}: {said}" if said else answer))
        if response.status != 200:
            self._refuse(response)
        samples = self._samples(response)
        if not samples:
            passed = self._check.no_data == "pass"
            return Outcome(passed, f"{self._quoted} gives no data")
        if self._expression is not None:
            return self._judged_by_expression(samples)
        return self._judged_by_threshold(samples)

    async def _ask(self) -> Response:
        check = self._check
        form = urlencode({"query": self._query})
        url = f"{check.address.rstrip('/')}/api/v1/query"
        in_url = len(form) <= _LONGEST_IN_URL
        headers = {"Accept": "application/json"}
        if not in_url:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return await self._http.request(
            "GET" if in_url else "POST",
            f"{url}?{form}" if in_url else url,
            credentials=self._credentials,
            headers=headers | check.headers,
            body=b"" if in_url else form.encode(),
            timeout=check.timeout,
            limit=_LARGEST_ANSWER,
            verify=not check.tls.insecure_skip_verify,
            server_name=check.tls.server_name,
        )

    def _refuse(self, response: Response) -> NoReturn:
        """An answer of which the release is not the cause."""
        kind, said = _error_of(response)
        if kind == "bad_data":
            self._cannot_ask(f"Prometheus does not understand {self._quoted}: {said}", "query")
        if kind:
            self._cannot_ask(f"Prometheus cannot answer {self._quoted}: {said}", "query")
        told = f"{response.url} answers {response.status} {response.reason}".rstrip()
        if response.status in (401, 403):
            self._cannot_ask(told, "secretRef", "check the credentials in its Secret")
        self._cannot_ask(told, "address", "is it the address of a Prometheus?")

    def _cannot_ask(self, what: str, field: str, next_step: str = "") -> NoReturn:
        raise DeclarationError(
            self._shown(what), field=f"spec.verify.checks.prometheus.{field}", next_step=next_step
        )

    def _samples(self, response: Response) -> list[Sample]:
        """The samples that are numbers."""
        try:
            data = json.loads(response.body)["data"]
            kind, result = data["resultType"], data["result"]
            if kind == "scalar":
                result = [{"metric": {}, "value": result}]
            elif kind != "vector":
                self._cannot_ask(
                    f"{self._quoted} gives a {kind}, not a vector or a number",
                    "query",
                    "of a range, take avg_over_time(…), rate(…) or the like",
                )
            samples = [(dict(one["metric"]), float(one["value"][1])) for one in result]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            self._cannot_ask(
                f"{response.url} does not answer as Prometheus does",
                "address",
                "is it the address of a Prometheus?",
            )
        return [{"metric": of, "value": value} for of, value in samples if not math.isnan(value)]

    def _judged_by_expression(self, samples: list[Sample]) -> Outcome:
        assert self._expression is not None  # noqa: S101 - asked by the caller
        shown = f"`{' '.join(self._expression.text.split())}`"
        try:
            passed = self._expression.evaluate_bool(result=samples)
        except ExpressionError as error:
            return Outcome(False, self._told(error.what, samples))
        return Outcome(passed, self._told(f"{shown} is {str(passed).lower()}", samples))

    def _judged_by_threshold(self, samples: list[Sample]) -> Outcome:
        threshold = self._check.threshold or _ABOVE_ZERO
        out = [sample for sample in samples if not _keeps(threshold, sample["value"])]
        wanted = _words(threshold)
        if not out:
            return Outcome(True, self._told(wanted, samples))
        return Outcome(False, self._told(f"not {wanted}", out))

    def _told(self, what: str, samples: Sequence[Sample]) -> str:
        return self._shown(f"{self._quoted} gives {'; '.join(_named(samples))}: {what}")

    def _shown(self, text: str) -> str:
        line = redact(" ".join(text.split()), self._secrets)
        return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 1]}…"

    @property
    def _quoted(self) -> str:
        line = " ".join(self._query.split())
        return f"`{line if len(line) <= 100 else line[:99] + '…'}`"


def _error_of(response: Response) -> tuple[str, str]:
    """The kind and the text of an error of Prometheus; empty where somebody else answered."""
    try:
        answer = json.loads(response.body)
        return str(answer["errorType"]), str(answer["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _keeps(threshold: Threshold, value: float) -> bool:
    return (
        (threshold.min is None or value >= threshold.min)
        and (threshold.max is None or value <= threshold.max)
        and (threshold.above is None or value > threshold.above)
        and (threshold.below is None or value < threshold.below)
    )


def _words(threshold: Threshold) -> str:
    bounds = (
        ("at least", threshold.min),
        ("above", threshold.above),
        ("at most", threshold.max),
        ("below", threshold.below),
    )
    return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def _named(samples: Sequence[Sample]) -> Iterator[str]:
    for sample in samples[:_NAMED_SAMPLES]:
        labels = _labels(sample["metric"])
        yield f"{sample['value']:g} for {labels}" if labels else f"{sample['value']:g}"
    if len(samples) > _NAMED_SAMPLES:
        yield f"{len(samples) - _NAMED_SAMPLES} more"


def _labels(metric: Mapping[str, Any]) -> str:
    """`up{job="web"}`, as Prometheus writes a series."""
    pairs = ", ".join(f'{name}="{metric[name]}"' for name in sorted(metric) if name != "__name__")
    name = str(metric.get("__name__", ""))
    return f"{name}{{{pairs}}}" if pairs else name
