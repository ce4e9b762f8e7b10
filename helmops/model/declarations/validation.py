"""Documents to declarations: which kind a document is, and errors that a person can act on."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from helmops.errors import DeclarationError, NotSupported
from helmops.model.declarations.base import Resource
from helmops.model.declarations.kinds import KINDS
from helmops.model.documents import Document, Path, dotted
from helmops.model.releases import DeclarationKey

_GROUPS = {model.api_group for model in KINDS.values()}
#: Kinds of our groups that are objects of a cluster, not declarations.
_NOT_DECLARED = {("source.toolkit.fluxcd.io", "ExternalArtifact")}
#: Designed, and without effect until they are built.
_PLANNED = {("helmops.dev", "Pipeline"), ("helmops.dev", "Cluster")}
#: Kinds that nobody else has; another group for them is a mistake or of long ago.
_ONLY_OURS = {"HelmRelease", "HelmRepository", "ReleasePolicy"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a document says that it is, as far as it can be read.

    `name` is empty where there is none; `model` is None for kinds that are not read. Where it is
    not `is_certain`, the document may be another than it seems.
    """

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    model: type[Resource] | None = None
    is_certain: bool = True

    @property
    def key(self) -> DeclarationKey:
        """Namespace and name."""
        return DeclarationKey(self.namespace, self.name)


def is_declaration(data: object) -> bool:
    """Whether data look like a Kubernetes object at all: values files do not."""
    return isinstance(data, dict) and ("apiVersion" in data or "kind" in data)


def identify(document: Document, default_namespace: str) -> Identity:
    """Read what a document is, leniently; `check_identity` has the errors."""
    data = document.data
    api_version, kind = _text(data.get("apiVersion")), _text(data.get("kind"))
    group, _, version = api_version.rpartition("/")
    metadata = data.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    model = KINDS.get(kind)
    name, namespace = metadata.get("name"), metadata.get("namespace")
    return Identity(
        group=group,
        version=version,
        kind=kind,
        namespace=_text(namespace) or default_namespace,
        name=_text(name),
        model=model if model is not None and model.api_group == group else None,
        is_certain=bool(_text(name)) and isinstance(namespace, str | None) and kind in KINDS,
    )


def check_identity(document: Document, identity: Identity) -> DeclarationError | None:
    """What is wrong with a document's apiVersion and kind; None where it is of a kind that is read,
    or of somebody else's.
    """
    for name in ("apiVersion", "kind"):
        if not _text(document.data.get(name)):
            return DeclarationError(
                "required and missing, or not a string", where=document.where, field=name
            )
    group, kind = identity.group, identity.kind
    if identity.model is not None:
        versions = identity.model.versions
        if identity.version in versions:
            return None
        wanted = f"{group}/{versions[0]}" if group else versions[0]
        return DeclarationError(
            f"{kind} {identity.version} is not read",
            where=document.where_is(("apiVersion",)),
            field="apiVersion",
            next_step=f"migrate to `apiVersion: {wanted}`; fields may have changed between the two",
        )
    if (group, kind) in _PLANNED:
        return NotSupported(f"{kind} is not acted on yet", where=document.where, field="kind")
    if kind in _ONLY_OURS:
        model = KINDS[kind]
        return DeclarationError(
            f"{kind} of another API group is not read",
            where=document.where_is(("apiVersion",)),
            field="apiVersion",
            next_step=f"write `apiVersion: {model.api_group}/{model.versions[0]}`",
        )
    # The core group has many kinds that concern others.
    if group and group in _GROUPS and (group, kind) not in _NOT_DECLARED:
        kinds = [name for name, model in KINDS.items() if model.api_group == group]
        return DeclarationError(
            f"there is no kind `{kind}` in {group}",
            where=document.where_is(("kind",)),
            field="kind",
            next_step=_did_you_mean(kind, kinds) or f"it has {_listed(kinds)}",
        )
    return None


def validate(
    document: Document, model: type[Resource], namespace: str
) -> tuple[Resource | None, tuple[DeclarationError, ...]]:
    """The declaration, or all that is wrong with it; `namespace` is for one that names none."""
    try:
        return model.model_validate(with_namespace(document.data, namespace)), ()
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return None, tuple(_explain(model, document, detail) for detail in details)


