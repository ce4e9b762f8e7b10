"""HelmRelease, `helm.toolkit.fluxcd.io/v2`, field by field as Flux has it.

A field whose default depends on the set of defaults, or on another field, is None where it is
absent; `helmops.model.declarations.defaults.with_defaults` fills it.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from helmops.model.declarations.base import (
    Count,
    Duration,
    Flag,
    LocalRef,
    Model,
    Name,
    Namespace,
    Resource,
    StringMatch,
    Text,
    TextMap,
    refuse,
)
from helmops.model.releases import ReleaseId

#: Helm's own limit.
_LONGEST_RELEASE_NAME = 53

CrdsPolicy = Literal["Skip", "Create", "CreateReplace"]
ServerSideApply = Literal["enabled", "disabled", "auto"]
StrategyName = Literal["RemediateOnFailure", "RetryOnFailure"]


class CrossNamespaceRef(Model):
    """A source that a chart comes from, possibly in another namespace."""

    api_version: Text = Field(default="", description="API version of the source; not needed.")
    kind: Literal["HelmRepository", "GitRepository", "Bucket", "Directory"] = Field(
        description="Kind of the source. `Directory` is helmops' own: a directory beside the "
        "declaration, `name` its path relative to the declaration's file."
    )
    name: Name = Field(description="Name of the source.")
    namespace: Namespace | None = Field(
        default=None, description="Its namespace; absent means the HelmRelease's."
    )


class ChartRef(Model):
    """An artifact that holds the chart, in place of `chart`."""

    api_version: Text = Field(default="", description="API version of the referent.")
    kind: Literal["OCIRepository", "HelmChart", "ExternalArtifact"] = Field(
        description="Kind of the referent."
    )
    name: Name = Field(description="Name of the referent.")
    namespace: Namespace | None = Field(
        default=None, description="Its namespace; absent means the HelmRelease's."
    )


class ChartVerification(Model):
    """Signature check of a chart from an OCI registry."""

    provider: Literal["cosign", "notation"] = Field(
        default="cosign", description="How the chart was signed."
    )
    secret_ref: LocalRef | None = Field(
        default=None, description="Secret with the trusted public keys."
    )


class ChartTemplateMetadata(Model):
    """Metadata that Flux puts on the HelmChart object it creates."""

    labels: TextMap = Field(default_factory=dict, description="Labels of Flux's HelmChart.")
    annotations: TextMap = Field(
        default_factory=dict, description="Annotations of Flux's HelmChart."
    )


class ChartTemplateSpec(Model):
    """Which chart, from where, and in which versions."""

    chart: Annotated[str, Strict(), StringConstraints(min_length=1, max_length=2048)] = Field(
        description="Name of the chart in a HelmRepository, or its path in the source."
    )
    version: Text | None = Field(
        default=None,
        description="Version range in Helm's language; ignored for charts from Git, buckets and "
        "directories. Absent: `safe` takes the newest and then no new major without a policy, "
        "`flux` means `*`.",
    )
    source_ref: CrossNamespaceRef = Field(description="Where the chart is.")
    interval: Duration | None = Field(
        default=None, description="How often to look for new versions; absent means `interval`."
    )
    reconcile_strategy: Literal["ChartVersion", "Revision"] = Field(
        default="ChartVersion",
        description="What makes a new artifact: a new chart version, or each new revision of the "
        "source (Git).",
    )
    values_files: tuple[Text, ...] = Field(
        default=(),
        description="Files that replace the chart's values.yaml, relative to the source, merged "
        "in order; values.yaml itself counts only when listed.",
    )
    ignore_missing_values_files: Flag = Field(
        default=False, description="Pass over files in `valuesFiles` that are not there."
    )
    verify: ChartVerification | None = Field(
        default=None, description="Signature check of charts from OCI registries."
    )


class ChartTemplate(Model):
    """The chart of a release."""

    metadata: ChartTemplateMetadata | None = Field(
        default=None, description="Accepted; helmops creates no HelmChart objects."
    )
    spec: ChartTemplateSpec = Field(description="Which chart, from where, in which versions.")


class KubeConfigSecretRef(Model):
    """A Secret with a kubeconfig."""

    name: Text = Field(description="Name of the Secret.")
    key: Text = Field(default="", description="Its key; absent means `value` or `value.yaml`.")


class KubeConfig(Model):
    """Another cluster to release into."""

    secret_ref: KubeConfigSecretRef | None = Field(
        default=None, description="Secret with a kubeconfig."
    )
    config_map_ref: LocalRef | None = Field(
        default=None, description="ConfigMap with a cluster's address and provider."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.secret_ref is None) == (self.config_map_ref is None):
            raise refuse("exactly one of `configMapRef` and `secretRef` must be set")
        return self


class DependsOn(Model):
    """Another HelmRelease that must be ready first."""

    name: Text = Field(description="Name of the HelmRelease.")
    namespace: Text = Field(default="", description="Its namespace; absent means the same.")
    ready_expr: Text = Field(
        default="",
        description="CEL over `dep` and `self` (their manifests) that replaces the check for "
        "Ready.",
    )


class ValuesReference(Model):
    """Values that come from elsewhere, merged in order under `values`."""

    kind: Literal["ConfigMap", "Secret", "GitRepository", "File"] = Field(
        description="Where the values are. `GitRepository` and `File` are helmops' own."
    )
    name: Annotated[str, Strict(), StringConstraints(max_length=253)] = Field(
        default="",
        description="Name of the ConfigMap, Secret or GitRepository, in the same namespace; not "
        "for `File`.",
    )
    path: Text = Field(
        default="",
        description="For `GitRepository`: the file in the repository. For `File`: relative to the "
        "declaration's file. `*`, `?` and `[abc]` match characters of a name, `**` directories: "
        "all files that match count, in the order of their paths.",
    )
    values_key: (
        Annotated[str, Strict(), StringConstraints(max_length=253, pattern=r"^[\-._a-zA-Z0-9]+$")]
        | None
    ) = Field(
        default=None, description="Key in the ConfigMap or Secret; absent means `values.yaml`."
    )
    target_path: (
        Annotated[
            str,
            Strict(),
            StringConstraints(max_length=250, pattern=r"^([a-zA-Z0-9_\-.\\\/]|\[[0-9]{1,5}\])+$"),
        ]
        | None
    ) = Field(
        default=None,
        description="Where in the values to put the content, which then is a single value, read "
        "as `helm --set` does. It wins over everything, `values` included.",
    )
    literal: Flag = Field(
        default=False,
        description="With `targetPath`: take the content as it is, as `helm --set-literal` does.",
    )
    optional: Flag = Field(default=False, description="Pass over a reference that does not exist.")

    @model_validator(mode="after")
    def _parts_of_kind(self) -> Self:
        if self.kind != "File" and not self.name:
            raise refuse(f"`name` is required for kind {self.kind}")
        if self.kind == "File" and self.name:
            raise refuse("kind File has no `name`; give the file in `path`")
        if self.kind in ("File", "GitRepository"):
            if not self.path:
                raise refuse(f"`path` is required for kind {self.kind}")
            if self.values_key is not None:
                raise refuse("`valuesKey` is for ConfigMap and Secret; a file is taken whole")
        elif self.path:
            raise refuse("`path` is for kinds GitRepository and File; use `valuesKey`")
        return self


class HealthCheckExpr(Model):
    """How to tell the health of objects of one API group or kind, in CEL over the object."""

    api_version: Text = Field(description="API version; only its group is compared.")
    kind: Text = Field(default="", description="Kind; absent means the whole group.")
    current: Text = Field(description="True when the object is as it should be.")
    in_progress: Text = Field(default="", description="True while it is on its way; asked first.")
    failed: Text = Field(default="", description="True when it failed; asked second.")


class DriftIgnore(Model):
    """Differences that do not count as drift."""

    paths: tuple[Text, ...] = Field(
        description="JSON pointers (RFC 6901); the empty one means the whole object."
    )
    target: StringMatch | None = Field(
        default=None, description="Objects that the rule is for; absent means all."
    )


class DriftDetection(Model):
    """What to do about objects that were changed behind Helm's back."""

    mode: Literal["enabled", "warn", "disabled"] = Field(
        default="disabled", description="Correct drift, only tell of it, or do not look."
    )
    ignore: tuple[DriftIgnore, ...] = Field(
        default=(), description="Differences that do not count."
    )


