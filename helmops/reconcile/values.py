"""What a release's values are made of: reads every reference, in order, into layers."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from helmops.errors import ValuesError, ValuesReferenceMissing
from helmops.model.charts import Tree
from helmops.model.declarations import HelmRelease, ValuesReference
from helmops.model.declared import DeclarationSet, Declared
from helmops.model.documents import dotted
from helmops.model.globs import fixed_part, has_wildcards
from helmops.model.releases import DeclarationKey
from helmops.reconcile.ports import Decrypt, TreeFiles
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.reconcile.trees import Trees, directory_beside
from helmops.resolve.layers import InlineLayer, Layer
from helmops.resolve.values import TargetValue, parse_values

_VALUES_KEY = "values.yaml"


async def as_it_is(content: bytes, name: str) -> bytes:
    """For where nothing is decrypted."""
    return content


class ValuesReader:
    """Reads the layers of releases' values. What is encrypted is decrypted, and hidden in logs."""

    def __init__(
        self, *, references: DeclaredSecrets, trees: Trees, files: TreeFiles, decrypt: Decrypt
    ) -> None:
        self._references = references
        self._trees = trees
        self._files = files
        self._decrypt = decrypt

    async def layers(
        self, declarations: DeclarationSet, release: Declared[HelmRelease]
    ) -> tuple[Layer, ...]:
        """The layers of a release, from the bottom up, `spec.values` last.

        Raises ValuesError (ValuesReferenceMissing), DeclarationError, SourceError, ClusterError.
        """
        layers: list[Layer] = []
        for index, reference in enumerate(release.resource.spec.values_from):
            field = ("spec", "valuesFrom", index)
            place = release.where_is(field)
            found = await self._found(declarations, release, reference, place)
            if reference.target_path is not None and len(found) > 1:
                raise ValuesError(
                    f"{reference.path} matches {len(found)} files, and targetPath takes one value",
                    where=place,
                )
            for content, where in found:
                layers.append(await self._layer(dotted(field), reference, content, where))
        inline = release.resource.spec.values
        if inline:
            path = ("spec", "values")
            # What a record remembers has no lines.
            document = None if declarations.is_remembered else release.document
            where = release.where if document is None else release.where_is(path)
            layers.append(InlineLayer(dotted(path), where, values=inline, document=document))
        return tuple(layers)

    async def _layer(
        self, named: str, reference: ValuesReference, content: bytes, where: str
    ) -> Layer:
        plain = await self._decrypt(content, where)
        is_secret = reference.kind == "Secret" or plain is not content
        if plain is not content:
            self._references.see({where: plain})
        if reference.target_path is None:
            values = parse_values(plain, where)
            return Layer(named, where, values=values, text=plain, is_secret=is_secret)
        text = plain.decode("utf-8", "replace")
        target = TargetValue(reference.target_path, text, reference.literal, where)
        return Layer(named, where, target=target, is_secret=is_secret)

    async def _found(
        self,
        declarations: DeclarationSet,
        release: Declared[HelmRelease],
        reference: ValuesReference,
        place: str,
    ) -> list[tuple[bytes, str]]:
        """Contents of a reference, and what to call each; none for an optional one that is not
        there.
        """
        key = DeclarationKey(release.key.namespace, reference.name)
        if reference.kind in ("ConfigMap", "Secret"):
            where = f"{reference.kind} {key}"
            data = await (
                self._references.config_map(key)
                if reference.kind == "ConfigMap"
                else self._references.secret(key)
            )
            if data is None:
                return _missing(reference, f"{where} does not exist", place)
            return [_of_key(data, reference, where, place)]
        if reference.kind == "GitRepository":
            source = declarations.source("GitRepository", key, wanted_at=place)
            tree = await self._trees.of(declarations, source)
            return await self._files_of(
                tree, reference.path, "", f" in GitRepository {key}", reference, place
            )
        directory, path = fixed_part(reference.path)
        tree = directory_beside(release, directory or ".")
        return await self._files_of(tree, path, directory, "", reference, place)

    async def _files_of(
        self,
        tree: Tree,
        path: str,
        before: str,
        behind: str,
        reference: ValuesReference,
        place: str,
    ) -> list[tuple[bytes, str]]:
        """The files of a path, or all that match one with wildcards, by their names."""
        paths = await self._files.find(tree, path) if has_wildcards(path) else (path,)
        found = []
        for each in paths:
            content = await self._files.read(tree, each)
            if content is not None:
                found.append((content, posixpath.join(before, each) + behind))
        if found:
            return found
        what = "matches no file" if has_wildcards(path) else "does not exist"
        return _missing(reference, f"{posixpath.join(before, path)}{behind} {what}", place)


def _of_key(
    data: Mapping[str, bytes], reference: ValuesReference, where: str, place: str
) -> tuple[bytes, str]:
    name = reference.values_key or _VALUES_KEY
    if name not in data:
        # As in Flux, `optional` is about the object, not about its keys.
        raise ValuesReferenceMissing(
            f"{where} has no key {name}", where=place, next_step="set valuesKey"
        )
    return data[name], f"{where} key {name}"


def _missing(reference: ValuesReference, what: str, place: str) -> list[tuple[bytes, str]]:
    if not reference.optional:
        raise ValuesReferenceMissing(what, where=place, next_step="create it, or set optional")
    return []
