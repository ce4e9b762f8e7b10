"""What brings declarations out of a source: `kustomize.toolkit.fluxcd.io/v1`.

helmops builds it and takes what concerns it: releases, sources, values. It applies nothing, so that
what Flux does with other objects (`force`, `ignore`, `timeout`, `healthCheckExprs`) is accepted and
has no effect.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, Strict, StringConstraints

from helmops.model.declarations.base import (
    Duration,
    Flag,
    LocalRef,
    Model,
    Namespace,
    Resource,
    Text,
    TextMap,
)
from helmops.model.declarations.helm_release import (
    CommonMetadata,
    DriftIgnore,
    HealthCheckExpr,
    KubeConfig,
    KustomizeImage,
    KustomizePatch,
)

#: The kinds of sources that Kustomizations take their files from.
FILE_SOURCES: Final = ("GitRepository", "OCIRepository")

_Affix = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200)]


class KustomizationDependency(Model):
    """Another Kustomization that must be ready first."""

    name: Text = Field(description="Name of the Kustomization.")
    namespace: Text = Field(default="", description="Its namespace; absent means the same.")
    ready_expr: Text = Field(
        default="", description="CEL that replaces the check for Ready; not acted on yet."
    )


class Decryption(Model):
    """How encrypted documents are decrypted."""

    provider: Literal["sops"] = Field(description="Kind of encryption.")
    secret_ref: LocalRef | None = Field(default=None, description="Secret with the private keys.")
    service_account_name: Text = Field(
        default="", description="ServiceAccount whose cloud identity to use."
    )


class HealthCheck(Model):
    """An object whose health counts for the readiness of the Kustomization."""

    api_version: Text = Field(default="", description="API version; absent means any.")
    kind: Text = Field(description="Kind; helmops looks at HelmReleases only.")
    name: Text = Field(description="Name.")
    namespace: Text = Field(
        default="", description="Namespace; absent means that of the Kustomization."
    )


class SubstituteReference(Model):
    """Variables in a ConfigMap or a Secret: each key is one."""

    kind: Literal["Secret", "ConfigMap"] = Field(description="Where the variables are.")
    name: Annotated[str, Strict(), StringConstraints(min_length=1, max_length=253)] = Field(
        description="Name of the object, in the Kustomization's namespace."
    )
    optional: Flag = Field(default=False, description="Pass over an object that is not there.")


class PostBuild(Model):
    """What is done to what was built."""

    substitute: TextMap = Field(
        default_factory=dict,
        repr=False,
        description="Variables; they win over those of `substituteFrom`.",
    )
    substitute_from: tuple[SubstituteReference, ...] = Field(
        default=(), description="Where more variables are; the later win."
    )
    substitute_strategy: Literal["WithVariables", "Always"] | None = Field(
        default=None,
        description="`WithVariables` (the default) substitutes where there is any variable, "
        "`Always` also where there is none.",
    )


class KustomizationSource(Model):
    """The source with the files."""

    api_version: Text = Field(default="", description="API version of the source.")
    kind: Literal["OCIRepository", "GitRepository", "Bucket", "ExternalArtifact"] = Field(
        description="Kind of the source; `GitRepository` and `OCIRepository` are acted on so far."
    )
    name: Text = Field(
        description="Name of the source. One that is not declared is the source that the "
        "Kustomization came from."
    )
    namespace: Text = Field(default="", description="Its namespace; absent means the same.")


class KustomizationSpec(Model):
    """A directory in a source, and what is changed in what it holds."""

    source_ref: KustomizationSource = Field(description="Where the files are.")
    path: Text = Field(
        default="", description="Directory in the source; absent means all of the source."
    )
    interval: Duration = Field(description="How often variables in the cluster are read again.")
    retry_interval: Duration | None = Field(default=None, description="Accepted; not used.")
    timeout: Duration | None = Field(default=None, description="Accepted; not used.")
    prune: Flag = Field(
        description="Where false, no release of it is ever uninstalled because it vanished; where "
        "true, the release's own policy says."
    )
    suspend: Flag = Field(default=False, description="Leave its releases as they are.")
    depends_on: tuple[KustomizationDependency, ...] = Field(
        default=(),
        description="Kustomizations that must be ready before its releases are installed first.",
    )
    wait: Flag = Field(
        default=False, description="Ready means that all of its releases are ready, too."
    )
    health_checks: tuple[HealthCheck, ...] = Field(
        default=(), description="Ready means that these releases are ready, where not `wait`."
    )
    health_check_exprs: tuple[HealthCheckExpr, ...] = Field(
        default=(), description="Accepted; not used: for objects that helmops does not apply."
    )
    target_namespace: Namespace | None = Field(
        default=None, description="Namespace of everything in it."
    )
    name_prefix: _Affix | None = Field(default=None, description="Put before all names.")
    name_suffix: _Affix | None = Field(default=None, description="Put behind all names.")
    common_metadata: CommonMetadata | None = Field(
        default=None, description="Labels and annotations for everything in it."
    )
    components: tuple[Text, ...] = Field(
        default=(), description="Directories of kustomize Components, relative to `path`."
    )
    ignore_missing_components: Flag = Field(
        default=False, description="Pass over components that are not there."
    )
    patches: tuple[KustomizePatch, ...] = Field(default=(), description="Patches, in order.")
    images: tuple[KustomizeImage, ...] = Field(default=(), description="Images to replace.")
    build_metadata: tuple[Literal["originAnnotations", "transformerAnnotations"], ...] = Field(
        default=(), description="Accepted; not used: helmops knows where an object came from."
    )
    post_build: PostBuild | None = Field(default=None, description="Variables to substitute.")
    decryption: Decryption | None = Field(default=None, description="How to decrypt.")
    kube_config: KubeConfig | None = Field(
        default=None, description="Another cluster; not acted on yet."
    )
    service_account_name: Text = Field(
        default="", description="ServiceAccount to act as; not acted on yet."
    )
    force: Flag = Field(default=False, description="Accepted; not used.")
    deletion_policy: Literal["MirrorPrune", "Delete", "WaitForTermination", "Orphan"] | None = (
        Field(default=None, description="Accepted; `prune` and the releases' policies decide.")
    )
    ignore: tuple[DriftIgnore, ...] = Field(default=(), description="Accepted; not used.")


class Kustomization(Resource):
    """A directory of declarations in a source, built by kustomize."""

    api_group: ClassVar[str] = "kustomize.toolkit.fluxcd.io"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: KustomizationSpec = Field(description="The directory.")
