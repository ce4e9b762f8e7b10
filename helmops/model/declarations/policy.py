"""ReleasePolicy, `helmops.dev/v1alpha1`: everything of ours that hangs on a HelmRelease."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    AllowInfNan,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from helmops.model.declarations.base import (
    Count,
    Duration,
    Flag,
    LocalRef,
    Model,
    Name,
    PositiveDuration,
    Resource,
    Text,
    TextMap,
    refuse,
)
from helmops.model.declarations.expressions import (
    JsonPlace,
    ObjectExpression,
    ResultExpression,
)


def _is_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise PydanticCustomError(
            "regex", "is not a regular expression: {why}", {"why": str(error)}
        ) from None
    return pattern


Regex = Annotated[str, Strict(), AfterValidator(_is_regex)]
HttpUrl = Annotated[str, Strict(), StringConstraints(pattern=r"^https?://[^/].*$")]
HttpStatus = Annotated[Count, Field(ge=100, le=599)]
AtLeastOnce = Annotated[Count, Field(ge=1)]
Bound = Annotated[float, Strict(), AllowInfNan(False)]

#: When a remediation hook runs.
HookPoint = Literal["beforeUpgrade", "failed", "beforeRollback", "afterRollback", "afterSuccess"]


class LabelExpression(Model):
    """One requirement on a label, as Kubernetes selectors have it."""

    key: Text = Field(description="The label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="What must hold of it."
    )
    values: tuple[Text, ...] = Field(default=(), description="For In and NotIn.")

    @model_validator(mode="after")
    def _values_of_operator(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise refuse("`values` is required for In and NotIn, and for these only")
        return self

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether labels meet it. As in Kubernetes, NotIn holds where the label is absent."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class ReleaseSelector(Model):
    """Releases of the policy's namespace; every part that is given must match."""

    names: tuple[Name, ...] = Field(default=(), description="Names of HelmReleases.")
    match_labels: TextMap = Field(default_factory=dict, description="Labels to have.")
    match_expressions: tuple[LabelExpression, ...] = Field(
        default=(), description="Requirements on labels."
    )

    def matches(self, name: str, labels: dict[str, str]) -> bool:
        """Whether a HelmRelease of the policy's namespace is meant."""
        return (
            (not self.names or name in self.names)
            and all(labels.get(key) == value for key, value in self.match_labels.items())
            and all(expression.matches(labels) for expression in self.match_expressions)
        )


class Barrier(Model):
    """A step between versions that a rollback cannot undo."""

    version: Text = Field(
        min_length=1,
        description="Range of chart versions; going to one of them from one outside of it is the "
        "step.",
    )
    reason: Text = Field(min_length=1, description="What cannot be undone, for people.")


class ProvenancePolicy(Model):
    """Charts must have Helm's provenance (`helm package --sign`), by a trusted key."""

    keyring_secret_ref: LocalRef = Field(
        description="Secret whose values are OpenPGP public keys, as `gpg --export` writes them; "
        "any of them may have signed."
    )


class UpgradePolicy(Model):
    """Which versions may be upgraded to without a person."""

    allow: Literal["patch", "minor", "major"] | None = Field(
        default=None,
        description="The largest step from the running version; absent leaves it to the "
        "HelmRelease's range and the set of defaults.",
    )
    downgrade: Literal["hold", "follow"] = Field(
        default="hold",
        description="What an older version leads to: hold the release, or go there.",
    )
    yank: Literal["hold", "follow"] = Field(
        default="hold",
        description="What it leads to that the deployed version is gone from its source and only "
        "older ones are left: hold the release, or go there.",
    )
    retag: Literal["hold", "follow"] | None = Field(
        default=None,
        description="What it leads to that the source has other content under the deployed "
        "version: hold the release, or upgrade to it. Absent: hold, or with the defaults of "
        "`flux` follow.",
    )
    provenance: ProvenancePolicy | None = Field(
        default=None, description="Signatures that charts must have to be released."
    )
    barriers: tuple[Barrier, ...] = Field(
        default=(), description="Steps that a rollback cannot undo, beside those that are found."
    )


