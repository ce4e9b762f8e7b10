"""Where charts come from: the kinds of `source.toolkit.fluxcd.io/v1`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from helmops.model.declarations.base import (
    Duration,
    Flag,
    HourlessDuration,
    LocalRef,
    Model,
    Resource,
    Text,
    TextMap,
    refuse,
)

_INTERVAL = "How often to ask the source for news."
_TIMEOUT = "Time for one operation against the source."
_SUSPEND = "Do not ask the source until this is false again."
_CERTIFICATES = "Secret with `tls.crt` and `tls.key` (client certificate) and `ca.crt` (own CA)."
_PROXY = "Secret with a proxy's `address`, `username` and `password`."
_PROVIDER = "Which cloud's credentials to use; `generic` means `secretRef`."
_SERVICE_ACCOUNT = "ServiceAccount whose cloud identity to use."
_IGNORE = "Files to leave out, in the syntax of .gitignore."
_MINUTE = timedelta(minutes=1)


class Source(Resource):
    """Base of the kinds that charts come from."""

    api_group: ClassVar[str] = "source.toolkit.fluxcd.io"
    versions: ClassVar[tuple[str, ...]] = ("v1",)


class NamespaceSelector(Model):
    """Namespaces by their labels."""

    match_labels: TextMap = Field(default_factory=dict, description="Labels to have.")


class AccessFrom(Model):
    """Who may refer to a source; Flux never implemented it."""

    namespace_selectors: tuple[NamespaceSelector, ...] = Field(
        description="Namespaces that may refer to the source."
    )


class OidcIdentity(Model):
    """Who must have signed."""

    issuer: Text = Field(description="Issuer (regular expression).")
    subject: Text = Field(description="Subject (regular expression).")


class HelmRepositorySpec(Model):
    """A chart repository with an index.yaml over HTTP, or a registry (`oci`)."""

    url: Annotated[str, Strict(), StringConstraints(pattern=r"^(http|https|oci)://.*$")] = Field(
        description="Address; `oci://` for registries."
    )
    type: Literal["default", "oci"] | None = Field(
        default=None, description="`default` has an index.yaml, `oci` is a registry."
    )
    interval: Duration = Field(default=_MINUTE, description=_INTERVAL)
    timeout: HourlessDuration = Field(default=_MINUTE, description=_TIMEOUT)
    suspend: Flag = Field(default=False, description=_SUSPEND)
    secret_ref: LocalRef | None = Field(
        default=None, description="Secret with `username` and `password`."
    )
    cert_secret_ref: LocalRef | None = Field(default=None, description=_CERTIFICATES)
    pass_credentials: Flag = Field(
        default=False,
        description="Send the credentials to other hosts, too, that the index names.",
    )
    insecure: Flag = Field(default=False, description="Plain HTTP, for registries.")
    provider: Literal["generic", "aws", "azure", "gcp"] = Field(
        default="generic", description=_PROVIDER
    )
    access_from: AccessFrom | None = Field(
        default=None, description="Accepted and without effect, as in Flux."
    )


class HelmRepository(Source):
    """A chart repository."""

    spec: HelmRepositorySpec = Field(description="The repository.")


class GitRef(Model):
    """Which revision; the first that is set counts: commit, name, semver, tag, branch."""

    branch: Text = Field(default="", description="Branch; absent means master.")
    tag: Text = Field(default="", description="Tag.")
    semver: Text = Field(default="", description="The newest tag in this version range.")
    name: Text = Field(default="", description="Full reference name, as `refs/pull/4/head`.")
    commit: Text = Field(default="", description="Commit, by its full hash.")


class GitVerification(Model):
    """Signature check of commits and tags."""

    mode: Literal["head", "HEAD", "Tag", "TagAndHEAD"] = Field(
        default="HEAD", description="What must be signed."
    )
    secret_ref: LocalRef = Field(description="Secret with the trusted public keys.")


class GitInclude(Model):
    """Another repository's files within this one's."""

    repository: LocalRef = Field(description="The other GitRepository.")
    from_path: Text = Field(default="", description="Path in it; absent means its root.")
    to_path: Text = Field(default="", description="Path in this one; absent means its name.")


class GitRepositorySpec(Model):
    """A Git repository with charts or values files."""

    url: Annotated[str, Strict(), StringConstraints(pattern=r"^(http|https|ssh|file)://.*$")] = (
        Field(description="Address: `https://`, `http://`, `ssh://` or (helmops' own) `file://`.")
    )
    ref: GitRef = Field(
        default_factory=GitRef, description="Which revision; absent means the branch master."
    )
    interval: Duration = Field(description=_INTERVAL)
    timeout: HourlessDuration = Field(default=_MINUTE, description=_TIMEOUT)
    suspend: Flag = Field(default=False, description=_SUSPEND)
    secret_ref: LocalRef | None = Field(
        default=None,
        description="Secret with `username` and `password`, or `bearerToken`, or `identity` and "
        "`known_hosts`; `ca.crt` for an own CA.",
    )
    provider: Literal["generic", "aws", "azure", "github"] = Field(
        default="generic", description=_PROVIDER
    )
    service_account_name: Text | None = Field(default=None, description=_SERVICE_ACCOUNT)
    verify: GitVerification | None = Field(
        default=None, description="Signature check of commits and tags."
    )
    proxy_secret_ref: LocalRef | None = Field(default=None, description=_PROXY)
    ignore: Text | None = Field(default=None, description=_IGNORE)
    recurse_submodules: Flag = Field(default=False, description="Fetch submodules, too.")
    include: tuple[GitInclude, ...] = Field(
        default=(), description="Other repositories' files within this one's."
    )
    sparse_checkout: tuple[Text, ...] = Field(
        default=(), description="Directories to check out; absent means all."
    )

    @model_validator(mode="after")
    def _service_account_of_cloud(self) -> Self:
        if self.service_account_name is not None and self.provider not in ("azure", "aws"):
            raise refuse("`serviceAccountName` can only be set when `provider` is azure or aws")
        return self


class GitRepository(Source):
    """A Git repository."""

    spec: GitRepositorySpec = Field(description="The repository.")


class OCIRef(Model):
    """Which artifact; the first that is set counts: digest, semver, tag."""

    tag: Text = Field(default="", description="Tag; absent means latest.")
    semver: Text = Field(default="", description="The newest tag in this version range.")
    semver_filter: Text = Field(
        default="", description="Tags that `semver` looks at (regular expression)."
    )
    digest: Text = Field(default="", description="Digest, `sha256:…`.")


class OCILayerSelector(Model):
    """Which layer of an artifact, and what to do with it."""

    media_type: Text = Field(default="", description="Media type of the layer.")
    operation: Literal["extract", "copy"] = Field(
        default="extract", description="Unpack the layer, or take it as it is."
    )


class OCIVerification(Model):
    """Signature check of an artifact."""

    provider: Literal["cosign", "notation"] = Field(
        default="cosign", description="How the artifact was signed."
    )
    secret_ref: LocalRef | None = Field(
        default=None, description="Secret with the trusted public keys."
    )
    match_oidc_identity: tuple[OidcIdentity, ...] = Field(
        default=(), alias="matchOIDCIdentity", description="Who must have signed, keyless."
    )
    trusted_root_secret_ref: LocalRef | None = Field(
        default=None, description="Secret with an own `trusted_root.json`."
    )


class OCIRepositorySpec(Model):
    """An artifact in a registry."""

    url: Annotated[str, Strict(), StringConstraints(pattern=r"^oci://.*$")] = Field(
        description="Address without tag."
    )
    ref: OCIRef = Field(default_factory=OCIRef, description="Which artifact.")
    layer_selector: OCILayerSelector | None = Field(default=None, description="Which layer.")
    provider: Literal["generic", "aws", "azure", "gcp"] = Field(
        default="generic", description=_PROVIDER
    )
    secret_ref: LocalRef | None = Field(
        default=None, description="Secret of type kubernetes.io/dockerconfigjson."
    )
    service_account_name: Text | None = Field(default=None, description=_SERVICE_ACCOUNT)
    cert_secret_ref: LocalRef | None = Field(default=None, description=_CERTIFICATES)
    proxy_secret_ref: LocalRef | None = Field(default=None, description=_PROXY)
    interval: Duration = Field(description=_INTERVAL)
    timeout: HourlessDuration = Field(default=_MINUTE, description=_TIMEOUT)
    insecure: Flag = Field(default=False, description="Plain HTTP.")
    ignore: Text | None = Field(default=None, description=_IGNORE)
    suspend: Flag = Field(default=False, description=_SUSPEND)
    verify: OCIVerification | None = Field(default=None, description="Signature check.")


class OCIRepository(Source):
    """An artifact in a registry."""

    spec: OCIRepositorySpec = Field(description="The artifact.")


class LocalSourceRef(Model):
    """A source in the same namespace."""

    api_version: Text = Field(default="", description="API version of the source; not needed.")
    kind: Literal["HelmRepository", "GitRepository", "Bucket"] = Field(
        description="Kind of the source."
    )
    name: Text = Field(description="Name of the source.")


class HelmChartVerification(Model):
    """Signature check of a chart."""

    provider: Literal["cosign", "notation"] = Field(
        default="cosign", description="How the chart was signed."
    )
    secret_ref: LocalRef | None = Field(
        default=None, description="Secret with the trusted public keys."
    )
    match_oidc_identity: tuple[OidcIdentity, ...] = Field(
        default=(), alias="matchOIDCIdentity", description="Who must have signed, keyless."
    )


class HelmChartSpec(Model):
    """A chart in a source, for `chartRef`."""

    chart: Text = Field(description="Name of the chart, or its path in the source.")
    version: Text = Field(default="*", description="Version range in Helm's language.")
    source_ref: LocalSourceRef = Field(description="Where the chart is.")
    interval: Duration = Field(description=_INTERVAL)
    reconcile_strategy: Literal["ChartVersion", "Revision"] = Field(
        default="ChartVersion", description="What makes a new artifact."
    )
    values_files: tuple[Text, ...] = Field(
        default=(), description="Files that replace the chart's values.yaml, merged in order."
    )
    ignore_missing_values_files: Flag = Field(
        default=False, description="Pass over files in `valuesFiles` that are not there."
    )
    suspend: Flag = Field(default=False, description=_SUSPEND)
    verify: HelmChartVerification | None = Field(default=None, description="Signature check.")

    @model_validator(mode="after")
    def _verify_of_repository(self) -> Self:
        if self.verify is not None and self.source_ref.kind != "HelmRepository":
            raise refuse("`verify` is only supported when `sourceRef.kind` is HelmRepository")
        return self


class HelmChart(Source):
    """A chart in a source, for `chartRef`."""

    spec: HelmChartSpec = Field(description="The chart.")


class BucketSts(Model):
    """A security token service that gives a bucket's credentials."""

    provider: Literal["aws", "ldap"] = Field(description="Kind of service.")
    endpoint: Annotated[str, Strict(), StringConstraints(pattern=r"^(http|https)://.*$")] = Field(
        description="Address of the service."
    )
    secret_ref: LocalRef | None = Field(default=None, description="Secret for the service.")
    cert_secret_ref: LocalRef | None = Field(default=None, description=_CERTIFICATES)


