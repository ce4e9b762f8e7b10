"""What a pass needs from the world. Adapters meet these structurally; nothing inherits from them.

Every method may raise the errors of `helmops.errors` that its docstring names, and no others.
`asyncio.CancelledError` always passes through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol

from helmops.model.charts import ChartArtifact, ChartVersion, IncludedTree, Tree
from helmops.model.credentials import GitCredentials, HttpCredentials
from helmops.model.declarations import (
    GitRepositorySpec,
    HealthCheckExpr,
    HelmRepositorySpec,
    InstallSpec,
    OCIRepositorySpec,
    PolicyCheck,
    RemediationHook,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)
from helmops.model.events import Event
from helmops.model.evidence import Evidence
from helmops.model.health import CheckResult, LiveHealth
from helmops.model.hooks import HookResult
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, HelmRun, Progress, ReleaseId, StoredRelease


class Clock(Protocol):
    """Time, the only source of it."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait. Fakes return at once and advance their time."""


class ChartRepositories(Protocol):
    """Helm repositories over HTTP, and in OCI registries."""

    async def versions(
        self,
        repository: HelmRepositorySpec,
        chart: str,
        credentials: HttpCredentials,
        wanted: str = "",
    ) -> tuple[ChartVersion, ...]:
        """All entries of one chart, in the index's order. Where one version is `wanted` (and no
        range), a registry is asked for that one only.

        Served from memory where the repository says that nothing changed, or where it was polled
        less than its interval ago, and as long as it does not answer. Raises SourceError,
        ChartNotFound.
        """

    async def trouble(self, repository: HelmRepositorySpec, credentials: HttpCredentials) -> str:
        """What went wrong at the last poll, where what was offered before stands; else empty."""

    async def pull(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """The archive, checked against the index's digest, safe to be read. `keys` are public ones
        (PEM): where there are any, one of them must have signed it, which only registries have.

        Raises SourceError, ChartRefused, SignatureRefused.
        """

    async def signer(
        self,
        repository: HelmRepositorySpec,
        version: ChartVersion,
        artifact: ChartArtifact,
        credentials: HttpCredentials,
        keys: Mapping[str, bytes],
    ) -> str:
        """Who signed a pulled archive, by Helm's provenance file beside it, which one of the keys
        (OpenPGP, by file name) must have signed. Raises SourceError, SignatureRefused, ValuesError.
        """

    async def refresh(self, repository: HelmRepositorySpec, credentials: HttpCredentials) -> bool:
        """Poll now, by a conditional request; whether anything changed. Raises SourceError."""


class OciRepositories(Protocol):
    """Artifacts in OCI registries that are charts."""

    async def versions(
        self, repository: OCIRepositorySpec, credentials: HttpCredentials
    ) -> tuple[ChartVersion, ...]:
        """What `ref` names: one entry for a digest or a tag, for a range one for each tag that is a
        version. The very same tuple as long as nothing changed; served from memory less than an
        interval after it was asked, and as long as the registry does not answer.

        Raises SourceError, ConstraintError.
        """

    async def pull(
        self,
        repository: OCIRepositorySpec,
        version: ChartVersion,
        credentials: HttpCredentials,
        keys: Sequence[bytes] = (),
    ) -> ChartArtifact:
        """The archive of one of these, checked against its digests, safe to be read; its `revision`
        is `tag@digest` or the digest. `keys` are as in `ChartRepositories`.

        Raises SourceError, ChartRefused, SignatureRefused.
        """

    async def trouble(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """What went wrong at the last poll, where what was there before stands; else empty."""

    async def refresh(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> bool:
        """Ask now; whether anything changed. Raises SourceError."""


class GitTrees(Protocol):
    """Git repositories: one bare mirror each, checked out read-only by revision."""

    async def resolve(self, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
        """The revision that the reference names now, by one `git ls-remote`. Raises SourceError."""

    async def checkout(
        self,
        repository: GitRepositorySpec,
        credentials: GitCredentials,
        revision: str,
        *,
        keys: Mapping[str, bytes] | None = None,
        included: Sequence[IncludedTree] = (),
    ) -> Tree:
        """The files of that revision, fetched where they are not at hand, `included` ones within
        them. `keys` are the public keys, by file name, of which one must have signed what the
        repository's `verify` says. Raises SourceError, SignatureRefused.
        """


class ArtifactTrees(Protocol):
    """Artifacts in OCI registries that hold files, unpacked read-only by revision."""

    async def resolve(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """The revision that `ref` names now, as Flux writes it: `1.2.3@sha256:…`, or the digest
        alone. The registry is asked. Raises SourceError, ConstraintError.
        """

    async def seen(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """The revision that it named when it was asked last, also by an earlier process; empty
        where nobody knows. Raises SourceError, ConstraintError.
        """

    async def checkout(
        self,
        repository: OCIRepositorySpec,
        credentials: HttpCredentials,
        revision: str,
        *,
        keys: Sequence[bytes] = (),
    ) -> Tree:
        """The files of that revision, fetched where they are not at hand. `keys` are public ones
        (PEM), of which one must have signed it where the repository's `verify` says so. Raises
        SourceError, ChartRefused, SignatureRefused.
        """


class TreeFiles(Protocol):
    """Files of a checkout or a directory."""

    async def read(self, tree: Tree, path: str) -> bytes | None:
        """One file, or None where there is none. Raises SourceInvalid for a path that leaves the
        tree, or for a file that is too large or cannot be read.
        """

    async def find(self, tree: Tree, pattern: str) -> tuple[str, ...]:
        """Paths of the files that match a pattern (`model/globs.py`), sorted. Raises
        SourceInvalid where there are too many files to look at.
        """


class Decrypt(Protocol):
    """Takes the encryption off a text."""

    async def __call__(self, content: bytes, name: str, /) -> bytes:
        """The very same object for a text that is not encrypted. `name` is what people call it.
        Raises DecryptionFailed.
        """


#: Fetches a chart that another one depends on, by name, version (or range) and repository. Raises
#: SourceError, ChartError.
DependencyFetch = Callable[[str, str, str], Awaitable[ChartArtifact]]


class ChartBuilder(Protocol):
    """Makes chart archives of directories."""

    async def build(
        self,
        tree: Tree,
        path: str,
        *,
        values_files: Sequence[str] = (),
        ignore_missing_values_files: bool = False,
        version_suffix: str = "",
        fetch: DependencyFetch | None = None,
    ) -> ChartArtifact:
        """Package the chart at `path`, its dependencies built, fetched with `fetch` where they are
        not in the tree. `version_suffix` is for `reconcileStrategy: Revision`. Raises
        SourceMissing, SourceUnavailable, ChartRefused, and what `fetch` does.
        """

    async def with_values_files(
        self,
        artifact: ChartArtifact,
        values_files: Sequence[str],
        *,
        ignore_missing_values_files: bool = False,
    ) -> ChartArtifact:
        """An archive with its values.yaml replaced by these files of it, merged in order. Raises
        SourceMissing, SourceUnavailable, ChartRefused.
        """


class ReleaseStorage(Protocol):
    """Helm's release Secrets."""

    async def read(self, release: ReleaseId) -> StoredRelease:
        """All stored revisions; from memory where a watch knows that none changed.

        Raises ClusterError, and HelmError naming a Secret of Helm's that cannot be read.
        """

    async def objects(self, release: ReleaseId, revision: int) -> tuple[dict[str, Any], ...]:
        """The manifest of one revision, parsed; hooks are not in it. Raises ReleaseNotFound,
        ClusterError.
        """

    async def mark_failed(self, release: ReleaseId, revision: int, description: str) -> None:
        """Break a lock: rewrite the status of a pending revision to `failed`.

        Raises ReleaseNotFound, ObjectConflict, ClusterError.
        """

    async def prune(self, release: ReleaseId, revisions: Sequence[int]) -> None:
        """Delete these revisions; one that is gone already is no error. Raises ClusterError."""

    async def keep(self, release: ReleaseId, revision: int, digest: str) -> None:
        """Copy a revision to where nobody prunes it, over the copy that is there. Raises
        ReleaseNotFound where it is gone or another one has its number, ClusterError.
        """

    async def put_back(self, release: ReleaseId, revision: int, digest: str) -> None:
        """Store the kept copy as `superseded` under its own number. Raises ReleaseNotFound where
        there is no copy of that digest, ObjectConflict where another revision has the number,
        ClusterError.
        """

    async def values(self, release: ReleaseId, revision: int) -> Mapping[str, Any]:
        """The values that a revision was released with, secret ones among them. Raises
        ReleaseNotFound, HelmError, ClusterError.
        """


class Helm(Protocol):
    """The helm binary. Each method raises HelmError (and its subclasses), nothing else.

    `timeout` is helm's own (per operation); our hard deadline over the whole process is derived
    from it. The chart's `post_rendering` is done wherever it is rendered; where that fails, nothing
    is stored, and PostRenderFailed raised. A cancelled call stops helm within a second.
    `description` becomes the revision's.
    """

    @property
    def major(self) -> int:
        """Helm's major version, 3 or 4."""

    def unsupported(self, field: str, value: object) -> bool:
        """Whether this helm has no flag for a field (`install.serverSideApply`) with this value."""

    async def install(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        spec: InstallSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun: ...

    async def upgrade(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        spec: UpgradeSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun: ...

    async def rollback(
        self,
        release: ReleaseId,
        revision: int,
        spec: RollbackSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun: ...

    async def uninstall(
        self,
        release: ReleaseId,
        spec: UninstallSpec,
        *,
        timeout: timedelta,
        description: str,
        progress: Progress | None = None,
    ) -> HelmRun: ...

    async def test(
        self,
        release: ReleaseId,
        spec: TestSpec,
        *,
        timeout: timedelta,
        progress: Progress | None = None,
    ) -> HelmRun:
        """Run the tests. Raises TestFailed when one failed, with helm's output (and its logs)."""

    async def render(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        *,
        is_upgrade: bool,
        skip_schema_validation: bool = False,
        with_hooks: bool = False,
    ) -> tuple[dict[str, Any], ...]:
        """What an install or upgrade would apply, hooks left out unless `with_hooks`, against the
        cluster's capabilities, `lookup` working, nothing written.
        """

    def is_running(self, release: ReleaseId) -> bool:
        """Whether a helm that an earlier, dead helmops on this machine started is still at it."""


class Checks(Protocol):
    """Everything that tells whether a release is healthy, after helm's own wait."""

    async def readiness(
        self,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        expressions: Sequence[HealthCheckExpr],
        *,
        timeout: timedelta,
        hard_timeout: timedelta | None = None,
        progress: Progress | None = None,
    ) -> CheckResult:
        """Wait until all objects are Current; fails at once on one that is Failed or can never be
        ready, or with those that are not when nothing moved for the timeout, or at the hard one
        (absent: the same). Raises ExpressionError, ClusterError.
        """

    async def policy_check(
        self,
        check: PolicyCheck,
        release: ReleaseId,
        objects: Sequence[Mapping[str, Any]],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> CheckResult:
        """Run one check of a policy with its interval, timeout and thresholds. Raises
        DeclarationError (for what cannot be asked), ClusterError; a failed check is a result,
        not an exception.
        """

    async def last_change(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> datetime | None:
        """When anybody, controllers included, last wrote to one of the objects; None where none
        of them exists. Raises ClusterError.
        """


class EvidenceGatherer(Protocol):
    """What a failure leaves behind."""

    def recording(self, release: ReleaseId) -> AbstractAsyncContextManager[None]:
        """Entered around helm's install, upgrade, rollback and test: keeps the logs of hook and
        test pods while they live, also of those that helm deletes.
        """

    async def gather(
        self,
        release: ReleaseId,
        revision: int,
        objects: Sequence[Mapping[str, Any]],
        *,
        before: Sequence[Mapping[str, Any]] = (),
        helm_output: str = "",
        hooks: Sequence[str] = (),
    ) -> Evidence:
        """What tells of a revision that failed: `objects` are its manifest, `before` that of the
        healthy one. What could not be had is said in the evidence. Raises ClusterError.
        """


class RolloutWatcher(Protocol):
    """Cuts a wait short where nothing moves any more, or nothing can recover."""

    def may_watch(self, namespace: str) -> bool:
        """Whether rollouts there can be seen, as far as is known; else timeouts are plain."""

    async def run(
        self,
        release: ReleaseId,
        work: Awaitable[HelmRun],
        *,
        patience: timedelta | None,
        max_restarts: int = 0,
        progress: Progress | None = None,
    ) -> HelmRun:
        """Do the work, and cancel it when nothing of the release has moved for `patience` (None:
        however long that is), or at once when its rollout met a state that cannot recover. Raises
        what the work raises, HelmWaitTimeout, RolloutStuck.
        """


class Liveness(Protocol):
    """What watches of releases' objects show."""

    def of(self, release: ReleaseId) -> LiveHealth | None:
        """How a release is doing, from memory; None where nobody watches it."""


class Hooks(Protocol):
    """Remediation hooks: a Kubernetes Job or a webhook."""

    async def run(
        self,
        hook: RemediationHook,
        release: ReleaseId,
        context: Mapping[str, str],
        credentials: HttpCredentials,
        *,
        progress: Progress | None = None,
    ) -> HookResult:
        """Run one hook to its end or its timeout. A failed hook is a result. Raises
        ClusterError.
        """


class References(Protocol):
    """ConfigMaps and Secrets in the cluster, for values and credentials."""

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data and binaryData, or None where there is none. Raises ClusterError."""

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, decoded, or None where there is none. Raises ClusterError."""

    async def owned_by_other(
        self, release: ReleaseId, objects: Sequence[Mapping[str, Any]]
    ) -> tuple[str, ...]:
        """Those of the objects that exist and carry another release's ownership, readable."""


class Records(Protocol):
    """What helmops remembers: one record Secret beside each release."""

    async def load(self, release: ReleaseId) -> Record | None:
        """The record of a release, or None. Raises ClusterError."""

    async def load_all(self) -> tuple[Record, ...]:
        """Every record in the namespaces that this helmops sees. Raises ClusterError."""

    async def save(self, record: Record) -> Record:
        """Write; returns the record with its new `version`. Raises ObjectConflict when somebody
        wrote in between, ObjectNotFound where the namespace does not exist, ClusterError.
        """

    async def delete(self, record: Record) -> None:
        """Forget a release. Raises ClusterError."""

    async def ensure_namespace(self, namespace: str) -> None:
        """Create the namespace where it does not exist. Raises ClusterError."""


class Leases(Protocol):
    """One holder per release, across processes and machines."""

    def hold(self, release: ReleaseId) -> AbstractAsyncContextManager[None]:
        """Hold the release's Lease while inside, renewing it. A lease of a process of this machine
        that is dead is taken over at once. Raises LeaseHeld, ClusterError. When the lease is lost
        (it could not be renewed in time), the body is cancelled and LeaseHeld raised.
        """


class Journal(Protocol):
    """The store: events and attempts, kept beyond what records remember."""

    async def append(self, events: Sequence[Event]) -> None:
        """Keep events. Raises StoreError."""

    async def publish(self, record: Record) -> None:
        """Keep the latest state of a release for looking at, and the entries of its ledger. Raises
        StoreError.
        """

    async def chronicle(self, records: Sequence[Record]) -> None:
        """Keep the entries of their ledgers that are not kept yet: those of records that were
        saved, each once, however often this is called. Raises StoreError.
        """


class EvidenceStore(Protocol):
    """Where evidence is kept; the Journal's store."""

    async def keep_evidence(self, key: DeclarationKey, evidence: Evidence) -> int:
        """Keep what a failure left behind; returns its number, counted from 1 for each release.
        Raises StoreError.
        """


class Notifier(Protocol):
    """Webhooks and chats."""

    async def send(self, event: Event, record: Record) -> None:
        """Tell all that asked for such events, in the background; failures are logged and
        retried, never raised.
        """