class JsonPathExpectation(Model):
    """What a place in a JSON answer must hold."""

    path: JsonPlace = Field(
        description="JSONPath to one place, as kubectl has it, such as `{.status.items[0].ok}`."
    )
    equals: Any = Field(description="What must be there.")


class HttpExpectation(Model):
    """What an answer must be like; every part that is given must hold."""

    status: tuple[HttpStatus, ...] = Field(
        default=(200,), min_length=1, description="Statuses that count as healthy."
    )
    body: Regex | None = Field(
        default=None, description="Regular expression that must be found in the body."
    )
    headers: dict[Text, Regex] = Field(
        default_factory=dict, description="Regular expressions by header."
    )
    json_path: tuple[JsonPathExpectation, ...] = Field(
        default=(), description="Places in a JSON body and what they must hold."
    )


class TlsSettings(Model):
    """How the server's certificate is looked at."""

    insecure_skip_verify: Flag = Field(
        default=False, description="Take any certificate; for tests only."
    )
    server_name: Text = Field(
        default="", description="Name that the certificate must be for; absent: the URL's host."
    )


class HttpCheck(Model):
    """A request that a healthy release answers as expected."""

    url: HttpUrl = Field(description="Address, `http://` or `https://`.")
    method: Literal["GET", "HEAD", "POST", "PUT", "OPTIONS"] = Field(
        default="GET", description="Method."
    )
    headers: TextMap = Field(
        default_factory=dict, repr=False, description="Headers; credentials go to `secretRef`."
    )
    body: Text | None = Field(default=None, repr=False, description="Body to send.")
    expect: HttpExpectation = Field(
        default_factory=HttpExpectation, description="What the answer must be like."
    )
    tls: TlsSettings = Field(
        default_factory=TlsSettings, description="How the certificate is looked at."
    )
    secret_ref: LocalRef | None = Field(
        default=None,
        description="Secret with `username` and `password`, or `bearerToken`; `ca.crt`, `tls.crt` "
        "and `tls.key` for TLS.",
    )
    timeout: PositiveDuration = Field(
        default=timedelta(seconds=10), description="Time for one request."
    )


class CheckedObject(Model):
    """One object in the cluster."""

    api_version: Text = Field(description="API version.")
    kind: Text = Field(description="Kind.")
    name: Text = Field(description="Name.")
    namespace: Text = Field(
        default="", description="Namespace; absent means the release's (none for cluster objects)."
    )


class CelCheck(Model):
    """An expression over a live object."""

    object: CheckedObject = Field(description="The object, `object` in the expression.")
    expr: ObjectExpression = Field(
        min_length=1, description="CEL over `object` that is true when the release is healthy."
    )


class Threshold(Model):
    """Bounds that every sample of a query must keep."""

    min: Bound | None = Field(default=None, description="The least that is healthy.")
    max: Bound | None = Field(default=None, description="The most that is healthy.")
    above: Bound | None = Field(default=None, description="Healthy is more than this.")
    below: Bound | None = Field(default=None, description="Healthy is less than this.")

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        lower = [bound for bound in (self.min, self.above) if bound is not None]
        upper = [bound for bound in (self.max, self.below) if bound is not None]
        if not lower and not upper:
            raise refuse("at least one of `min`, `max`, `above` and `below` must be set")
        if len(lower) > 1 or len(upper) > 1:
            raise refuse("`min` and `above` exclude each other, and so do `max` and `below`")
        is_open = self.above is not None or self.below is not None
        if lower and upper and (lower > upper or (lower == upper and is_open)):
            raise refuse("no number is between its bounds")
        return self


