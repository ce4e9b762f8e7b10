"""Who is told of what: Alert and Provider (v1beta3), Receiver (v1)."""

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
    Name,
    Resource,
    Text,
    TextMap,
    refuse,
)

EventSourceKind = Literal[
    "Bucket",
    "GitRepository",
    "Kustomization",
    "HelmRelease",
    "HelmChart",
    "HelmRepository",
    "ImageRepository",
    "ImagePolicy",
    "ImageUpdateAutomation",
    "OCIRepository",
    "ArtifactGenerator",
    "ExternalArtifact",
]

ProviderType = Literal[
    "slack",
    "discord",
    "msteams",
    "rocket",
    "generic",
    "generic-hmac",
    "github",
    "gitlab",
    "gitea",
    "giteapullrequestcomment",
    "bitbucketserver",
    "bitbucket",
    "azuredevops",
    "googlechat",
    "googlepubsub",
    "webex",
    "sentry",
    "azureeventhub",
    "telegram",
    "lark",
    "matrix",
    "opsgenie",
    "alertmanager",
    "grafana",
    "githubdispatch",
    "githubpullrequestcomment",
    "gitlabmergerequestcomment",
    "pagerduty",
    "datadog",
    "nats",
    "zulip",
    "otel",
    "zoom",
    "incident.io",
]

_COMMIT_STATUS = frozenset(
    {"github", "gitlab", "gitea", "bitbucketserver", "bitbucket", "azuredevops"}
)

LongText = Annotated[str, Strict(), StringConstraints(max_length=2048)]


#: Of the Flux operator, which has an Alert's schema of its own: repositories name them.
AlertKind = Literal[
    EventSourceKind, "FluxInstance", "FluxReport", "ResourceSet", "ResourceSetInputProvider"
]


class EventSource(Model):
    """Objects whose events an Alert is about."""

    api_version: Text = Field(default="", description="API version of the objects; not needed.")
    kind: AlertKind = Field(description="Kind of the objects; only HelmReleases have events here.")
    name: Name = Field(description="Name of the object, or `*` for all.")
    namespace: Name | None = Field(
        default=None, description="Their namespace; absent means the Alert's."
    )
    match_labels: TextMap = Field(
        default_factory=dict, description="Labels to have, where `name` is `*`."
    )


class AlertSpec(Model):
    """Which events go to which provider."""

    provider_ref: LocalRef = Field(description="The Provider, in the same namespace.")
    event_severity: Literal["info", "error"] = Field(
        default="info", description="`error` leaves out events of severity info."
    )
    event_sources: tuple[EventSource, ...] = Field(description="Whose events.")
    event_metadata: TextMap = Field(
        default_factory=dict, description="Added to each event's metadata."
    )
    inclusion_list: tuple[Text, ...] = Field(
        default=(), description="Only messages that match one of these regular expressions."
    )
    exclusion_list: tuple[Text, ...] = Field(
        default=(), description="No messages that match one of these regular expressions."
    )
    summary: Annotated[str, Strict(), StringConstraints(max_length=255)] | None = Field(
        default=None, description="Deprecated: use `eventMetadata.summary`."
    )
    suspend: Flag = Field(default=False, description="Send nothing until this is false again.")


class Alert(Resource):
    """Which events go to which provider."""

    api_group: ClassVar[str] = "notification.toolkit.fluxcd.io"
    versions: ClassVar[tuple[str, ...]] = ("v1beta3",)

    spec: AlertSpec = Field(description="Which events go where.")


class ProviderSpec(Model):
    """Where events are sent, and as what."""

    type: ProviderType = Field(
        description="Kind of receiver; `generic` is a webhook, `generic-hmac` signs it."
    )
    address: LongText = Field(
        default="", repr=False, description="Address; a Secret's `address` wins over it."
    )
    channel: LongText = Field(default="", description="Channel to post to.")
    username: LongText = Field(default="", description="Name to post as.")
    secret_ref: LocalRef | None = Field(
        default=None,
        description="Secret with `token` (the key of generic-hmac), `username` and `password`, "
        "`address` or `headers`.",
    )
    cert_secret_ref: LocalRef | None = Field(
        default=None,
        description="Secret with `tls.crt` and `tls.key` (client certificate) and `ca.crt`.",
    )
    proxy_secret_ref: LocalRef | None = Field(default=None, description="Secret with a proxy.")
    proxy: Annotated[
        str, Strict(), StringConstraints(max_length=2048, pattern=r"^(http|https)://.*$")
    ] = Field(default="", repr=False, description="Deprecated: use `proxySecretRef`.")
    service_account_name: Text | None = Field(
        default=None, description="ServiceAccount whose cloud identity to use."
    )
    timeout: HourlessDuration = Field(
        default=timedelta(seconds=15), description="Time for sending one event."
    )
    interval: Duration | None = Field(
        default=None, description="Deprecated, accepted and without effect, as in Flux."
    )
    suspend: Flag = Field(default=False, description="Send nothing until this is false again.")
    commit_status_expr: Text | None = Field(
        default=None, description="CEL that makes the id of a commit status."
    )

    @model_validator(mode="after")
    def _expression_of_commit_status(self) -> Self:
        if self.commit_status_expr is not None and self.type not in _COMMIT_STATUS:
            raise refuse(
                "`commitStatusExpr` is only supported for the types "
                + ", ".join(sorted(_COMMIT_STATUS))
            )
        return self


