"""Every deliberate error of helmops, as one tree that also says what follows.

    HelmopsError
    ├── UsageError                  the command line was wrong                     exit status 2
    ├── DeclarationError            a file, line and field that cannot be accepted stalled
    │   ├── NotSupported            understood, not acted on yet                   stalled
    │   ├── DecryptionFailed        no key for a file that SOPS encrypted          stalled
    │   └── ExpressionError         CEL that does not compile or evaluate          stalled
    ├── ConstraintError             not a version range (also a ValueError)        stalled
    ├── VersionError                not a version (also a ValueError)              stalled
    ├── SourceError                 a chart repository, Git repository or tree     retry
    │   ├── SourceUnavailable       no answer, 5xx, 429, dropped, too slow         retry
    │   ├── SourceDenied            401, 403, host key or certificate refused      retry
    │   ├── SourceMissing           the source, branch or path is not there        retry
    │   └── SourceInvalid           an index or tree that cannot be read           retry
    ├── ChartError
    │   ├── ChartNotFound           no such chart in the source                    retry
    │   ├── NoVersionInRange        the chart exists, no version satisfies         retry
    │   ├── ChartRefused            digest mismatch, traversal, bomb, not a chart  stalled
    │   └── SignatureRefused        not signed, or by nobody who is trusted        retry
    ├── ValuesError                 a reference or its content                     stalled
    │   └── ValuesReferenceMissing  a ConfigMap, Secret or file that is not there  wait
    ├── HelmError                   helm ran and failed                            retry
    │   ├── HelmUnavailable         no usable helm binary                          stalled
    │   ├── HelmTimeout             past our hard deadline, helm was stopped       retry
    │   ├── HelmCancelled           stopped by us or by a signal                   retry
    │   ├── HelmUnreachable         helm got no answer from the API server         retry
    │   ├── HelmDenied              the API server told helm 401 or 403            stalled
    │   ├── HelmWaitTimeout         the objects were not ready in time             retry
    │   │   └── RolloutStuck        something that cannot recover by itself        retry
    │   ├── ReleaseLocked           another operation is in progress               wait
    │   ├── ReleaseNotFound         helm knows no such release or revision         retry
    │   ├── ReleaseExists           the name is in use                             retry
    │   ├── OwnershipConflict       an object belongs to another release           stalled
    │   ├── TemplateFailed          the chart does not render                      stalled
    │   ├── PostRenderFailed        a post-renderer failed, nothing was released   stalled
    │   ├── ValuesSchemaFailed      values.schema.json refuses the values          stalled
    │   ├── ObjectRefused           the API server refuses an object               retry
    │   ├── HookFailed              a chart's hook failed                          retry
    │   └── TestFailed              a chart's test failed                          retry
    ├── ClusterError
    │   ├── ClusterUnreachable      no answer from the API server                  retry
    │   ├── AccessDenied            the API server says 401 or 403                 stalled
    │   ├── ObjectNotFound          404                                            retry
    │   │   └── NamespaceMissing    the release's namespace does not exist         retry
    │   └── ObjectConflict          409, somebody wrote in between                 retry
    ├── LeaseHeld                   another helmops acts on this release           wait
    ├── StoreError                  the state database cannot be read or written   retry
    ├── CheckFailed                 a health check said no                         retry
    └── NotificationFailed          a webhook did not take the event               retry

*retry* comes again with back-off, *wait* when what it waits for changes, *stalled* not before the
declaration, the source or a person changes something.
"""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import ClassVar, Self


class Follows(StrEnum):
    """What a pass does after an error."""

    RETRY = "retry"
    WAIT = "wait"
    STALLED = "stalled"


class HelmopsError(Exception):
    """Root of all deliberate errors.

    `what` is one sentence for the person who reads it, `where` the place (`file:line`, a field, a
    release and revision, a URL without credentials), `next_step` what to do about it. None of the
    three may hold a secret value.
    """

    #: The reason of the condition that tells of it: Flux's word where Flux has one.
    reason: ClassVar[str] = "ReconcileError"
    follows: ClassVar[Follows] = Follows.RETRY

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.next_step})" if self.next_step else text

    def anew(self) -> Self:
        """The same error for somebody else: one that is raised twice grows its traceback."""
        return copy.copy(self).with_traceback(None)


class UsageError(HelmopsError):
    """The command line was wrong."""

    reason = "Usage"
    follows = Follows.STALLED


class DeclarationError(HelmopsError):
    """A declaration that cannot be accepted; `where` is `file:line`, `field` the dotted path."""

    reason = "DeclarationInvalid"
    follows = Follows.STALLED

    def __init__(self, what: str, *, where: str = "", next_step: str = "", field: str = "") -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.field = field

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.where, self.field, self.what) if part)
        return f"{head} ({self.next_step})" if self.next_step else head


class NotSupported(DeclarationError):
    """A field that is understood and not acted on yet; ignoring it could do harm."""

    reason = "NotSupported"


class DecryptionFailed(DeclarationError):
    """A file that SOPS encrypted and that cannot be decrypted; `where` names it."""

    reason = "DecryptionFailed"


class ExpressionError(DeclarationError):
    """A CEL expression that does not compile, or does not give what is asked of it."""

    reason = "InvalidCELExpression"