class KustomizePatch(Model):
    """A patch and the objects that it is for."""

    patch: Text = Field(description="Strategic merge patch or JSON 6902 patch, as text.")
    target: StringMatch | None = Field(default=None, description="Objects to patch.")


class KustomizeImage(Model):
    """Another name, tag or digest for an image."""

    name: Text = Field(description="Image name without tag.")
    new_name: Text = Field(default="", description="Name to put in its place.")
    new_tag: Text = Field(default="", description="Tag to put in its place.")
    digest: Text = Field(default="", description="Digest to put in place of the tag.")


class KustomizePostRenderer(Model):
    """Kustomize's changes to what the chart renders."""

    patches: tuple[KustomizePatch, ...] = Field(default=(), description="Patches, in order.")
    images: tuple[KustomizeImage, ...] = Field(default=(), description="Images to replace.")


class PostRenderer(Model):
    """One step between rendering and applying."""

    kustomize: KustomizePostRenderer | None = Field(
        default=None, description="Kustomize's patches and images."
    )


class CommonMetadata(Model):
    """Labels and annotations for every object of a release."""

    labels: TextMap = Field(default_factory=dict, description="Labels for every object.")
    annotations: TextMap = Field(default_factory=dict, description="Annotations for every object.")


class WaitStrategy(Model):
    """How helm waits for objects."""

    name: Literal["poller", "legacy"] = Field(
        description="`poller` looks as kstatus does, `legacy` as Helm 3 did."
    )