class PrometheusCheck(Model):
    """A query whose result tells health; `expr`, `threshold` or neither."""

    address: HttpUrl = Field(
        description="Address of Prometheus (or what has its API), to which `/api/v1/query` is "
        "added."
    )
    query: Text = Field(
        min_length=1,
        description="PromQL that gives a vector or a number, evaluated now; `{release}` and "
        "`{namespace}` stand for the release's.",
    )
    expr: ResultExpression | None = Field(
        default=None,
        min_length=1,
        description="CEL that is true when the release is healthy, over `result`: a list of "
        "`{metric: {label: text}, value: number}`.",
    )
    threshold: Threshold | None = Field(
        default=None,
        description="What every sample must be; absent, and without `expr`: above 0.",
    )
    no_data: Literal["fail", "pass"] = Field(
        default="fail",
        description="What a result without samples means; NaN (0 divided by 0) is none.",
    )
    headers: TextMap = Field(
        default_factory=dict, repr=False, description="Headers; credentials go to `secretRef`."
    )
    tls: TlsSettings = Field(
        default_factory=TlsSettings, description="How the certificate is looked at."
    )
    secret_ref: LocalRef | None = Field(
        default=None,
        description="Secret with `username` and `password`, or `bearerToken`; `ca.crt`, `tls.crt` "
        "and `tls.key` for TLS.",
    )
    timeout: PositiveDuration = Field(
        default=timedelta(seconds=10), description="Time for one request."
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.expr is not None and self.threshold is not None:
            raise refuse("`expr` and `threshold` exclude each other")
        return self


class JobTemplate(Model):
    """A Kubernetes Job to create."""

    template: dict[str, Any] = Field(
        min_length=1,
        repr=False,
        description="A Job's `spec` (with `template`), or a Pod's template (with `spec`).",
    )


class PolicyCheck(Model):
    """One health check beyond readiness; exactly one of http, cel, prometheus, job."""

    name: Name = Field(description="Name, unique in the policy.")
    http: HttpCheck | None = Field(default=None, description="A request.")
    cel: CelCheck | None = Field(default=None, description="An expression over a live object.")
    prometheus: PrometheusCheck | None = Field(default=None, description="A query.")
    job: JobTemplate | None = Field(default=None, description="A Job that must succeed.")
    interval: PositiveDuration = Field(
        default=timedelta(seconds=5), description="Time between two tries."
    )
    timeout: PositiveDuration = Field(
        default=timedelta(minutes=1), description="Time until the check has failed."
    )
    failure_threshold: AtLeastOnce = Field(
        default=3, description="Failures in a row that make the check fail."
    )
    success_threshold: AtLeastOnce = Field(
        default=1, description="Successes in a row that make the check pass."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [part for part in (self.http, self.cel, self.prometheus, self.job) if part]
        if len(given) != 1:
            raise refuse("exactly one of `http`, `cel`, `prometheus` and `job` must be set")
        return self

    @property
    def secret_ref(self) -> LocalRef | None:
        """The Secret with the credentials that it asks with."""
        asking = self.http or self.prometheus
        return asking.secret_ref if asking else None


class VerifyPolicy(Model):
    """What must hold before a revision counts as healthy."""

    watch: Duration = Field(
        default=timedelta(0),
        description="Time after a success in which the release must stay healthy.",
    )
    max_restarts: Count = Field(
        default=3,
        description="Restarts of one container within the watch window that are let pass; one "
        "more is a failure.",
    )
    hard_timeout: PositiveDuration | None = Field(
        default=None,
        description="How long an action may take in all while its rollout still moves; `timeout` "
        "counts while nothing moves. Absent: four times `timeout` with `safe` defaults, `timeout` "
        "with `flux`.",
    )
    checks: tuple[PolicyCheck, ...] = Field(default=(), description="Checks, run together.")

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [check.name for check in self.checks]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise refuse(f"`checks` has the name `{name}` twice")
        return self


class Webhook(Model):
    """A request to send."""

    url: HttpUrl = Field(repr=False, description="Address, `http://` or `https://`.")
    method: Literal["POST", "PUT", "PATCH", "GET"] = Field(default="POST", description="Method.")
    headers: TextMap = Field(
        default_factory=dict, repr=False, description="Headers; credentials go to `secretRef`."
    )
    body: Text | None = Field(
        default=None,
        repr=False,
        description="Body, in which `{release}` and the like are filled in; absent: a JSON object "
        "with all of them.",
    )
    secret_ref: LocalRef | None = Field(
        default=None,
        description="Secret with `username` and `password`, or `bearerToken`; `ca.crt`, `tls.crt` "
        "and `tls.key` for TLS.",
    )


class RemediationHook(Model):
    """What to run around a remediation; exactly one of job, webhook and command."""

    name: Name = Field(description="Name, unique in the policy.")
    at: HookPoint = Field(description="When to run it.")
    job: JobTemplate | None = Field(default=None, description="A Kubernetes Job.")
    webhook: Webhook | None = Field(default=None, description="A request.")
    command: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="A program and its arguments, run by helmops itself, without a shell; only "
        "where helmops was started with `--allow-commands`.",
    )
    timeout: PositiveDuration = Field(
        default=timedelta(minutes=5), description="Time until the hook has failed."
    )
    on_error: Literal["continue", "stop"] = Field(
        default="continue", description="Go on when the hook fails, or stop there."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.job, self.webhook, self.command].count(None) != 2:
            raise refuse("exactly one of `job`, `webhook` and `command` must be set")
        if self.command is not None and not self.command[0].strip():
            raise refuse("`command` begins with the name or path of a program")
        return self


class RemediationPolicy(Model):
    """What happens around a remediation."""

    hooks: tuple[RemediationHook, ...] = Field(default=(), description="Hooks, run in order.")
    irreversible: Literal["hold", "rollback"] | None = Field(
        default=None,
        description="What a failure leads to that came after a step that a rollback cannot undo: "
        "hold the release as it is, or roll back all the same. Absent: hold with `safe` defaults, "
        "rollback with `flux`.",
    )

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        names = [hook.name for hook in self.hooks]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise refuse(f"`hooks` has the name `{name}` twice")
        return self


class QuarantinePolicy(Model):
    """What becomes of a chart version whose upgrade failed."""

    enabled: Flag | None = Field(
        default=None,
        description="Do not try it again before it is lifted. Absent: true with `safe` defaults, "
        "false with `flux`.",
    )
    scope: Literal["release", "chart", "all"] = Field(
        default="release",
        description="For whom: this release; every release of that chart in the namespace; every "
        "release of that chart.",
    )
    ttl: Duration = Field(
        default=timedelta(0), description="Time after which it is lifted by itself; 0 is never."
    )


class ReleasePolicySpec(Model):
    """Rules for the releases that the selector names."""

    selector: ReleaseSelector = Field(
        default_factory=ReleaseSelector,
        description="Releases of the policy's namespace; absent means all of them.",
    )
    mode: Literal["enforce", "observe"] = Field(
        default="enforce", description="Act, or only look and say what would be done."
    )
    prune: Flag = Field(
        default=False, description="Uninstall a release whose declaration was removed."
    )
    out_of_band: Literal["hold", "revert", "absorb"] = Field(
        default="hold",
        description="What a revision made by hand leads to: hold the release, go back, or take it.",
    )
    upgrade: UpgradePolicy = Field(
        default_factory=UpgradePolicy, description="Which versions may be upgraded to."
    )
    verify: VerifyPolicy = Field(
        default_factory=VerifyPolicy, description="What must hold of a healthy release."
    )
    remediation: RemediationPolicy = Field(
        default_factory=RemediationPolicy, description="What happens around a remediation."
    )
    quarantine: QuarantinePolicy = Field(
        default_factory=QuarantinePolicy,
        description="What becomes of a chart version whose upgrade failed.",
    )


class ReleasePolicy(Resource):
    """Rules for releases, chosen by a selector."""

    api_group: ClassVar[str] = "helmops.dev"
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    spec: ReleasePolicySpec = Field(
        default_factory=ReleasePolicySpec, description="The rules and whom they are for."
    )
