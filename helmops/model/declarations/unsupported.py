"""Fields that are understood and not acted on yet: ignoring one could do harm.

Accepted without effect, because nothing follows from them: `persistentClient`,
`rollback.recreate`, `chart.metadata`, `HelmRepository.accessFrom`, `postRenderStrategy` without
`postRenderers`, `driftDetection` with mode `disabled`, `Provider.interval`, events of kinds other
than HelmRelease in an Alert. What a helm version has no flag for is the helm adapter's to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from helmops.model.declarations.base import Resource
from helmops.model.declarations.helm_release import (
    ChartTemplateSpec,
    ChartVerification,
    HelmRelease,
)
from helmops.model.declarations.kustomization import (
    FILE_SOURCES,
    Kustomization,
    KustomizationSpec,
)
from helmops.model.declarations.notification import Provider, ProviderSpec, Receiver
from helmops.model.declarations.policy import ReleasePolicy
from helmops.model.declarations.sources import (
    Bucket,
    GitRepository,
    GitRepositorySpec,
    HelmChart,
    HelmChartSpec,
    HelmChartVerification,
    HelmRepository,
    HelmRepositorySpec,
    OCIRepository,
    OCIRepositorySpec,
    OCIVerification,
)
from helmops.model.documents import Path

#: A place in a document and what about it is not acted on.
Unsupported = tuple[Path, str]


def unsupported_places(resource: Resource) -> Iterator[Unsupported]:
    """Every place of a declaration that is not acted on yet, in the order of the document."""
    match resource:
        case HelmRelease():
            for path, what in _of_release(resource):
                yield ("spec", *path), what
        case HelmRepository():
            yield from _under_spec(_of_helm_repository(resource.spec))
        case GitRepository():
            yield from _under_spec(_of_git_repository(resource.spec))
        case Kustomization():
            yield from _under_spec(_of_kustomization(resource.spec))
        case Provider():
            yield from _under_spec(_of_provider(resource.spec))
        case HelmChart():
            yield from _under_spec(_of_helm_chart(resource.spec))
        case OCIRepository():
            yield from _under_spec(_of_oci_repository(resource.spec))
        case Bucket() | Receiver():
            yield ("kind",), f"{resource.kind} is not acted on yet"
        case _:
            return


#: Of a hook with a command, where helmops was not told to run any.
COMMANDS_NOT_ALLOWED = (
    "helmops was not started with --allow-commands (HELMOPS_ALLOW_COMMANDS), so it runs none"
)


def command_places(policy: ReleasePolicy) -> Iterator[Unsupported]:
    """Every hook with a command, which only some installations run."""
    for position, hook in enumerate(policy.spec.remediation.hooks):
        if hook.command is not None:
            yield ("spec", "remediation", "hooks", position, "command"), COMMANDS_NOT_ALLOWED


def chart_places(repository: OCIRepository) -> Iterator[Unsupported]:
    """What is acted on where an artifact is files, and not where it is a chart."""
    selector = repository.spec.layer_selector
    copies = selector is not None and selector.operation == "copy"
    if repository.spec.ignore is not None and not copies:
        yield ("spec", "ignore"), "not acted on yet where the artifact is a chart"


def _under_spec(places: Iterator[Unsupported]) -> Iterator[Unsupported]:
    for path, what in places:
        yield ("spec", *path), what


def _set_fields(places: dict[Path, object]) -> Iterator[Unsupported]:
    for path, value in places.items():
        if value:
            yield path, "not acted on yet"


def _of_release(release: HelmRelease) -> Iterator[Unsupported]:
    spec = release.spec
    yield from _set_fields(
        {
            ("serviceAccountName",): spec.service_account_name,
            ("kubeConfig",): spec.kube_config,
        }
    )
    if spec.chart_ref is not None and spec.chart_ref.kind == "ExternalArtifact":
        yield ("chartRef",), f"`{spec.chart_ref.kind}` is not acted on yet"
    if spec.chart is not None:
        yield from _of_chart(spec.chart.spec)
    release_namespace = spec.target_namespace or release.metadata.namespace
    if spec.storage_namespace not in (None, release_namespace):
        yield (
            ("storageNamespace",),
            f"helm keeps its storage in the release's namespace, here `{release_namespace}`",
        )
    if spec.drift_detection is not None and spec.drift_detection.mode != "disabled":
        yield ("driftDetection", "mode"), f"`{spec.drift_detection.mode}` is not acted on yet"
    if spec.install.crds == "CreateReplace":
        yield ("install", "crds"), "`CreateReplace` is not acted on yet, `Create` and `Skip` are"
    if spec.upgrade.crds not in (None, "Skip"):
        yield ("upgrade", "crds"), f"`{spec.upgrade.crds}` is not acted on yet, `Skip` is"


def _of_chart(chart: ChartTemplateSpec) -> Iterator[Unsupported]:
    if chart.source_ref.kind == "Bucket":
        yield ("chart", "spec", "sourceRef", "kind"), "`Bucket` is not acted on yet"
    for path, what in _of_signature(chart.verify):
        yield ("chart", "spec", *path), what


def _of_helm_chart(chart: HelmChartSpec) -> Iterator[Unsupported]:
    if chart.source_ref.kind == "Bucket":
        yield ("sourceRef", "kind"), "`Bucket` is not acted on yet"
    yield from _of_signature(chart.verify)
    if chart.verify is not None and chart.verify.match_oidc_identity:
        yield ("verify", "matchOIDCIdentity"), "not acted on yet"


def _of_signature(
    verify: ChartVerification | HelmChartVerification | OCIVerification | None,
) -> Iterator[Unsupported]:
    if verify is None:
        return
    if verify.provider != "cosign":
        yield ("verify", "provider"), f"`{verify.provider}` is not acted on yet"
    elif verify.secret_ref is None:
        yield ("verify",), "signatures without a key are not acted on yet; set `secretRef`"


def _of_helm_repository(spec: HelmRepositorySpec) -> Iterator[Unsupported]:
    if spec.provider != "generic":
        yield ("provider",), f"`{spec.provider}` is not acted on yet"


def _of_oci_repository(spec: OCIRepositorySpec) -> Iterator[Unsupported]:
    if spec.provider != "generic":
        yield ("provider",), f"`{spec.provider}` is not acted on yet"
    yield from _set_fields({("serviceAccountName",): spec.service_account_name})
    yield from _of_signature(spec.verify)
    if spec.verify is not None:
        yield from _set_fields(
            {
                ("verify", "matchOIDCIdentity"): spec.verify.match_oidc_identity,
                ("verify", "trustedRootSecretRef"): spec.verify.trusted_root_secret_ref,
            }
        )


def _of_git_repository(spec: GitRepositorySpec) -> Iterator[Unsupported]:
    if spec.provider != "generic":
        yield ("provider",), f"`{spec.provider}` is not acted on yet"
    yield from _set_fields(
        {
            ("serviceAccountName",): spec.service_account_name,
        }
    )


def _of_kustomization(spec: KustomizationSpec) -> Iterator[Unsupported]:
    if spec.source_ref.kind not in FILE_SOURCES:
        acted_on = " and ".join(f"`{kind}`" for kind in FILE_SOURCES)
        yield (
            ("sourceRef", "kind"),
            f"`{spec.source_ref.kind}` is not acted on yet, {acted_on} are",
        )
    yield from _set_fields(
        {
            ("kubeConfig",): spec.kube_config,
            ("serviceAccountName",): spec.service_account_name,
            ("decryption", "serviceAccountName"): spec.decryption
            and spec.decryption.service_account_name,
        }
    )
    for position, dependency in enumerate(spec.depends_on):
        if dependency.ready_expr:
            yield ("dependsOn", position, "readyExpr"), "not acted on yet"


def _of_provider(spec: ProviderSpec) -> Iterator[Unsupported]:
    if spec.type not in ("generic", "generic-hmac"):
        yield ("type",), f"`{spec.type}` is not acted on yet, `generic` and `generic-hmac` are"
    yield from _set_fields(
        {
            ("proxySecretRef",): spec.proxy_secret_ref,
            ("proxy",): spec.proxy,
            ("serviceAccountName",): spec.service_account_name,
            ("commitStatusExpr",): spec.commit_status_expr,
        }
    )