class ActionStrategy(Model):
    """What a failed install or upgrade leads to."""

    name: StrategyName = Field(
        description="`RemediateOnFailure` follows `remediation`; `RetryOnFailure` tries again, "
        "as an upgrade, without end and without remediation."
    )
    retry_interval: Duration | None = Field(
        default=None,
        description="Time between the tries of `RetryOnFailure`; absent means 5m.",
    )

    @model_validator(mode="after")
    def _interval_of_retry(self) -> Self:
        if self.retry_interval is not None and self.name != "RetryOnFailure":
            raise refuse("`retryInterval` can only be set when `name` is RetryOnFailure")
        return self


class InstallRemediation(Model):
    """What follows a failed install."""

    retries: Count = Field(
        default=0,
        description="How often to try again, with an uninstall before each; negative is endless.",
    )
    ignore_test_failures: Flag | None = Field(
        default=None,
        description="Whether failed tests count as success; absent means `test.ignoreFailures`.",
    )
    remediate_last_failure: Flag | None = Field(
        default=None, description="Whether to uninstall after the last failure; absent means no."
    )


class UpgradeRemediation(Model):
    """What follows a failed upgrade."""

    retries: Count = Field(
        default=0,
        description="How often to try again, with a remediation before each; negative is endless.",
    )
    strategy: Literal["rollback", "uninstall"] = Field(
        default="rollback",
        description="Roll back to the last revision seen healthy, or uninstall.",
    )
    ignore_test_failures: Flag | None = Field(
        default=None,
        description="Whether failed tests count as success; absent means `test.ignoreFailures`.",
    )
    remediate_last_failure: Flag | None = Field(
        default=None,
        description="Whether to remediate after the last failure. Absent: `safe` rolls back "
        "(never uninstalls), `flux` does so only where `retries` is not 0.",
    )


_TIMEOUT = "Time for each operation of helm (a hook, a wait); absent means `spec.timeout`."
_TAKE_OWNERSHIP = (
    "Refuse objects that exist and belong to something else. Absent: `safe` refuses them, `flux` "
    "takes them over."
)


class InstallSpec(Model):
    """How to install."""

    timeout: Duration | None = Field(default=None, description=_TIMEOUT)
    strategy: ActionStrategy | None = Field(
        default=None, description="What a failure leads to; absent means RemediateOnFailure."
    )
    remediation: InstallRemediation = Field(
        default_factory=InstallRemediation, description="What follows a failure."
    )
    crds: CrdsPolicy | None = Field(
        default=None,
        description="What to do with the chart's `crds/`: leave out, create, or create and "
        "replace; absent means Create.",
    )
    replace: Flag = Field(
        default=False, description="Use the name of a release that was uninstalled with history."
    )
    create_namespace: Flag = Field(
        default=False,
        description="Create `targetNamespace` where it does not exist; it is never deleted.",
    )
    disable_hooks: Flag = Field(default=False, description="Do not run the chart's hooks.")
    disable_open_api_validation: Flag = Field(
        default=False,
        alias="disableOpenAPIValidation",
        description="Do not check objects against the API's schemas.",
    )
    disable_schema_validation: Flag = Field(
        default=False, description="Do not check values against the chart's values.schema.json."
    )
    disable_wait: Flag = Field(default=False, description="Do not wait for objects to be ready.")
    disable_wait_for_jobs: Flag = Field(
        default=False, description="Do not wait for Jobs to complete."
    )
    disable_take_ownership: Flag | None = Field(default=None, description=_TAKE_OWNERSHIP)
    server_side_apply: Flag | None = Field(
        default=None,
        description="Server-side apply; absent leaves it to helm (4: yes, 3 has none).",
    )
    skip_crds: Flag = Field(
        default=False, alias="skipCRDs", description="Deprecated: use `crds: Skip`."
    )


