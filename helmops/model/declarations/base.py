"""What all declarations share: the base model, Go durations, metadata and plain references."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from helmops.model.releases import DeclarationKey

#: What the CRDs ask of a duration; Go's `us` and `ns` are not in it.
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
#: Go counts nanoseconds in an int64: 292 years.
_LONGEST = timedelta(microseconds=(2**63 - 1) // 1000)


def parse_duration(text: object) -> timedelta:
    """Read a duration in Go's syntax, `1h30m` or `500ms`, to microseconds.

    A timedelta is given back as it is. Raises ValueError for everything else.
    """
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str):
        raise PydanticCustomError("duration", "must be a duration such as `5m` or `1h30m`")
    if not _DURATION.fullmatch(text):
        raise PydanticCustomError(
            "duration",
            "is not a duration: write numbers with units ms, s, m or h, such as `90s` or `1h30m`",
        )
    micros = sum(
        _exact_microseconds(number, _MICROSECONDS[unit])
        for number, unit in _DURATION_PART.findall(text)
    )
    if micros > _LONGEST // timedelta(microseconds=1):
        raise PydanticCustomError("duration", "is longer than 292 years, the most that Go holds")
    return timedelta(microseconds=micros)


def _longer_than_nothing(duration: timedelta) -> timedelta:
    if not duration:
        raise PydanticCustomError("duration", "must be longer than 0s")
    return duration


def _exact_microseconds(number: str, unit: int) -> int:
    """Whole microseconds of `1.5` units, without the rounding of floats."""
    whole, _, fraction = number.partition(".")
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def format_duration(duration: timedelta, *, hours: bool = True) -> str:
    """Write a duration as Go prints it (`5m0s`, `1h30m0s`, `500ms`), in units the CRDs accept."""
    micros = duration // timedelta(microseconds=1)
    if micros < 0:
        raise ValueError("a declared duration is never negative")
    if 0 < micros < 1_000_000:
        return f"{_decimal(micros, 3)}ms"
    minutes, rest = divmod(micros, 60_000_000)
    text = f"{_decimal(rest, 6)}s"
    if hours and minutes >= 60:
        return f"{minutes // 60}h{minutes % 60}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(amount: int, places: int) -> str:
    whole, fraction = divmod(amount, 10**places)
    return f"{whole}.{fraction:0{places}d}".rstrip("0").rstrip(".") if fraction else str(whole)


def _integral(number: object) -> object:
    """JSON has one kind of number: `5.0` is an integer, `true` and `"5"` are none."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number


#: A duration in Go's syntax.
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
#: One that is longer than nothing.
PositiveDuration = Annotated[Duration, AfterValidator(_longer_than_nothing)]
#: The same where the CRDs know no hours (timeouts of sources): written without them.
HourlessDuration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(partial(format_duration, hours=False), return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
#: A string that is one in the document: `1.0` and `yes` without quotes are not.
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), BeforeValidator(_integral)]
#: A name that Flux bounds to 253 characters.
Name = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=253)]
#: A namespace's name.
Namespace = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=63)]
#: Names and values of labels and annotations, and other plain maps.
TextMap = dict[Text, Text]

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#: What the API server asks of an object's name (RFC 1123 subdomain).
ObjectName = Annotated[
    str,
    Strict(),
    StringConstraints(min_length=1, max_length=253, pattern=rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$"),
]
#: What it asks of a namespace's name (RFC 1123 label).
NamespaceName = Annotated[
    str, Strict(), StringConstraints(min_length=1, max_length=63, pattern=rf"^{_DNS_LABEL}$")
]


class Model(BaseModel):
    """Base of everything declared: frozen, unknown fields refused, camelCase in documents.

    A field that is `null` counts as absent, as the API server has it. Validation errors never
    repeat what was given: it may be a secret.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
        # Most commands need few of the models: build each when it is first used.
        defer_build=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: object) -> object:
        if isinstance(data, dict):
            return {name: value for name, value in data.items() if value is not None}
        return data

    def manifest(self) -> dict[str, Any]:
        """What was declared, as plain data with the documents' names; defaults are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Metadata(Model):
    """An object's metadata; what only a cluster fills in is accepted and not used."""

    name: ObjectName = Field(description="Name, unique in its namespace and kind.")
    namespace: NamespaceName = Field(
        default="", description="Namespace; where absent, that of `-n/--namespace`."
    )
    labels: TextMap = Field(default_factory=dict, description="Labels, for selectors.")
    annotations: TextMap = Field(
        default_factory=dict, description="Annotations, such as requests to reconcile."
    )
    uid: Text = Field(default="", description="Set by a cluster; not used.")
    resource_version: Text = Field(default="", description="Set by a cluster; not used.")
    generation: Count | None = Field(default=None, description="Set by a cluster; not used.")
    creation_timestamp: Text = Field(default="", description="Set by a cluster; not used.")
    deletion_timestamp: Text = Field(default="", description="Set by a cluster; not used.")
    deletion_grace_period_seconds: Count | None = Field(
        default=None, description="Set by a cluster; not used."
    )
    generate_name: Text = Field(default="", description="Not used: declarations have names.")
    self_link: Text = Field(default="", description="Set by old clusters; not used.")
    finalizers: tuple[Text, ...] = Field(default=(), description="Not used in files.")
    owner_references: tuple[dict[str, Any], ...] = Field(
        default=(), description="Not used in files."
    )
    managed_fields: tuple[dict[str, Any], ...] = Field(
        default=(), description="Set by a cluster; not used."
    )


class Resource(Model):
    """A whole document: kind, metadata and what the kind says."""

    #: API group and the versions that are read; the first is the one to write.
    api_group: ClassVar[str]
    versions: ClassVar[tuple[str, ...]]

    api_version: Text = Field(description="API group and version.")
    kind: Text = Field(description="Kind.")
    metadata: Metadata = Field(description="Name, namespace, labels and annotations.")
    status: Any = Field(
        default=None, exclude=True, repr=False, description="Set by a controller; not used."
    )

    @property
    def key(self) -> DeclarationKey:
        """Namespace and name."""
        return DeclarationKey(self.metadata.namespace, self.metadata.name)


class LocalRef(Model):
    """Name of an object in the same namespace."""

    name: Text = Field(description="Name of the object, in the same namespace.")


class StringMatch(Model):
    """Kustomize's selector of objects, for patches and drift rules."""

    group: Text = Field(default="", description="API group (regular expression).")
    version: Text = Field(default="", description="API version (regular expression).")
    kind: Text = Field(default="", description="Kind (regular expression).")
    name: Text = Field(default="", description="Name (regular expression).")
    namespace: Text = Field(default="", description="Namespace (regular expression).")
    annotation_selector: Text = Field(default="", description="Annotations, as a selector.")
    label_selector: Text = Field(default="", description="Labels, as a selector.")


def refuse(what: str) -> PydanticCustomError:
    """An error of a rule over several fields; `what` is the sentence."""
    return PydanticCustomError("rule", "{what}", {"what": what})