class BucketSpec(Model):
    """A bucket in an object store."""

    bucket_name: Text = Field(description="Name of the bucket.")
    endpoint: Text = Field(description="Address of the store.")
    provider: Literal["generic", "aws", "gcp", "azure"] = Field(
        default="generic", description="Kind of store; `generic` speaks S3."
    )
    region: Text = Field(default="", description="Region of the bucket.")
    prefix: Text = Field(default="", description="Prefix of the objects to take.")
    sts: BucketSts | None = Field(default=None, description="Security token service.")
    secret_ref: LocalRef | None = Field(
        default=None, description="Secret with `accesskey` and `secretkey`."
    )
    service_account_name: Text | None = Field(default=None, description=_SERVICE_ACCOUNT)
    cert_secret_ref: LocalRef | None = Field(default=None, description=_CERTIFICATES)
    proxy_secret_ref: LocalRef | None = Field(default=None, description=_PROXY)
    insecure: Flag = Field(default=False, description="Plain HTTP.")
    interval: Duration = Field(description=_INTERVAL)
    timeout: HourlessDuration = Field(default=_MINUTE, description=_TIMEOUT)
    ignore: Text | None = Field(default=None, description=_IGNORE)
    suspend: Flag = Field(default=False, description=_SUSPEND)

    @model_validator(mode="after")
    def _credentials_of_provider(self) -> Self:
        if self.sts is not None:
            if self.provider not in ("aws", "generic"):
                raise refuse("`sts` is only supported for the providers aws and generic")
            if self.provider == "aws" and self.sts.provider != "aws":
                raise refuse("`sts.provider` must be aws for the provider aws")
            if self.provider == "generic" and self.sts.provider != "ldap":
                raise refuse("`sts.provider` must be ldap for the provider generic")
            if self.sts.provider == "aws" and self.sts.secret_ref is not None:
                raise refuse("`sts.secretRef` is not for the STS provider aws")
            if self.sts.provider == "aws" and self.sts.cert_secret_ref is not None:
                raise refuse("`sts.certSecretRef` is not for the STS provider aws")
        if self.service_account_name is not None:
            if self.provider == "generic":
                raise refuse("`serviceAccountName` is not supported for the provider generic")
            if self.secret_ref is not None:
                raise refuse("`secretRef` and `serviceAccountName` cannot both be set")
        return self


class Bucket(Source):
    """A bucket in an object store."""

    spec: BucketSpec = Field(description="The bucket.")
