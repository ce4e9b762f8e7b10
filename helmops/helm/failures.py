"""What helm's error output means: one table, first rule that fits.

helm tells what went wrong only in the text of its standard error, and the text differs between
helm 3 and 4. Each rule has samples in tests/unit/helm/samples, recorded from both by
tests/unit/helm/record_samples.py; a text that no rule knows becomes a plain HelmError with helm's
own first cause.

The sentence that a person sees is made of helm's, without what Go wrapped around it. Helm's whole
output, redacted, is in the error's `output`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from helmops.errors import (
    HelmCancelled,
    HelmDenied,
    HelmError,
    HelmUnavailable,
    HelmUnreachable,
    HelmWaitTimeout,
    HookFailed,
    ObjectRefused,
    OwnershipConflict,
    ReleaseExists,
    ReleaseLocked,
    ReleaseNotFound,
    TemplateFailed,
    TestFailed,
    ValuesSchemaFailed,
)

#: The longest sentence that a person is shown; the rest is in the error's output.
LONGEST_SENTENCE = 400

#: How much of helm's text the table looks at: more says no more, and expressions that backtrack
#: must not meet a megabyte.
LONGEST_CAUSE = 8_192

Sentence = Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A text of helm's, the error it means, and what to do.

    `pattern` is searched in the cause (see `first_cause`), spanning lines. `what` is the sentence:
    a template over the pattern's groups, a function of the match, or empty for the cause itself.
    `operations` limits the rule to some of helm's commands.
    """

    error: type[HelmError]
    pattern: re.Pattern[str]
    what: str | Sentence = ""
    next_step: str = ""
    operations: Collection[str] = ()


def _rule(
    error: type[HelmError],
    pattern: str,
    what: str | Sentence = "",
    next_step: str = "",
    operations: Collection[str] = (),
) -> Rule:
    return Rule(error, re.compile(pattern, re.IGNORECASE | re.DOTALL), what, next_step, operations)


def _not_ready(match: re.Match[str]) -> str:
    """The objects that helm 4 waited for: the first of them, and how many more."""
    objects = _UNREADY.findall(match.string)
    if not objects:
        return "the objects were not ready in time"
    kind, place, status, message = objects[0]
    name = f"{kind}/{place}"
    why = re.sub(rf"^{kind} failed\.? ?", "", message.strip(), flags=re.IGNORECASE)
    if status == "Failed":
        sentence = f"{name} failed" + (f": {why}" if why else "")
    else:
        sentence = f"{name} was not ready in time" + (f": {message.strip()}" if message else "")
    return sentence + (f" (and {len(objects) - 1} more objects)" if len(objects) > 1 else "")


def _not_gone(match: re.Match[str]) -> str:
    objects = re.findall(r"resource (\S+?)/(\S+) still exists", match.string)
    if not objects:
        return "the objects were not gone in time"
    kind, place = objects[0]
    more = f" (and {len(objects) - 1} more objects)" if len(objects) > 1 else ""
    return f"{kind}/{place} was not gone in time{more}"


def _schema(match: re.Match[str]) -> str:
    faults = [
        f"{path or '/'}: {text.strip()}"
        for path, text in re.findall(r"- at '([^']*)': ([^\n]+)", match.string)
    ]
    faults.sort()
    chart = match.group("chart").strip()
    return f"values.schema.json of {chart} refuses the values: {'; '.join(faults)}"


def _template(match: re.Match[str]) -> str:
    place = match.group("place")
    return f"{place}: {match.group('fault')} in `{match.group('at')}`"


def _owner(match: re.Match[str]) -> str:
    owner = re.search(
        r'release-name" must equal "[^"]*": current value is "(?P<name>[^"]*)"', match.string
    )
    namespace = re.search(
        r'release-namespace" must equal "[^"]*": current value is "(?P<name>[^"]*)"', match.string
    )
    what = f"{match.group('kind')}/{match.group('name')}"
    if owner:
        place = f"{namespace['name']}/{owner['name']}" if namespace else owner["name"]
        return f"{what} exists and belongs to the release {place}"
    if namespace:
        return f"{what} exists and belongs to a release in the namespace {namespace['name']}"
    return f"{what} exists and belongs to no release"