class ConstraintError(HelmopsError, ValueError):
    """Text that is not a version range in Helm's language."""

    reason = "InvalidVersionRange"
    follows = Follows.STALLED


class VersionError(HelmopsError, ValueError):
    """Text that is not a semantic version."""

    reason = "InvalidVersion"
    follows = Follows.STALLED


class SourceError(HelmopsError):
    """A chart repository, Git repository or directory that did not give what was asked.

    `retry_after` is in seconds, from the server (`Retry-After`), None where it said nothing.
    """

    reason = "SourceNotReady"

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        next_step: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.retry_after = retry_after


class SourceUnavailable(SourceError):
    """No answer, a 5xx or 429, a dropped or too slow connection."""


class SourceDenied(SourceError):
    """401, 403, or a certificate or host key that was refused."""

    reason = "AuthenticationFailed"


class SourceMissing(SourceError):
    """The source object, repository, branch or path is not there."""


class SourceInvalid(SourceError):
    """The source answered with something that cannot be read, as HTML in place of an index."""

    reason = "IndexationFailed"


class ChartError(HelmopsError):
    """A chart that could not be had."""

    reason = "ArtifactFailed"


class ChartNotFound(ChartError):
    """The source has no such chart."""


class NoVersionInRange(ChartError):
    """The chart exists, but none of its versions satisfies the range."""


class ChartRefused(ChartError):
    """A chart archive that must not be used: wrong digest, traversal, bomb, not a chart."""

    follows = Follows.STALLED


class SignatureRefused(ChartError):
    """A chart that is not signed, or not by a key that is trusted. A signature may yet come."""

    reason = "VerificationError"


class ValuesError(HelmopsError):
    """Values that cannot be read or merged."""

    reason = "ValuesError"
    follows = Follows.STALLED


class ValuesReferenceMissing(ValuesError):
    """A referenced ConfigMap, Secret, key or file is not there."""

    follows = Follows.WAIT


class HelmError(HelmopsError):
    """helm ran and failed. `output` is its redacted standard error, bounded in size."""

    reason = "HelmFailed"

    def __init__(
        self, what: str, *, where: str = "", next_step: str = "", output: str = ""
    ) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.output = output


class HelmUnavailable(HelmError):
    """There is no helm binary that can be used."""

    reason = "FactoryError"
    follows = Follows.STALLED


class HelmTimeout(HelmError):
    """helm was still running at our hard deadline and was stopped."""


class HelmCancelled(HelmError):
    """helm was stopped, by us or by a signal."""


class HelmUnreachable(HelmError):
    """helm got no answer from the API server."""

    reason = "ClusterUnreachable"


class HelmDenied(HelmError):
    """The API server told helm 401 or 403."""

    reason = "AccessDenied"
    follows = Follows.STALLED


class HelmWaitTimeout(HelmError):
    """The objects were not ready in time: helm's own wait ran out, or nothing moved any more."""


class RolloutStuck(HelmWaitTimeout):
    """The rollout met a state that cannot recover by itself, so it was not waited for."""


class ReleaseLocked(HelmError):
    """Another operation on the release is in progress, or was broken off."""

    follows = Follows.WAIT


class ReleaseNotFound(HelmError):
    """helm knows no such release or revision."""


class ReleaseExists(HelmError):
    """The release name is in use."""


class OwnershipConflict(HelmError):
    """An object of the chart exists and belongs to something else."""

    follows = Follows.STALLED


class TemplateFailed(HelmError):
    """The chart does not render with these values."""

    follows = Follows.STALLED


class PostRenderFailed(HelmError):
    """A post-renderer failed: a patch without a target, one that does not fit, no kubectl."""

    follows = Follows.STALLED


class ValuesSchemaFailed(HelmError):
    """The chart's values.schema.json refuses the values."""

    follows = Follows.STALLED


class ObjectRefused(HelmError):
    """The API server refuses an object of the chart."""


class HookFailed(HelmError):
    """A hook of the chart failed."""


class TestFailed(HelmError):
    """A test of the chart failed."""

    __test__ = False  # not a test class, whatever pytest thinks of the name


class ClusterError(HelmopsError):
    """The Kubernetes API did not do what was asked."""


class ClusterUnreachable(ClusterError):
    """No answer from the API server."""

    reason = "ClusterUnreachable"


class AccessDenied(ClusterError):
    """The API server said 401 or 403."""

    reason = "AccessDenied"
    follows = Follows.STALLED


class ObjectNotFound(ClusterError):
    """The API server said 404."""


class NamespaceMissing(ObjectNotFound):
    """The namespace that a release shall live in does not exist."""

    reason = "NamespaceMissing"


class ObjectConflict(ClusterError):
    """The API server said 409: somebody wrote in between, or the object exists."""


class LeaseHeld(HelmopsError):
    """Another helmops acts on this release just now."""

    reason = "LeaseHeld"
    follows = Follows.WAIT


class StoreError(HelmopsError):
    """The state database cannot be read or written."""

    reason = "StateError"


class CheckFailed(HelmopsError):
    """A health check said no."""

    reason = "HealthCheckFailed"


class NotificationFailed(HelmopsError):
    """A receiver of notifications did not take the event."""

    reason = "NotificationFailed"