class UpgradeSpec(Model):
    """How to upgrade."""

    timeout: Duration | None = Field(default=None, description=_TIMEOUT)
    strategy: ActionStrategy | None = Field(
        default=None, description="What a failure leads to; absent means RemediateOnFailure."
    )
    remediation: UpgradeRemediation = Field(
        default_factory=UpgradeRemediation, description="What follows a failure."
    )
    crds: CrdsPolicy | None = Field(
        default=None, description="What to do with the chart's `crds/`; absent means Skip."
    )
    force: Flag = Field(
        default=False, description="Replace objects; without effect with server-side apply."
    )
    cleanup_on_fail: Flag = Field(
        default=False, description="Delete objects that a failed upgrade created."
    )
    preserve_values: Flag = Field(
        default=False, description="Start from the last revision's values (`--reuse-values`)."
    )
    chart_name_change_strategy: Literal["InPlaceUpdate", "Reinstall"] | None = Field(
        default=None,
        description="What another chart name leads to. Absent: `safe` holds the release, `flux` "
        "means Reinstall, which uninstalls first.",
    )
    disable_hooks: Flag = Field(default=False, description="Do not run the chart's hooks.")
    disable_open_api_validation: Flag = Field(
        default=False,
        alias="disableOpenAPIValidation",
        description="Do not check objects against the API's schemas.",
    )
    disable_schema_validation: Flag = Field(
        default=False, description="Do not check values against the chart's values.schema.json."
    )
    disable_wait: Flag = Field(default=False, description="Do not wait for objects to be ready.")
    disable_wait_for_jobs: Flag = Field(
        default=False, description="Do not wait for Jobs to complete."
    )
    disable_take_ownership: Flag | None = Field(default=None, description=_TAKE_OWNERSHIP)
    server_side_apply: ServerSideApply = Field(
        default="auto", description="Server-side apply; `auto` does as the last revision did."
    )


class TestFilter(Model):
    """One test to run or to leave out."""

    __test__ = False

    name: Name = Field(description="Name of the test.")
    exclude: Flag = Field(default=False, description="Leave it out instead of choosing it.")


class TestSpec(Model):
    """Whether and how to run the chart's tests after an install, upgrade or rollback."""

    __test__ = False

    enable: Flag = Field(default=False, description="Run the chart's tests.")
    timeout: Duration | None = Field(default=None, description=_TIMEOUT)
    ignore_failures: Flag = Field(default=False, description="Failed tests count as success.")
    filters: tuple[TestFilter, ...] = Field(default=(), description="Tests to run or leave out.")


class RollbackSpec(Model):
    """How to roll back."""

    timeout: Duration | None = Field(default=None, description=_TIMEOUT)
    cleanup_on_fail: Flag = Field(
        default=False, description="Delete objects that a failed rollback created."
    )
    force: Flag = Field(
        default=False, description="Replace objects; without effect with server-side apply."
    )
    recreate: Flag = Field(
        default=False, description="Accepted and without effect, as in Flux since 2.8."
    )
    disable_hooks: Flag = Field(default=False, description="Do not run the chart's hooks.")
    disable_wait: Flag = Field(default=False, description="Do not wait for objects to be ready.")
    disable_wait_for_jobs: Flag = Field(
        default=False, description="Do not wait for Jobs to complete."
    )
    server_side_apply: ServerSideApply = Field(
        default="auto", description="Server-side apply; `auto` does as the last revision did."
    )


class UninstallSpec(Model):
    """How to uninstall."""

    timeout: Duration | None = Field(default=None, description=_TIMEOUT)
    keep_history: Flag = Field(default=False, description="Keep the release's history.")
    deletion_propagation: Literal["background", "foreground", "orphan"] = Field(
        default="background", description="What happens to objects that the objects own."
    )
    disable_hooks: Flag = Field(default=False, description="Do not run the chart's hooks.")
    disable_wait: Flag = Field(default=False, description="Do not wait for objects to be gone.")