_UNREADY = re.compile(
    r"resource ([A-Za-z]+)/(\S+) not ready\. status: (\w+), message: ?([^\n]*)", re.IGNORECASE
)
_HOOK_OPERATIONS = ("rollback", "uninstall")

_AGAIN = "helmops tries again by itself"
_LOOK_AT_CLUSTER = "is the API server up, and the right one? helmops tries again by itself"
_LOOK_AT_OBJECT = "see `kubectl describe` for this object"
_LOOK_AT_RIGHTS = "grant this to helmops' ServiceAccount; config/ has a Role to start from"
_FIX_CHART = "mend the chart or the values; nothing was applied"

#: The order matters: what is more particular, and what can stand beside other causes, comes first.
RULES: tuple[Rule, ...] = (
    # helm itself
    _rule(
        HelmError,
        r"^(?P<why>(?:panic|fatal error): [^\n]*)",
        "helm crashed: {why}",
        "this is helm's own fault; a newer helm may do better",
    ),
    _rule(
        HelmUnavailable,
        r"unknown (?:shorthand )?flag: (?P<flag>[^\n]*)|unknown command (?P<command>[^\n]*)",
        lambda m: f"this helm does not know {m['flag'] or m['command']}",
        "helmops wants helm 3.19 or 4.1 and newer: see `helm version`",
    ),
    # Admission, whose texts mention connections too
    _rule(
        ObjectRefused,
        r'failed calling webhook "(?P<name>[^"]*)": (?:failed to call webhook: )?'
        r'(?:\w+ "(?P<url>[^"?]*)[^"]*": )?(?P<why>[^\n]*)',
        "the admission webhook {name} does not answer: {why}",
        "see the pods and the Service behind that webhook",
    ),
    _rule(
        ObjectRefused,
        r'admission webhook "(?P<name>[^"]*)" denied the request(?: without explanation|: )'
        r"(?P<why>.*)",
        "the admission webhook {name} refuses an object: {why}",
        "mend the chart or the values, or ask who keeps that webhook",
    ),
    _rule(
        ObjectRefused,
        r"(?<!\S)(?P<object>\S++ \"[^\"]*\") is forbidden: ValidatingAdmissionPolicy "
        r"'(?P<name>[^']*)' with binding '[^']*' denied request: (?P<why>.*)",
        "the policy {name} refuses {object}: {why}",
        "mend the chart or the values, or ask who keeps that policy",
    ),
    # The connection, before everything that mentions an object
    _rule(
        HelmDenied,
        r"the server has asked for the client to provide credentials|\bunauthorized\b",
        "the API server does not accept helm's credentials",
        "check the kubeconfig's user, or the ServiceAccount's token",
    ),
    _rule(
        HelmUnreachable,
        r'context "(?P<context>[^"]*)" does not exist',
        "the kubeconfig has no context {context}",
        "see `kubectl config get-contexts`",
    ),
    _rule(
        HelmUnreachable,
        r'cluster unreachable: (?:Get "(?P<url>[^"?]*)[^"]*": )?(?P<why>.*x509.*)',
        "the API server's certificate is not trusted: {why}",
        "check certificate-authority in the kubeconfig",
    ),
    _rule(
        HelmUnreachable,
        r'cluster unreachable: (?:Get "(?P<url>[^"?]*)[^"]*": )?(?P<why>.*)',
        "no answer from the API server: {why}",
        _LOOK_AT_CLUSTER,
    ),
    _rule(
        HelmUnreachable,
        r"(?P<why>connection refused|connection reset by peer|no such host|i/o timeout"
        r"|TLS handshake timeout|network is unreachable|http2: client connection lost"
        r"|etcdserver: [^\n]*|the server is currently unable to handle the request"
        r"|apiserver not ready|net/http: request canceled while waiting for connection"
        r"|unexpected EOF when reading from|server closed idle connection"
        r'|(?:Get|Post|Put|Patch|Delete) "https?://[^"]*": (?:unexpected )?EOF'
        r"|client rate limiter Wait returned an error[^\n]*)",
        "the API server stopped answering: {why}",
        _LOOK_AT_CLUSTER,
        ("install", "upgrade", "rollback", "uninstall", "template", "get"),
    ),
    # A helm 4 whose watch of what it waits for broke off calls that `Unknown`, whatever it was in,
    # and gives up. One whose time is over says so as well (seen with Helm 4.3.1).
    _rule(
        HelmUnreachable,
        r"\A(?!.*(?:context deadline exceeded|status: Failed))"
        r".*?resource (?P<object>\S+) not ready\. status: Unknown\b",
        "the API server stopped answering while helm waited for {object}",
        _LOOK_AT_CLUSTER,
    ),
    _rule(
        HelmDenied,
        r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)"'
        r'(?: in API group "(?P<group>[^"]*)")?(?P<scope>[^\n:]*)',
        lambda m: (
            f"{m['user']} may not {m['verb']} "
            + (f"{m['resource']}.{m['group']}" if m["group"] else m["resource"])
            + m["scope"].replace('"', "")
        ),
        _LOOK_AT_RIGHTS,
    ),
    # Stopped
    _rule(
        HelmCancelled,
        r"^context canceled|: context canceled",
        "helm was stopped before it was done",
        _AGAIN,
    ),
    # Locks and names
    _rule(
        ReleaseLocked,
        r"another operation \(install/upgrade/rollback\) is in progress",
        "another operation on the release is in progress, or was broken off",
        "wait for it; if nobody works on it, `helm history` shows the pending revision",
    ),
    _rule(
        ReleaseLocked,
        r"release: already exists",
        "another helm began to change the release at the same moment",
        _AGAIN,
    ),
    _rule(
        ReleaseExists,
        r"cannot re-?use a name that is still in use",
        "the release name is in use already",
        "see `helm list --all` in this namespace",
    ),
    _rule(
        ReleaseNotFound,
        r"release has no (?P<revision>\d+) version",
        "Helm's storage has no revision {revision}",
        "see `helm history`",
    ),
    _rule(
        ReleaseNotFound,
        r'release: not found|"[^"]*" has no deployed releases',
        "helm knows no such release",
        "see `helm list --all` in this namespace",
    ),
    # The chart itself
    _rule(
        ValuesSchemaFailed,
        r"values don't meet the specifications of the schema\(s\) in the following chart\(s\):"
        r"\s*(?P<chart>[^\n]*?):?\n",
        _schema,
        "correct these values; nothing was applied",
    ),
    _rule(
        TemplateFailed,
        r"(?<!\S)(?P<place>[^\s:]++:\d+:\d+):?\s+executing \"[^\"]*\" at "
        r"<(?P<at>[^\n]*?)>:\s*"
        r"(?:error calling \w+:\s*)?(?P<fault>.*)$",
        _template,
        _FIX_CHART,
    ),
    _rule(
        TemplateFailed,
        r"execution error at \((?P<place>[^)]*)\): (?P<fault>.*)",
        "{place}: {fault}",
        _FIX_CHART,
    ),
    _rule(
        TemplateFailed,
        r"parse error at \((?P<place>[^)]*)\): (?P<fault>.*)",
        "{place} does not parse: {fault}",
        _FIX_CHART,
    ),
    _rule(
        TemplateFailed,
        r"YAML parse error on (?P<place>[^:]*): (?:error converting YAML to JSON: )?"
        r"(?:yaml: )?(?P<fault>.*)",
        "{place} renders to something that is not YAML: {fault}",
        f"see `helm template`; {_FIX_CHART}",
    ),
    _rule(
        TemplateFailed,
        r"chart requires kubeVersion: (?P<range>.*?) which is incompatible with Kubernetes "
        r"(?P<version>\S+)",
        "the chart wants Kubernetes {range}, and this is {version}",
        "choose a chart version that supports this cluster",
    ),
    _rule(
        TemplateFailed,
        r"library charts are not installable",
        "the chart is a library, for other charts to use, and cannot be installed",
        "name a chart of type application",
    ),
    _rule(
        TemplateFailed,
        r"found in Chart\.yaml, but missing in charts/ directory: (?P<names>.*)",
        "the chart's dependencies are missing: {names}",
        "run `helm dependency build` where the chart is made",
    ),
    _rule(
        TemplateFailed,
        r"does not appear to be a gzipped archive|unable to load chart archive|^unexpected EOF"
        r"|chart metadata is missing|Chart\.yaml file is missing|gzip: invalid",
        "the chart archive cannot be read",
        "is what the source offers a chart? helm says more in the output",
    ),
    # Objects that are there
    _rule(
        OwnershipConflict,
        r'\b(?P<kind>\w++) "(?P<name>[^"]*)"(?: in namespace "[^"]*")? exists and cannot '
        r"be imported into the current release",
        _owner,
        "delete or rename it, or set disableTakeOwnership: false to take it over",
    ),
    # Hooks and tests
    _rule(
        HookFailed,
        r"(?:(?P<hook>(?:pre|post)-\w+) hooks failed|failed (?P<install>(?:pre|post)-\w+)): "
        r".*?(?:timed out waiting for the condition|context deadline exceeded)",
        lambda m: f"a {m['hook'] or m['install']} hook was not done in time{_hook_object(m)}",
        "see the logs of the hook's pods",
    ),
    _rule(
        HookFailed,
        r"(?:(?P<hook>(?:pre|post)-\w+) hooks failed|failed (?P<install>(?:pre|post)-\w+)): "
        r"(?:warning: Hook \S+ (?P<path>\S+) failed: )?(?P<cause>.*)",
        lambda m: f"a {m['hook'] or m['install']} hook failed: {_hook_cause(m['cause'])}",
        "see the logs of the hook's pods",
    ),
    _rule(
        HookFailed,
        r"warning: Hook (?P<hook>\S+) (?P<path>\S+) failed: (?P<cause>.*)",
        lambda m: f"a {m['hook']} hook failed: {_hook_cause(m['cause'])}",
        "see the logs of the hook's pods",
    ),
    _rule(
        TestFailed,
        r"status: InProgress|timed out waiting for the condition|context deadline exceeded",
        lambda m: f"a test was not done in time{_hook_object(m)}",
        "see the logs of the test's pods",
        ("test",),
    ),
    _rule(
        TestFailed,
        r"^(?P<cause>(?:resource \S+ not ready|pod \S+ failed|job \S+ failed).*)",
        lambda m: f"a test failed: {_hook_cause(m['cause'])}",
        "see the logs of the test's pods",
        ("test",),
    ),
    _rule(
        TestFailed,
        r"unable to get (?:pod )?logs",
        "a test failed, and the logs of its pods could not be had",
        "see `helm status` for the phase of each test",
        ("test",),
    ),
    _rule(
        HookFailed,
        r"^(?P<cause>(?:resource \S+ not ready|job \S+ failed|pod \S+ failed"
        r"|timed out waiting for the condition).*)",
        lambda m: f"a hook failed: {_hook_cause(m['cause'])}",
        "see the logs of the hook's pods",
        _HOOK_OPERATIONS,
    ),
    # Waiting
    _rule(
        HelmWaitTimeout,
        r"(?:uninstallation completed with \d+ error\(s\): )(?:.*still exists"
        r"|.*context deadline exceeded|.*timed out waiting for the condition)",
        _not_gone,
        "see its finalizers: `kubectl get -o yaml`",
    ),
    _rule(
        HookFailed,
        r"uninstallation completed with \d+ error\(s\): "
        r"(?P<cause>(?:resource \S+ not ready|job \S+ failed|pod \S+ failed).*)",
        lambda m: f"a hook failed: {_hook_cause(m['cause'])}",
        "see the logs of the hook's pods",
    ),
    _rule(
        HelmWaitTimeout,
        r"resource \S+ not ready\. status: \w+",
        _not_ready,
        "see the events and logs of its pods",
    ),
    _rule(
        HelmWaitTimeout,
        r"timed out waiting for the condition|context deadline exceeded|would exceed context "
        r"deadline",
        "the objects were not ready in time",
        "see the events and logs of the release's pods",
    ),
    # What the API server refuses
    _rule(
        ObjectRefused,
        r'Secret "sh\.helm\.release\.v1\.[^"]*" is invalid: data: Too long',
        "the release is too large for Helm's storage, which takes 1 MiB compressed",
        "leave large files out of the chart",
    ),
    _rule(
        ObjectRefused,
        r'namespaces "(?P<namespace>[^"]*)" not found',
        "the namespace {namespace} does not exist",
        "create it, or set install.createNamespace: true",
    ),
    _rule(
        ObjectRefused,
        r'no matches for kind "(?P<kind>[^"]*)" in version "(?P<version>[^"]*)"',
        "the cluster has no kind {kind} in {version}",
        "install its CustomResourceDefinition first, or choose a chart for this Kubernetes",
    ),
    _rule(
        ObjectRefused,
        r"conflict occurred while applying object (?P<object>\S+) (?P<kind>[^:]*): .*?"
        r"conflicts? with \"(?P<manager>[^\"]*)\"[^:]*: (?P<fields>.*)",
        lambda m: (
            f"{_kind(m['kind'])}/{m['object']}: {m['manager']} also manages {_fields(m['fields'])}"
        ),
        "let one of the two manage these fields",
    ),
    _rule(
        ObjectRefused,
        r"server-side apply failed for object (?P<object>\S+) (?P<kind>[^:]*): "
        r"failed to create typed patch object \([^)]*\): (?P<fault>.*)",
        lambda m: f"{_kind(m['kind'])}/{m['object']}: {m['fault']}",
        "mend the chart: this field does not exist in this Kubernetes",
    ),
    _rule(
        ObjectRefused,
        r"\bis (?:invalid|forbidden): |admission webhook |error validating data: |cannot patch "
        r"|field is immutable|failed to create resource: |denied the request",
        "",
        "mend the chart or the values",
    ),
    # Files
    _rule(
        HelmError,
        r"no (?:cached )?repository (?:for|definition for) (?P<name>\S+)",
        "a chart repository that the chart depends on could not be read",
        "check `dependencies` in Chart.yaml",
    ),
    _rule(
        HelmError,
        r'path "(?P<path>[^"]*)" not found',
        "the chart archive {path} is not there",
        _AGAIN,
    ),
)