class Provider(Resource):
    """Where events are sent."""

    api_group: ClassVar[str] = "notification.toolkit.fluxcd.io"
    versions: ClassVar[tuple[str, ...]] = ("v1beta3",)

    spec: ProviderSpec = Field(description="Where events are sent.")


class ReceiverResource(Model):
    """Objects to reconcile when a webhook comes in."""

    api_version: Text = Field(default="", description="API version of the objects; not needed.")
    kind: EventSourceKind = Field(description="Kind of the objects.")
    name: Name = Field(description="Name of the object, or `*` for all.")
    namespace: Name | None = Field(
        default=None, description="Their namespace; absent means the Receiver's."
    )
    match_labels: TextMap = Field(
        default_factory=dict, description="Labels to have, where `name` is `*`."
    )
    filter: Text | None = Field(default=None, description="CEL that chooses among them.")


class OidcVariable(Model):
    """A named expression over a token's claims."""

    name: Text = Field(description="Name to use it by.")
    expression: Text = Field(description="CEL.")


class OidcValidation(Model):
    """A condition that a token must meet."""

    expression: Text = Field(description="CEL that must be true.")
    message: Text = Field(description="What to say when it is not.")


class OidcProvider(Model):
    """Whose tokens a Receiver takes."""

    issuer_url: Annotated[str, Strict(), StringConstraints(pattern=r"^https?://")] = Field(
        alias="issuerURL", description="Issuer of the tokens."
    )
    audience: Text | None = Field(default=None, description="Audience of the tokens.")
    variables: tuple[OidcVariable, ...] = Field(
        default=(), description="Named expressions for the validations."
    )
    validations: tuple[OidcValidation, ...] = Field(
        min_length=1, description="Conditions that a token must meet."
    )


class ReceiverSpec(Model):
    """A webhook that makes objects reconcile."""

    type: Literal[
        "generic",
        "generic-hmac",
        "generic-oidc",
        "github",
        "gitlab",
        "bitbucket",
        "harbor",
        "dockerhub",
        "quay",
        "gcr",
        "nexus",
        "acr",
        "cdevents",
    ] = Field(description="Kind of sender.")
    resources: tuple[ReceiverResource, ...] = Field(description="Objects to reconcile.")
    resource_filter: Text | None = Field(
        default=None, description="CEL that chooses among the objects."
    )
    events: tuple[Text, ...] = Field(default=(), description="Events to act on; absent: all.")
    secret_ref: LocalRef | None = Field(default=None, description="Secret with the `token`.")
    oidc_providers: tuple[OidcProvider, ...] = Field(
        default=(), description="Whose tokens are taken (generic-oidc)."
    )
    interval: Duration = Field(
        default=timedelta(minutes=10), description="How often to look at this declaration."
    )
    suspend: Flag = Field(default=False, description="Take nothing until this is false again.")

    @model_validator(mode="after")
    def _authentication_of_type(self) -> Self:
        issuers = [provider.issuer_url for provider in self.oidc_providers]
        if len(issuers) != len(set(issuers)):
            raise refuse("`oidcProviders` names an `issuerURL` twice")
        if self.type == "generic-oidc":
            if not self.oidc_providers:
                raise refuse("`oidcProviders` is required when `type` is generic-oidc")
            if self.secret_ref is not None:
                raise refuse("`secretRef` cannot be set when `type` is generic-oidc")
        else:
            if self.oidc_providers:
                raise refuse("`oidcProviders` can only be set when `type` is generic-oidc")
            if self.secret_ref is None:
                raise refuse("`secretRef` is required unless `type` is generic-oidc")
        return self


class Receiver(Resource):
    """A webhook that makes objects reconcile."""

    api_group: ClassVar[str] = "notification.toolkit.fluxcd.io"
    versions: ClassVar[tuple[str, ...]] = ("v1",)

    spec: ReceiverSpec = Field(description="The webhook.")