def with_namespace(data: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A manifest with its namespace filled in where it has none."""
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("namespace"):
        return data
    return {**data, "metadata": {**metadata, "namespace": namespace}}


def _explain(model: type[Resource], document: Document, detail: ErrorDetails) -> DeclarationError:
    path = tuple(detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        fields = _fields_at(model, path[:-1])
        name = str(path[-1])
        what, next_step = "unknown field", _did_you_mean(name, fields)
        if not next_step:
            elsewhere = sorted(_paths_of(model, name))[:3]
            next_step = f"did you mean {_listed(elsewhere, ' or ')}?" if elsewhere else ""
    elif kind == "missing":
        what, next_step = "required and missing", ""
        given = _value_at(document.data, path[:-1])
        if isinstance(given, dict):
            unknown = set(given) - _fields_at(model, path[:-1])
            close = difflib.get_close_matches(str(path[-1]), sorted(unknown), n=1)
            next_step = f"is `{close[0]}` meant to be it?" if close else ""
    else:
        what, next_step = _sentence(detail, _value_at(document.data, path))
    return DeclarationError(
        what, where=document.where_is(path), field=dotted(path), next_step=next_step
    )


_EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}


def _sentence(detail: ErrorDetails, given: object) -> tuple[str, str]:
    """What is wrong, and what to do. Never says what was given: it may be a secret."""
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind in _EXPECTED:
        what = f"must be {_EXPECTED[kind]}, not {_described(given)}"
        if kind == "string_type" and isinstance(given, bool | int | float):
            return what, "put it in quotes to have it as text"
        if kind == "bool_type" and isinstance(given, str):
            return what, "without quotes"
        return what, ""
    match kind:
        case "literal_error":
            choices = [
                choice.strip().strip("'")
                for choice in str(context["expected"]).replace(" or ", ", ").split(",")
            ]
            return f"must be {_listed(choices, ' or ')}", (
                _did_you_mean(given, choices) if isinstance(given, str) else ""
            )
        case "string_pattern_mismatch":
            return f"does not match `{context['pattern']}`", _of_pattern(str(context["pattern"]))
        case "string_too_short":
            return "must not be empty", ""
        case "string_too_long":
            return f"is longer than {context['max_length']} characters", ""
        case "too_short":
            return "must not be empty", ""
        case _:
            return detail["msg"][:1].lower() + detail["msg"][1:], ""


def _of_pattern(pattern: str) -> str:
    if "[-a-z0-9]" in pattern:
        return "lower-case letters, digits and `-`, as Kubernetes names are"
    if "ssh" in pattern:
        return "write `user@host:path` as `ssh://user@host/path`"
    return ""


def _described(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean (`yes`, `no`, `on` and `off` are some, too)"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return "something else"


def _listed(words: Iterable[str], last: str = " and ") -> str:
    quoted = [f"`{word}`" for word in words]
    return last.join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _did_you_mean(given: str, known: Iterable[str]) -> str:
    candidates = sorted(known)
    folded = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(given.lower(), folded, n=1, cutoff=0.6)
    return f"did you mean `{folded[close[0]]}`?" if close else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _value_at(data: Any, path: Path) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _fields_at(model: type[BaseModel], path: Path) -> set[str]:
    """The documents' names of the fields that are known at a path."""
    at: type[BaseModel] | None = model
    for step in path:
        if isinstance(step, str):
            at = _by_alias(at).get(step) if at else None
    return set(_by_alias(at)) if at else set()


def _by_alias(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    return {
        field.alias or name: next(_models_in(field.annotation), None)
        for name, field in model.model_fields.items()
    }


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _paths_of(model: type[BaseModel], field: str, above: str = "") -> Iterator[str]:
    """Where else a field of this name is, for a field that was put in the wrong place."""
    for name, inner in _by_alias(model).items():
        path = f"{above}.{name}" if above else name
        if name == field and above:
            yield path
        if inner is not None and name != "metadata":
            yield from _paths_of(inner, field, path)