#: What helm and its libraries put before the cause.
_WRAPPING = re.compile(
    r"""
      (?:INSTALLATION|UPGRADE|UNINSTALL)\ FAILED
    | release\ name\ check\ failed | release\ \S+\ failed
    | unable\ to\ continue\ with\ (?:install|update)
    | create:\ failed\ to\ create | failed\ to\ create\ resource
    | unable\ to\ build\ kubernetes\ objects\ from\ (?:new\ |current\ )?release\ manifest
    | server-side\ apply\ failed\ for\ object\ \S+\ [^:]*
    | cannot\ patch\ "[^"]*"\ with\ kind\ \w+
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LOG = re.compile(
    r"level=|WARNING: |[EWIF]\d{4} \d\d:|\d{4}/\d\d/\d\d \d\d:|walk\.go:|coalesce\.go:"
)
_LIST = re.compile(r"(?P<count>\d+) errors? occurred:\s*\* ", re.IGNORECASE)


def first_cause(stderr: str) -> str:
    """What helm itself says: without log lines, its `Error:`, and what Go wrapped around a list."""
    lines = [line for line in stderr.splitlines() if not is_log(line)]
    text = "\n".join(lines).strip()
    _, found, last = text.rpartition("Error: ")
    text = last if found else text
    if text.upper().startswith(("INSTALLATION FAILED: ", "UPGRADE FAILED: ", "UNINSTALL FAILED: ")):
        text = text.partition(": ")[2]
    text = _LIST.sub("", text)
    return re.sub(r"\n\s*\* ", "; ", text[:LONGEST_CAUSE]).strip()


def error_of(
    operation: str, stderr: str, *, exit_status: int, where: str = "", output: str = ""
) -> HelmError:
    """The error that a failed helm command means.

    `stderr` and `output` are redacted already. `exit_status` is negative for a signal.
    """
    cause = first_cause(stderr)
    for rule in RULES:
        if rule.operations and operation not in rule.operations:
            continue
        match = rule.pattern.search(cause)
        if match is None:
            continue
        what = rule.what(match) if callable(rule.what) else _filled(rule.what, match)
        return rule.error(
            one_sentence(what or unwrapped(cause)),
            where=where,
            next_step=rule.next_step,
            output=output or stderr,
        )
    if exit_status < 0:
        return HelmCancelled(
            f"helm was ended by signal {-exit_status}",
            where=where,
            next_step="9 without anybody's doing mostly means that memory ran out",
            output=output or stderr,
        )
    return HelmError(
        one_sentence(unwrapped(cause)) or f"helm ended with status {exit_status} and said nothing",
        where=where,
        next_step=f"run `helm {operation}` by hand to see more",
        output=output or stderr,
    )


def unwrapped(cause: str) -> str:
    """A cause without helm's own words before it."""
    while True:
        match = _WRAPPING.match(cause)
        if match is None or not cause[match.end() :].startswith(":"):
            return cause
        cause = cause[match.end() + 1 :].strip()


def one_sentence(text: str) -> str:
    """On one line, and not longer than a person reads."""
    text = re.sub(r"\s*\n\s*", " ", text.strip()).rstrip(".")
    text = re.sub(r"[ \t]{2,}", " ", text)
    return text if len(text) <= LONGEST_SENTENCE else text[: LONGEST_SENTENCE - 1] + "…"


def _filled(template: str, match: re.Match[str]) -> str:
    return template.format_map({k: (v or "").strip() for k, v in match.groupdict().items()})


def is_log(line: str) -> bool:
    """Whether the line is a log's: helm's, or that of the Kubernetes client in it."""
    return bool(_LOG.match(line))


def _kind(text: str) -> str:
    """`apps/v1, Kind=Deployment` is Deployment."""
    return text.rpartition("Kind=")[2].strip()


def _fields(text: str) -> str:
    """Field paths, which stand one a line behind dashes where they are several."""
    return ", ".join(re.findall(r"\.\S+", text))


def _hook_object(match: re.Match[str]) -> str:
    found = _UNREADY.search(match.string)
    return f": {found[1]}/{found[2]}" if found else ""


def _hook_cause(cause: str) -> str:
    found = _UNREADY.search(cause)
    if found:
        name = found[2].rpartition("/")[2]
        message = re.sub(
            rf"^(?:{found[1]} failed\. ?|{found[1]} {re.escape(name)} failed)",
            "",
            found[4].strip(),
            flags=re.IGNORECASE,
        )
        return f"{found[1]}/{found[2]}" + (f" ({message.strip()})" if message.strip() else "")
    return unwrapped(_LIST.sub("", cause)).removeprefix("* ")
