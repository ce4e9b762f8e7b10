"""Where a release's values come from: layers over one another, and which of them each value is of.

Layers are merged as Helm and Flux do it (`helmops.resolve.values`); what is here only keeps account
of it, for people who ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from helmops.model.documents import Document, Path, read_documents
from helmops.resolve.strvals import set_value
from helmops.resolve.values import TargetValue, compose_values

#: In place of a value that nobody shall see.
HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values of one place, or (with a `target`) one value for one path.

    `reference` is the field of the declaration (`spec.valuesFrom[0]`), `where` is what people call
    the place: `ConfigMap apps/web key values.yaml`, `values/prod.yaml`, or `file:line`. `text` is
    what the values were read from, for lines; empty where there are none. What comes from a Secret
    or was encrypted `is_secret`.
    """

    reference: str
    where: str
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    target: TargetValue | None = field(default=None, repr=False)
    text: bytes = field(default=b"", repr=False)
    is_secret: bool = False

    def place_of(self, path: Path) -> str:
        """Where a value of this layer stands, with its line where that is known."""
        if self.target is not None or not self.text:
            return self.where
        line = 0
        for document in read_documents(self.where, self.text.decode("utf-8", "replace")).documents:
            if _has(document, path):
                line = document.line_of(path)
        return f"{self.where}:{line}" if line else self.where


def _has(document: Document, path: Path) -> bool:
    value = document.data
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True


@dataclass(frozen=True, slots=True)
class InlineLayer(Layer):
    """`spec.values`."""

    document: Document | None = field(default=None, repr=False)

    def place_of(self, path: Path) -> str:
        """`file:line` of a value in the declaration."""
        if self.document is None:
            return self.where
        return self.document.where_is(("spec", "values", *path))


def composed(layers: Sequence[Layer]) -> dict[str, Any]:
    """What the layers come to: those with a target over all others. Raises ValuesError."""
    plain = [layer.values for layer in layers if layer.target is None]
    targets = [layer.target for layer in layers if layer.target is not None]
    return compose_values(plain, {}, targets)


@dataclass(frozen=True, slots=True)
class Origin:
    """The value at one path (a list is one value), the layer that it is of, and those of earlier
    layers that it replaced, the latest first.
    """

    path: tuple[str, ...]
    value: Any = field(repr=False)
    layer: Layer
    over: tuple[tuple[Layer, tuple[str, ...]], ...] = ()
    #: Whether its value must not be shown.
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class _Leaf:
    value: Any
    layer: Layer
    over: tuple[tuple[Layer, tuple[str, ...]], ...] = ()
    is_secret: bool = False


_Tree: TypeAlias = "dict[str, _Tree | _Leaf]"


def origins(layers: Sequence[Layer]) -> tuple[Origin, ...]:
    """Every value of what the layers come to, sorted by path. Raises ValuesError."""
    tree: _Tree = {}
    for layer in layers:
        if layer.target is None:
            _put(tree, layer.values, layer, ())
    for layer in layers:
        if layer.target is not None:
            _put_target(tree, layer, layer.target)
    return tuple(sorted(_flat(tree, ()), key=lambda origin: origin.path))


def _put(tree: _Tree, values: Mapping[str, Any], layer: Layer, path: tuple[str, ...]) -> None:
    for key, value in values.items():
        here = (*path, str(key))
        before = tree.get(str(key))
        if isinstance(value, Mapping) and value:
            if not isinstance(before, dict):
                # A mapping in place of something else: what was there is told of each of its parts.
                replaced = before
                before = tree[str(key)] = {}
                _put(before, value, layer, here)
                if replaced is not None:
                    _mark(before, ((replaced.layer, here), *replaced.over))
            else:
                _put(before, value, layer, here)
        elif isinstance(value, Mapping) and isinstance(before, dict):
            continue  # an empty mapping changes nothing of another
        else:
            # What one `targetPath` changes of a list from a Secret leaves the rest of it in there.
            is_kept = layer.target is not None and isinstance(value, list)
            is_secret = layer.is_secret or (
                is_kept and isinstance(before, _Leaf) and before.is_secret
            )
            tree[str(key)] = _Leaf(value, layer, _replaced(before, here), is_secret)


def _mark(tree: _Tree, over: tuple[tuple[Layer, tuple[str, ...]], ...]) -> None:
    for key, node in tree.items():
        if isinstance(node, dict):
            _mark(node, over)
        else:
            tree[key] = replace(node, over=(*node.over, *over))


def _replaced(
    before: _Tree | _Leaf | None, path: tuple[str, ...]
) -> tuple[tuple[Layer, tuple[str, ...]], ...]:
    if before is None:
        return ()
    if isinstance(before, _Leaf):
        return ((before.layer, path), *before.over)
    found = [
        place
        for origin in _flat(before, path)
        for place in ((origin.layer, origin.path), *origin.over)
    ]
    return tuple({id(layer): (layer, path) for layer, path in found}.values())


def _put_target(tree: _Tree, layer: Layer, target: TargetValue) -> None:
    """As `set_value` does it to the values; a list that it reaches into is changed as a whole."""
    touched = set_value({}, target.path, target.value, literal=target.literal, where=target.where)
    values = set_value(
        _plain(tree), target.path, target.value, literal=target.literal, where=target.where
    )
    _put(tree, _only(values, touched), layer, ())


def _only(values: Mapping[str, Any], touched: Mapping[str, Any]) -> dict[str, Any]:
    """Of the values those that are among the touched ones, with what they have become."""
    kept: dict[str, Any] = {}
    for key, part in touched.items():
        value = values.get(key)
        if isinstance(part, Mapping) and part and isinstance(value, Mapping):
            kept[key] = _only(value, part)
        else:
            kept[key] = value
    return kept


def _plain(tree: _Tree) -> dict[str, Any]:
    return {
        key: _plain(node) if isinstance(node, dict) else node.value for key, node in tree.items()
    }


def _flat(tree: _Tree, path: tuple[str, ...]) -> Iterable[Origin]:
    for key, node in tree.items():
        if isinstance(node, dict):
            yield from _flat(node, (*path, key))
        else:
            yield Origin((*path, key), node.value, node.layer, node.over, node.is_secret)


def shown(found: Iterable[Origin], *, with_secrets: bool = False) -> dict[str, Any]:
    """The values that origins were found of; secret ones are hidden unless asked for."""
    values: dict[str, Any] = {}
    for origin in found:
        inner = values
        for key in origin.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[origin.path[-1]] = shown_value(origin, with_secrets=with_secrets)
    return values


def shown_value(origin: Origin, *, with_secrets: bool = False) -> Any:
    """One value; a secret one is hidden unless asked for. That something is null is no secret."""
    if origin.is_secret and not with_secrets and origin.value is not None:
        return HIDDEN
    return origin.value
