"""Builds of the plainest kind without a process: files and directories of files, a namespace, and
strategic merge patches for kinds that Kubernetes' own schema does not know.

A repository of two hundred releases has hundreds of kustomizations like this, and a process takes a
hundred times as long. Whatever is not certain to come out as kustomize has it is not built here;
that what is built is the same is proven by building generated cases both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from helmops.model.scalars import json_value, key_text, resolve_plain
from helmops.sources.file_tree import joined

#: What a kustomization may say to be built here.
_KNOWN: Final = frozenset({"apiVersion", "kind", "resources", "components", "namespace", "patches"})
#: By whether it is a Component.
_API_VERSIONS: Final = (
    "kustomize.config.k8s.io/v1beta1",
    "kustomize.config.k8s.io/v1alpha1",
)
#: Tags, merges, anchors and aliases; anything else in another voice than plain YAML.
_UNUSUAL: Final = re.compile(r"!!|<<|(?:^|[\s\[{,:-])[&*!]\S|^%|\t|[:-] +-(?: |$)", re.M)
#: API groups whose kinds have no schema in kustomize, so that lists are replaced as a whole.
_WITHOUT_SCHEMA: Final = (".toolkit.fluxcd.io", ".dev")
_PLAIN_SELECTOR: Final = re.compile(r"[A-Za-z0-9.-]*")
_OF_KUSTOMIZE: Final = ("config.kubernetes.io/", "kustomize.config.k8s.io/", "internal.config.")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _NotSimple(Exception):
    """Something that only kustomize knows."""


#: Booleans of old, and what begins like a number or a time and is none everywhere.
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "=", "true", "false", "null"})
_TIME: Final = re.compile(r"[-+.]?[0-9][0-9_,.]*[:_-]|[-+.]?0[xob]|[-+.]?\.?[0-9_]+e", re.I)
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,8})\.[0-9]{1,8}")

#: An object and the file that it came from.
Simple = tuple[dict[str, Any], str]


def build_simply(
    files: Mapping[str, bytes], directory: str, kustomization: Mapping[str, Any]
) -> list[Simple] | None:
    """The objects that a kustomization is built to; None where kustomize must be asked.

    `files` has all that it names, by path, `directory` is its own. Objects are not shared.
    """
    try:
        return _build(files, directory, kustomization, is_component=False)
    except _NotSimple:
        return None


def _build(
    files: Mapping[str, bytes],
    directory: str,
    kustomization: Mapping[str, Any],
    *,
    is_component: bool,
    before: Sequence[Simple] = (),
) -> list[Simple]:
    """What a kustomization makes of what it names; a component also of what was there before."""
    if not _KNOWN.issuperset(kustomization):
        raise _NotSimple
    if kustomization.get("kind", "Kustomization") != (
        "Component" if is_component else "Kustomization"
    ):
        raise _NotSimple
    if kustomization.get("apiVersion", _API_VERSIONS[is_component]) != _API_VERSIONS[is_component]:
        raise _NotSimple
    objects = list(before)
    for reference in _texts(kustomization, "resources"):
        path = joined(directory, reference)
        if path in files:
            objects += ((data, path) for data in _read(files[path]))
            continue
        objects += _build(files, path, _kustomization_in(files, path), is_component=False)
    for reference in _texts(kustomization, "components"):
        path = joined(directory, reference)
        inner = _kustomization_in(files, path)
        objects = _build(files, path, inner, is_component=True, before=objects)
    for patch in kustomization.get("patches") or ():
        objects = _patched(objects, patch)
    namespace = kustomization.get("namespace")
    if namespace is not None:
        if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
            raise _NotSimple
        objects = [(_in_namespace(data, namespace), path) for data, path in objects]
    _refuse_same_names(objects)
    return objects


def _kustomization_in(files: Mapping[str, bytes], directory: str) -> Mapping[str, Any]:
    path = joined(directory, "kustomization.yaml")
    if path not in files:
        raise _NotSimple
    documents = list(_read(files[path], is_object=False))
    if len(documents) != 1 or not documents[0].keys() - {"apiVersion", "kind"}:
        raise _NotSimple
    return documents[0]


def _texts(kustomization: Mapping[str, Any], name: str) -> list[str]:
    given = kustomization.get(name)
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise _NotSimple
    return given


def _read(content: bytes, *, is_object: bool = True) -> Iterator[dict[str, Any]]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _NotSimple from None
    if _UNUSUAL.search(text) or text.startswith("\ufeff") or text.lstrip()[:1] in ("{", "["):
        raise _NotSimple
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        documents = [plain_value(node, strict=True) for node in nodes if node is not None]
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _NotSimple from None
    for data in documents:
        if data is None:
            continue
        if not isinstance(data, dict) or (is_object and not _is_plain_object(data)):
            raise _NotSimple
        yield data


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes without asking what each scalar may be: `plain_value` knows."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML has it


def compose(text: str) -> Any:
    """A text's one document as plain data, read as Kubernetes reads it. Raises yaml.YAMLError,
    ValueError, RecursionError.
    """
    node = yaml.compose(text, Loader=_Loader)
    return None if node is None else plain_value(node)


def plain_value(node: yaml.Node, *, strict: bool = False) -> Any:
    """The value of a node that was composed here. `strict` refuses keys that are
    given twice, and those that are no text.
    """
    if isinstance(node, yaml.MappingNode):
        found = {_key_of(key): plain_value(value, strict=strict) for key, value in node.value}
        if strict and not all(_is_certain_key(key) for key, _ in node.value):
            raise ValueError("a key is no text")
        if strict and len(found) != len(node.value):
            raise ValueError("a key is given twice")
        return found
    if isinstance(node, yaml.SequenceNode):
        return [plain_value(item, strict=strict) for item in node.value]
    if not isinstance(node, yaml.ScalarNode) or node.style:
        return node.value
    value = json_value(resolve_plain(node.value))
    if strict and not _is_certain(node.value, value):
        raise ValueError("readers of YAML differ about it")
    return value


def _is_certain_key(node: Any) -> bool:
    value = node.value if node.style else resolve_plain(node.value)
    return isinstance(value, str) and (bool(node.style) or _is_certain(node.value, value))


def _is_certain(text: str, value: Any) -> bool:
    """Whether kustomize, whose YAML is newer, takes a plain scalar for the same as Kubernetes."""
    match value:
        case None | True | False:
            return text in ("", "~", "null", "true", "false")
        case str():
            return text.lower() not in _WORDS and not _TIME.match(text)
        case int():
            return text == str(value) and len(text) < 16
        case float():
            return bool(_DECIMAL.fullmatch(text))
        case _:
            return False


def _key_of(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("a key must be a plain value")
    return str(node.value) if node.style else key_text(resolve_plain(node.value))


def _is_plain_object(data: Mapping[str, Any]) -> bool:
    """An object that kustomize lets through as it is."""
    api_version, kind, metadata = data.get("apiVersion"), data.get("kind"), data.get("metadata")
    if not (isinstance(api_version, str) and isinstance(kind, str) and isinstance(metadata, dict)):
        return False
    if not api_version or not kind or kind.endswith("List"):
        return False
    if not isinstance(metadata.get("name"), str) or not metadata["name"]:
        return False
    if not isinstance(metadata.get("namespace", ""), str) or "creationTimestamp" in metadata:
        return False
    for name in ("labels", "annotations"):
        texts = metadata.get(name, {})
        if not isinstance(texts, dict) or (not texts and name in metadata):
            return False
        if any(
            not isinstance(text, str) or key.startswith(_OF_KUSTOMIZE)
            for key, text in texts.items()
        ):
            return False
    return _has_no_nulls(metadata)


def _has_no_nulls(value: Any) -> bool:
    """Whether kustomize keeps everything in it: what is null or empty, it may drop."""
    match value:
        case None:
            return False
        case dict():
            return bool(value) and all(map(_has_no_nulls, value.values()))
        case list():
            return bool(value) and all(map(_has_no_nulls, value))
        case _:
            return True


def _in_namespace(data: dict[str, Any], namespace: str) -> dict[str, Any]:
    """An object of ours gets the namespace; of other kinds nobody asks for more than the kind. But
    kustomize gives a Namespace the name, so that two of them become one, which it refuses.
    """
    if data["kind"] == "Namespace":
        return {**data, "metadata": {**data["metadata"], "name": namespace}}
    return {**data, "metadata": {**data["metadata"], "namespace": namespace}}


def _refuse_same_names(objects: Sequence[Simple]) -> None:
    seen = set()
    for data, _ in objects:
        metadata = data["metadata"]
        group = data["apiVersion"].rpartition("/")[0]
        is_cluster_wide = data["kind"] == "Namespace"
        namespace = "" if is_cluster_wide else metadata.get("namespace", "")
        key = (group, data["kind"], namespace, metadata["name"])
        if key in seen:
            raise _NotSimple
        seen.add(key)


# Patches ----------------------------------------------------------------------------------------


def _patched(objects: Sequence[Simple], patch: Any) -> list[Simple]:
    if not isinstance(patch, dict) or not {"patch", "target"}.issuperset(patch):
        raise _NotSimple
    target, text = patch.get("target"), patch.get("patch")
    if not isinstance(target, dict) or not isinstance(text, str):
        raise _NotSimple
    if not {"group", "version", "kind"}.issuperset(target) or "kind" not in target:
        raise _NotSimple
    if not all(isinstance(t, str) and _PLAIN_SELECTOR.fullmatch(t) for t in target.values()):
        raise _NotSimple
    documents = list(_read(text.encode(), is_object=False))
    if len(documents) != 1 or not _is_mergeable(documents[0]):
        raise _NotSimple
    found: list[Simple] = []
    for data, path in objects:
        if not _is_selected(data, target):
            found.append((data, path))
            continue
        group = data["apiVersion"].rpartition("/")[0]
        if not group.endswith(_WITHOUT_SCHEMA):
            raise _NotSimple
        merged = _merged(data, documents[0])
        merged |= {"apiVersion": data["apiVersion"], "kind": data["kind"]}
        name = {"name": data["metadata"]["name"]}
        metadata = {**merged["metadata"], **name}
        metadata.pop("namespace", None)
        if "namespace" in data["metadata"]:
            metadata["namespace"] = data["metadata"]["namespace"]
        merged["metadata"] = metadata
        found.append((merged, path))
    return found


def _is_mergeable(patch: Mapping[str, Any]) -> bool:
    """A whole patch without directives, and without what kustomize drops or takes for deletion."""
    metadata = patch.get("metadata")
    return (
        isinstance(patch.get("apiVersion"), str)
        and isinstance(patch.get("kind"), str)
        and isinstance(metadata, dict)
        and isinstance(metadata.get("name"), str)
        and _has_no_nulls(patch)
        and not any(key.startswith("$") for key in _keys(patch))
        and not any(key.startswith(_OF_KUSTOMIZE) for key in _keys(metadata))
    )


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _is_selected(data: Mapping[str, Any], target: Mapping[str, str]) -> bool:
    group, _, version = data["apiVersion"].rpartition("/")
    has = {"group": group, "version": version, "kind": data["kind"]}
    return all(not wanted or re.fullmatch(wanted, has[name]) for name, wanted in target.items())


def _merged(value: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A strategic merge without a schema: mappings into each other, all else is replaced."""
    found = dict(value)
    for key, given in patch.items():
        has = found.get(key)
        if has is None:
            if key in found:
                raise _NotSimple  # null in the object
            found[key] = given
        elif isinstance(has, dict) and isinstance(given, dict):
            found[key] = _merged(has, given)
        elif isinstance(has, dict | list) != isinstance(given, dict | list) or (
            type(has) is not type(given) and isinstance(has, dict | list)
        ):
            raise _NotSimple
        else:
            found[key] = given
    return found