class HelmReleaseSpec(Model):
    """What a release should be, and how to get there."""

    chart: ChartTemplate | None = Field(
        default=None, description="The chart; either this or `chartRef`."
    )
    chart_ref: ChartRef | None = Field(
        default=None, description="An artifact that is the chart; either this or `chart`."
    )
    interval: Duration = Field(description="How often to look, at the latest.")
    timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="Time for each operation of helm (a hook, a wait).",
    )
    suspend: Flag = Field(default=False, description="Do nothing until this is false again.")
    release_name: (
        Annotated[str, Strict(), StringConstraints(min_length=1, max_length=53)] | None
    ) = Field(
        default=None,
        description="Helm's name of the release; absent means `[targetNamespace-]name`, shortened "
        "with a hash beyond 53 characters.",
    )
    target_namespace: Namespace | None = Field(
        default=None, description="Namespace to release into; absent means the HelmRelease's."
    )
    storage_namespace: Namespace | None = Field(
        default=None,
        description="Namespace of Helm's storage; absent means that of the release.",
    )
    service_account_name: Name | None = Field(default=None, description="ServiceAccount to act as.")
    kube_config: KubeConfig | None = Field(default=None, description="Another cluster.")
    persistent_client: Flag = Field(
        default=True, description="Accepted and without effect: helm is a process of its own."
    )
    max_history: Count = Field(
        default=5,
        description="Revisions to keep, the last healthy one always; 0 keeps all.",
    )
    depends_on: tuple[DependsOn, ...] = Field(
        default=(), description="HelmReleases that must be ready first."
    )
    values: dict[str, Any] | None = Field(
        default=None, repr=False, description="Values, merged over those of `valuesFrom`."
    )
    values_from: tuple[ValuesReference, ...] = Field(
        default=(), description="Values from elsewhere, merged in order."
    )
    common_metadata: CommonMetadata | None = Field(
        default=None, description="Labels and annotations for every object."
    )
    post_renderers: tuple[PostRenderer, ...] = Field(
        default=(), description="Steps between rendering and applying, in order."
    )
    post_render_strategy: Literal["nohooks", "combined", "separate"] | None = Field(
        default=None,
        description="Whether hooks go through the post-renderers and `commonMetadata`: not, with "
        "the other objects, or by themselves. Absent means `combined`; with helm 3, `nohooks`.",
    )
    wait_strategy: WaitStrategy | None = Field(
        default=None, description="How helm waits; absent means poller."
    )
    health_check_exprs: tuple[HealthCheckExpr, ...] = Field(
        default=(), description="How to tell the health of custom objects, in CEL."
    )
    drift_detection: DriftDetection | None = Field(
        default=None, description="What to do about drift."
    )
    install: InstallSpec = Field(default_factory=InstallSpec, description="How to install.")
    upgrade: UpgradeSpec = Field(default_factory=UpgradeSpec, description="How to upgrade.")
    test: TestSpec = Field(
        default_factory=TestSpec, description="The chart's tests after an action."
    )
    rollback: RollbackSpec = Field(default_factory=RollbackSpec, description="How to roll back.")
    uninstall: UninstallSpec = Field(default_factory=UninstallSpec, description="How to uninstall.")

    @model_validator(mode="after")
    def _one_chart(self) -> Self:
        if (self.chart is None) == (self.chart_ref is None):
            raise refuse("exactly one of `chart` and `chartRef` must be set")
        return self


class HelmRelease(Resource):
    """A Helm release, as it should be."""

    api_group: ClassVar[str] = "helm.toolkit.fluxcd.io"
    versions: ClassVar[tuple[str, ...]] = ("v2",)

    spec: HelmReleaseSpec = Field(description="What the release should be.")

    @property
    def release_id(self) -> ReleaseId:
        """What helm knows the release by.

        As in Flux (`release.ShortenName`): a name beyond 53 characters is cut to 40, with 12
        digits of its SHA-256 behind it.
        """
        spec = self.spec
        name = spec.release_name or "-".join(
            part for part in (spec.target_namespace, self.metadata.name) if part
        )
        if len(name) > _LONGEST_RELEASE_NAME:
            name = f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        return ReleaseId(spec.target_namespace or self.metadata.namespace, name)
