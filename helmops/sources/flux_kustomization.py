"""Follows Flux's Kustomizations, nested to any depth, to the declarations that they bring out.

As Flux's kustomize-controller does it (seen with its code of August 2026 and fluxcd/pkg/kustomize
1.44): build the path with what the Kustomization adds, decrypt, substitute variables, put on common
metadata. Other than Flux, nothing is applied: HelmReleases, sources, ConfigMaps, Secrets and the
like are handed on, with the file that each came from, and the rest is counted.

A Kustomization that cannot be followed is one error, and nothing is known of what is in it; all
others go on.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from helmops.errors import DeclarationError, HelmopsError, NotSupported
from helmops.model.declaration_set import BuiltDeclarations, cycle_through
from helmops.model.declarations import (
    GitRepository,
    Kustomization,
    KustomizationSpec,
    OCIRepository,
    Secret,
    Source,
    SubstituteReference,
)
from helmops.model.declarations.kinds import KINDS
from helmops.model.declarations.kustomization import FILE_SOURCES
from helmops.model.declarations.unsupported import unsupported_places
from helmops.model.declarations.validation import identify, is_declaration, validate
from helmops.model.declared import BuiltBy, DeclarationSet, Declared, KindKey, SourceFile
from helmops.model.documents import Document, Documents, dotted, read_documents, rebuilt_document
from helmops.model.kustomization_order import wanted_by
from helmops.model.releases import DeclarationKey
from helmops.resolve.substitution import SubstitutionError, check_names, substitute
from helmops.sources.file_tree import FileTree, TreeView, joined
from helmops.sources.flux_artifact import ArtifactFiles
from helmops.sources.flux_places import Place, bare_url, split
from helmops.sources.kustomize import (
    Built,
    BuiltObject,
    Kustomizer,
    KustomizeUnavailable,
    Overlay,
    parse_object,
    without_origin,
)
from helmops.sources.sops import is_encrypted

#: Kustomizations within each other, and altogether.
MAX_DEPTH: Final = 20
MAX_KUSTOMIZATIONS: Final = 5_000

_GROUP: Final = "kustomize.toolkit.fluxcd.io"
_DISABLED: Final = "disabled"
_GROUPS: Final = {model.api_group for model in KINDS.values() if model.api_group}


#: What Kustomizations refer to.
_REFERRED_KINDS: Final = (*FILE_SOURCES, "ConfigMap", "Secret")
_REFERRED: Final = re.compile(rf"kind\"?: *[\"']?({'|'.join(_REFERRED_KINDS)})\b")


class Decrypt(Protocol):
    """`Sops.decrypt`."""

    def __call__(
        self, text: bytes, name: str, *, age_keys: Sequence[str] = (), ignore_mac: bool = False
    ) -> bytes:
        """The text without its encryption. Raises HelmopsError."""


class Cluster(Protocol):
    """Where ConfigMaps and Secrets are looked up that are not declared."""

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises HelmopsError."""

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises HelmopsError."""


#: Gives the files of a source as they are now; the set has what is declared so far. Raises
#: HelmopsError.
Checkout = Callable[[DeclarationSet, Declared[Any]], Awaitable[FileTree]]


@dataclass(slots=True)
class _Node:
    """One Kustomization on its way. `place` is the `-f` that it came from in the end, `tree` the
    files that its own declaration stands in.
    """

    key: DeclarationKey
    document: Document
    resource: Kustomization | None
    file: SourceFile
    place: Place
    tree: FileTree
    path: str
    chain: tuple[DeclarationKey, ...]
    prune: bool = False
    is_suspended: bool = False
    error: DeclarationError | None = None

    @property
    def spec(self) -> KustomizationSpec:
        """Of one that can be read; asked only where there is no error."""
        assert self.resource is not None  # noqa: S101 - else there is an error
        return self.resource.spec

    def fail(self, what: str, at: tuple[str | int, ...], next_step: str = "") -> DeclarationError:
        return DeclarationError(
            what, where=self.document.where_is(at), field=dotted(at), next_step=next_step
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the cluster said about a ConfigMap or Secret, and when."""

    data: Mapping[str, bytes] | None
    at: datetime
    every: timedelta


@dataclass(slots=True)
class _Output:
    """One document that came out, by the reading of its file."""

    document: Document
    file: SourceFile
    chain: tuple[DeclarationKey, ...]


class Following:
    """Follows the Kustomizations of some places, again and again.

    `checkout` gets the files of other sources, `cluster` what is not declared (None where
    no cluster is asked), `decrypt` opens what SOPS encrypted, `hide` is told the texts of Secrets
    that variables come from.
    """

    def __init__(
        self,
        *,
        builder: Kustomizer,
        default_namespace: str,
        checkout: Checkout | None = None,
        cluster: Cluster | None = None,
        decrypt: Decrypt | None = None,
        hide: Callable[[Mapping[str, bytes]], None] = lambda _: None,
    ) -> None:
        self._builder = builder
        self._default_namespace = default_namespace
        self._checkout = checkout
        self._cluster = cluster
        self._decrypt = decrypt
        self._hide = hide
        self._asked: dict[tuple[str, DeclarationKey], _Asked] = {}
        self._substituted: dict[tuple[str, str], dict[str, Any]] = {}

    async def is_stale(self, now: datetime) -> bool:
        """Whether the cluster says something else now about variables, asked at their interval."""
        changed = False
        for (kind, key), asked in list(self._asked.items()):
            if now - asked.at < asked.every:
                continue
            try:
                data = await self._ask_cluster(kind, key)
            except HelmopsError:
                data = asked.data  # the next time
            self._asked[kind, key] = replace(asked, data=data, at=now)
            changed |= data != asked.data
        return changed

    async def follow(
        self, places: Iterable[tuple[Place, Sequence[SourceFile]]], now: datetime
    ) -> tuple[list[SourceFile], BuiltDeclarations]:
        """The files that are to be read as they are, and what comes out of everything else. Raises
        nothing of HelmopsError.
        """
        run = _Run(self, now)
        raw: list[SourceFile] = []
        for place, files in places:
            raw += await run.begin(place, files)
        await run.to_the_end()
        return raw, run.result()

    async def _ask_cluster(self, kind: str, key: DeclarationKey) -> Mapping[str, bytes] | None:
        if self._cluster is None:
            return None
        if kind == "ConfigMap":
            return await self._cluster.config_map(key)
        return await self._cluster.secret(key)

    async def of_cluster(
        self, kind: str, key: DeclarationKey, every: timedelta, now: datetime
    ) -> Mapping[str, bytes] | None:
        """A ConfigMap or Secret of the cluster, from memory within its interval."""
        asked = self._asked.get((kind, key))
        if asked is None or now - asked.at >= every:
            data = await self._ask_cluster(kind, key)
            asked = self._asked[kind, key] = _Asked(data, now, every)
        return asked.data


class _Run:
    """One time of following."""

    def __init__(self, following: Following, now: datetime) -> None:
        self._f = following
        self._now = now
        self._nodes: dict[DeclarationKey, _Node] = {}
        self._pending: list[_Node] = []
        self._outputs: list[_Output] = []
        self._errors: list[DeclarationError] = []
        self._objects: dict[KindKey, _Output] = {}
        self._validated: dict[KindKey, tuple[Any, Sequence[Any]]] = {}
        self._assumed_own: set[tuple[KindKey, str]] = set()
        self._used_asked: set[tuple[str, DeclarationKey]] = set()
        self._kept_substituted: dict[tuple[str, str], dict[str, Any]] = {}
        self._again: dict[DeclarationKey, list[Document]] = {}
        self._beside: list[SourceFile] = []
        self._own_sources: set[tuple[KindKey, str]] = set()
        self._trees: list[FileTree] = []
        self._artifacts: dict[tuple[str, str | None], ArtifactFiles] = {}
        self._read_paths: set[tuple[str, str]] = set()

    # Where it begins

    async def begin(self, place: Place, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Read a place's own files; gives those that are declarations as they are."""
        found = split(place, files)
        self._errors += found.errors
        self._trees.append(place.tree)
        raw = []
        for file in found.raw:
            if _REFERRED.search(file.text):
                self._beside.append(file)
            if f"{_GROUP}/" not in file.text:
                raw.append(file)
                continue
            path = _path_in(place.tree, file)
            documents = read_documents(file.path, file.text)
            is_partly = path in found.partly
            if not is_partly:
                raw.append(file)
            for document in documents.documents:
                if _is_kustomization(document.data) and (
                    not is_partly or _holds_itself(document.data, path)
                ):
                    if is_partly:
                        one = replace(file, text="", built_by=BuiltBy(), declared_in=place.identity)
                        self._outputs.append(_Output(document, one, ()))
                    self._declare(document, file, place, place.tree, path, None)
            if is_partly:
                self._errors += documents.errors
        for unit in found.units:
            try:
                built = await asyncio.to_thread(self._f._builder.build, place.tree, unit)
            except DeclarationError as error:
                self._tell(_placed(error, place.tree.show(unit)))
                continue
            objects = built.objects
            if unit in found.partly:
                objects = tuple(
                    o
                    for o in objects
                    if _is_kustomization(o.data) and _holds_itself(o.data, o.file)
                )
            await self._take(replace(built, objects=objects), place, place.tree, None)
        return raw

    def _tell(self, error: DeclarationError) -> None:
        if str(error) not in {str(known) for known in self._errors}:
            self._errors.append(error)

    # One after the other

    def _look_beside(self) -> None:
        """What is declared in files that are read as they are, and may be referred to."""
        for file in self._beside:
            for document in read_documents(file.path, file.text).documents:
                if is_declaration(document.data):
                    identity = identify(document, self._f._default_namespace)
                    if identity.kind in _REFERRED_KINDS and identity.name:
                        key = (identity.kind, identity.key)
                        self._objects.setdefault(key, _Output(document, file, ()))

    async def to_the_end(self) -> None:
        """Follow whatever can be followed, until nothing is left."""
        if self._pending:
            self._look_beside()
        while self._pending:
            ready = [node for node in self._pending if self._is_ready(node)]
            if not ready:
                ready = await self._made_ready()
            self._pending = [node for node in self._pending if node not in ready]
            # Builds run at once as far as the builder lets them; what comes out keeps its order.
            built = await asyncio.gather(*(self._built(node) for node in ready))
            for node, result in zip(ready, built, strict=True):
                if result is not None:
                    await self._finish(node, *result)

    def _is_ready(self, node: _Node) -> bool:
        """Whether everything that it refers to is at hand."""
        return self._has_source(node) and all(
            self._declared_data(reference, node) is not None for reference in _substitute_from(node)
        )

    def _has_source(self, node: _Node) -> bool:
        if node.error is not None or node.spec.source_ref.kind not in FILE_SOURCES:
            return True
        source = _source_of(node)
        return source in self._objects or (source, node.tree.root) in self._assumed_own

    async def _made_ready(self) -> list[_Node]:
        """Nothing that is still to come can declare what these lack: decide without it."""
        lacking = [node for node in self._pending if not self._has_source(node)]
        for node in lacking:
            self._assumed_own.add((_source_of(node), node.tree.root))
        ready = [node for node in lacking if self._is_ready(node)]
        if ready:
            return ready
        found = [
            node
            for node in self._pending
            if all([await self._is_somewhere(ref, node) for ref in _substitute_from(node)])
        ]
        return found or list(self._pending)

    async def _is_somewhere(self, reference: SubstituteReference, node: _Node) -> bool:
        if reference.optional or self._declared_data(reference, node) is not None:
            return True
        key = DeclarationKey(node.key.namespace, reference.name)
        try:
            return await self._of_cluster(reference.kind, key, node) is not None
        except HelmopsError:
            return False

    async def _built(self, node: _Node) -> tuple[Built, FileTree, Mapping[str, str]] | None:
        """A Kustomization's build, and its variables; None for one that failed, which is told."""
        if node.error is not None:
            return None
        try:
            self._refuse_what_is_not_acted_on(node)
            tree = await self._tree_of(node)
            variables = await self._variables(node)
            path = joined("", str(node.spec.path).lstrip("/"))
            if path.split("/")[0] == "..":
                raise node.fail(f"`{node.spec.path}` leads out of the repository", ("spec", "path"))
            self._refuse_patches_without_target(node)
            built = await self._build_of(node.spec, self._artifact_of(node, tree), path)
        except KustomizeUnavailable as error:
            self._fail(node, error)
            return None
        except DeclarationError as error:
            at = tuple(_steps(error.field or "spec.path"))
            self._fail(node, _placed(error, node.document.where_is(at), dotted(at)))
            return None
        except HelmopsError as error:
            self._fail(node, node.fail(str(error), ("spec", "sourceRef")))
            return None
        return built, tree, variables

    def _artifact_of(self, node: _Node, tree: FileTree) -> TreeView:
        """What Flux would have of these files. Raises SourceInvalid for bad ignore rules."""
        if node.spec.source_ref.kind != "GitRepository" and tree is not node.place.tree:
            return tree  # unpacked without what is ignored
        found = self._objects.get(_source_of(node))
        ignore = found.document.data["spec"].get("ignore") if found is not None else None
        known = self._artifacts.get((tree.root, ignore))
        if known is None:
            known = self._artifacts[tree.root, ignore] = ArtifactFiles(tree, ignore)
        return known

    async def _build_of(self, spec: KustomizationSpec, tree: TreeView, path: str) -> Built:
        builder, overlay = self._f._builder, _overlay_of(spec)
        with_text = spec.post_build is not None
        # In a thread only what takes its time: to go there and back is half the cost of the rest.
        if known := builder.known(tree, path, overlay, with_text=with_text):
            await asyncio.sleep(0)
            return known
        return await asyncio.to_thread(builder.build, tree, path, overlay, with_text=with_text)

    def _fail(self, node: _Node, error: DeclarationError) -> None:
        node.error = error
        self._tell(error)

    @staticmethod
    def _refuse_what_is_not_acted_on(node: _Node) -> None:
        assert node.resource is not None  # noqa: S101 - asked before
        for path, what in unsupported_places(node.resource):
            raise NotSupported(
                what,
                where=node.document.where_is(path),
                field=dotted(path),
                next_step="remove the field, or leave this Kustomization to Flux for now",
            )

    @staticmethod
    def _refuse_patches_without_target(node: _Node) -> None:
        for position, patch in enumerate(node.spec.patches):
            if patch.target is None and patch.patch.lstrip().startswith(("-", "[")):
                raise node.fail(
                    "a JSON patch must say what it is for",
                    ("spec", "patches", position, "target"),
                    "write `target`, with a kind and a name for example",
                )

    async def _tree_of(self, node: _Node) -> FileTree:
        """The files of a Kustomization's source. Raises HelmopsError."""
        source = _source_of(node)
        found = self._objects.get(source)
        if found is None:
            return node.tree
        kind, key = source
        resource, errors = self._validated_once(source, found)
        if not isinstance(resource, GitRepository | OCIRepository):
            raise node.fail(f"{kind} {key} has an error: {errors[0].what}", ("spec", "sourceRef"))
        if self._is_own(node, source, resource):
            return node.tree
        if self._f._checkout is None:
            raise node.fail(f"{kind} {key} is not fetched here", ("spec", "sourceRef"))
        return await self._f._checkout(
            self._declared_so_far(), Declared(resource, found.document, found.file)
        )

    def _is_own(
        self, node: _Node, source: KindKey, resource: GitRepository | OCIRepository
    ) -> bool:
        """Whether a source is the very one that the Kustomization stands in."""
        if node.tree is not node.place.tree:
            return False
        if (source, node.tree.root) in self._own_sources:
            return True
        if joined("", node.spec.path) and _holds_itself(node.document.data, node.path):
            # Flux's bootstrap: the Kustomization and its source come together, and what else
            # names the source means the same.
            self._own_sources.add((source, node.tree.root))
            return True
        if isinstance(resource, OCIRepository):
            return False  # what is in a registry need not be what lies here
        reference = resource.spec.ref
        if reference.tag or reference.semver or reference.commit or reference.name:
            return False
        is_same_url = bare_url(resource.spec.url) in node.place.urls
        return is_same_url and node.place.branch in ("", reference.branch or "master")

    def _validated_once(self, source: KindKey, output: _Output) -> tuple[Any, Sequence[Any]]:
        """The resource and its errors: many Kustomizations come for the same one."""
        kind, key = source
        if source not in self._validated:
            self._validated[source] = validate(output.document, KINDS[kind], key.namespace)
        return self._validated[source]

    def _declared_so_far(self) -> DeclarationSet:
        """The repositories and Secrets that came out until now."""
        sources: dict[KindKey, Declared[Source]] = {}
        secrets: dict[DeclarationKey, Declared[Secret]] = {}
        for (kind, key), output in self._objects.items():
            if kind not in ("GitRepository", "Secret"):
                continue
            resource, _ = self._validated_once((kind, key), output)
            if isinstance(resource, Secret):
                secrets[key] = Declared(resource, output.document, output.file)
            elif isinstance(resource, GitRepository):
                sources[kind, key] = Declared(resource, output.document, output.file)
        return DeclarationSet(sources=sources, secrets=secrets)

    async def _variables(self, node: _Node) -> Mapping[str, str]:
        """All variables of a Kustomization; raises HelmopsError."""
        post_build = node.spec.post_build
        if post_build is None:
            return {}
        found: dict[str, str] = {}
        for position, reference in enumerate(post_build.substitute_from):
            place = ("spec", "postBuild", "substituteFrom", position)
            key = DeclarationKey(node.key.namespace, reference.name)
            data = self._declared_data(reference, node)
            if data is None:
                try:
                    data = await self._of_cluster(reference.kind, key, node)
                except HelmopsError as error:
                    raise node.fail(
                        f"{reference.kind} {key} is not declared, and the cluster did not give it: "
                        f"{error.what}",
                        place,
                        error.next_step,
                    ) from None
            if data is None:
                if reference.optional:
                    continue
                where = "nor in the cluster" if self._f._cluster else "and no cluster is asked here"
                raise node.fail(
                    f"{reference.kind} {key} is not declared, {where}",
                    place,
                    "declare it beside the Kustomization, or set `optional: true`",
                )
            if reference.kind == "Secret":
                self._f._hide(data)
            found |= {name: text.decode("utf-8", "replace") for name, text in data.items()}
        found |= post_build.substitute
        found = {name: text.replace("\n", "") for name, text in found.items()}
        try:
            check_names(found)
        except SubstitutionError as error:
            raise node.fail(error.what, ("spec", "postBuild")) from None
        return found

    def _declared_data(
        self, reference: SubstituteReference, node: _Node
    ) -> Mapping[str, bytes] | None:
        key = DeclarationKey(node.key.namespace, reference.name)
        found = self._objects.get((reference.kind, key))
        if found is None:
            return None
        resource, _ = validate(found.document, KINDS[reference.kind], key.namespace)
        return getattr(resource, "content", None)

    async def _of_cluster(
        self, kind: str, key: DeclarationKey, node: _Node
    ) -> Mapping[str, bytes] | None:
        self._used_asked.add((kind, key))
        return await self._f.of_cluster(kind, key, node.spec.interval, self._now)

    # What comes out

    async def _finish(
        self, node: _Node, built: Built, tree: FileTree, variables: Mapping[str, str]
    ) -> None:
        try:
            built = replace(
                built, objects=tuple([o async for o in self._finished(node, built, variables)])
            )
        except DeclarationError as error:
            self._fail(node, _placed(error, node.document.where))
            return
        await self._take(built, node.place, tree, node)

    async def _finished(self, node: _Node, built: Built, variables: Mapping[str, str]) -> Any:
        """The objects, decrypted and with variables substituted, those that concern us."""
        keys: tuple[str, ...] | None = None
        strategy = node.spec.post_build and node.spec.post_build.substitute_strategy
        does_substitute = node.spec.post_build is not None and (
            bool(variables) or strategy == "Always"
        )
        digest = hashlib.sha256(json.dumps(sorted(variables.items())).encode()).hexdigest()
        for number, each in enumerate(built.objects):
            if number % 16 == 15:
                await asyncio.sleep(0)
            data, text = each.data, each.text
            if not _is_ours(data):
                yield each
                continue
            if _is_sealed(data):
                if keys is None:
                    keys = await self._keys(node)
                data = self._opened(node, each, keys)
                text = json.dumps(data)
            if does_substitute and text and not _opts_out(data, "substitute"):
                known = self._f._substituted.get((text, digest))
                data = known or self._substitute(node, each, text, variables)
                self._kept_substituted[text, digest] = data
            yield replace(each, data=self._adorned(node, data), text="")

    def _substitute(
        self, node: _Node, each: BuiltObject, text: str, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        what = f"{each.data.get('kind')} {_metadata(each.data).get('name', '')}"
        try:
            data = parse_object(substitute(text, variables), "")
        except SubstitutionError as error:
            raise DeclarationError(
                f"the variables of {what} cannot be substituted: {error.what}",
                where=f"{node.file.path}",
                field="spec.postBuild",
                next_step=f"look at {each.file} for `${{`",
            ) from None
        except DeclarationError as error:
            raise DeclarationError(
                f"{what} is no YAML once its variables are substituted: {error.what}",
                field="spec.postBuild",
                next_step="look at quotes around the variables, and at their values",
            ) from None
        without_origin(data)
        return data

    def _adorned(self, node: _Node, data: dict[str, Any]) -> dict[str, Any]:
        """With common metadata, Flux's labels of the owner, and its suspension."""
        common = node.spec.common_metadata
        metadata = dict(_metadata(data))
        labels = {**_texts(metadata.get("labels")), **(common.labels if common else {})}
        labels |= {
            f"{_GROUP}/name": node.key.name,
            f"{_GROUP}/namespace": node.key.namespace,
        }
        metadata["labels"] = labels
        if common and common.annotations:
            metadata["annotations"] = {
                **_texts(metadata.get("annotations")),
                **common.annotations,
            }
        adorned = {**data, "metadata": metadata}
        is_left = (
            node.is_suspended
            or _opts_out(data, "reconcile")
            or _marker(data, "ssa").lower() == "ignore"
        )
        if is_left and data.get("kind") == "HelmRelease" and isinstance(data.get("spec"), dict):
            adorned["spec"] = {**data["spec"], "suspend": True}
        return adorned

    async def _keys(self, node: _Node) -> tuple[str, ...]:
        """The age identities in the Secret of `spec.decryption`. Raises HelmopsError."""
        decryption = node.spec.decryption
        if decryption is None or decryption.secret_ref is None:
            return ()
        reference = SubstituteReference(kind="Secret", name=decryption.secret_ref.name)
        data = self._declared_data(reference, node)
        key = DeclarationKey(node.key.namespace, reference.name)
        if data is None:
            data = await self._of_cluster("Secret", key, node)
        if data is None and self._f._cluster is not None:
            raise node.fail(
                f"Secret {key} is not declared, nor in the cluster",
                ("spec", "decryption", "secretRef"),
            )
        self._f._hide(data or {})
        return tuple(
            text.decode("utf-8", "replace")
            for name, text in sorted((data or {}).items())
            if name.endswith(".agekey")
        )

    def _opened(self, node: _Node, each: BuiltObject, keys: tuple[str, ...]) -> dict[str, Any]:
        """An encrypted object, opened. Raises DeclarationError."""
        name = f"{each.data.get('kind')} {_metadata(each.data).get('name', '')} ({each.file})"
        if node.spec.decryption is None:
            raise node.fail(
                f"{name} is encrypted, and there is no `spec.decryption`",
                ("spec",),
                "write `decryption: {provider: sops}`, with a secretRef",
            )
        if self._f._decrypt is None:
            raise NotSupported(
                f"{name} is encrypted, and nothing is decrypted here",
                where=node.document.where_is(("spec", "decryption")),
                field="spec.decryption",
            )
        try:
            return _decrypted(each, self._f._decrypt, keys)
        except HelmopsError as error:
            raise node.fail(error.what, ("spec", "decryption"), error.next_step) from None

    async def _take(self, built: Built, place: Place, tree: FileTree, node: _Node | None) -> None:
        """Hand on the objects of a build, and follow the Kustomizations among them."""
        if tree not in self._trees:
            self._trees.append(tree)
        files: dict[str, SourceFile] = {}
        chain = (*node.chain, node.key) if node is not None else ()
        identity = identity_of(place.identity, chain)
        built_by = BuiltBy(chain, prune=node is None or node.prune)
        for each in built.objects:
            self._read_paths.add((tree.root, each.file))
            data = each.data
            if node is None and _is_sealed(data):
                opened = self._opened_without_kustomization(each, tree)
                if opened is None:
                    continue
                data = opened
            file = files.get(each.file)
            if file is None:
                file = files[each.file] = SourceFile(
                    path=tree.show(each.file),
                    location=f"{tree.root.rstrip('/')}/{each.file}",
                    root=tree.root,
                    built_by=built_by,
                    declared_in=identity,
                )
            if _opts_out(data, "prune") and built_by.prune:
                file = replace(file, built_by=replace(built_by, prune=False))
            document = rebuilt_document(data, file.path, each.line, _text_of(tree, each.file))
            self._register(document, file, place, tree, each.file, node)

    def _opened_without_kustomization(
        self, each: BuiltObject, tree: FileTree
    ) -> dict[str, Any] | None:
        try:
            if self._f._decrypt is None:
                raise NotSupported("encrypted by SOPS, and nothing is decrypted here")
            return _decrypted(each, self._f._decrypt, ())
        except HelmopsError as error:
            where = f"{tree.show(each.file)}:{each.line}"
            self._tell(DeclarationError(error.what, where=where, next_step=error.next_step))
            return None

    def _register(
        self,
        document: Document,
        file: SourceFile,
        place: Place,
        tree: FileTree,
        path: str,
        node: _Node | None,
    ) -> None:
        data = document.data
        chain = file.built_by.chain if file.built_by else ()
        output = _Output(document, file, chain)
        if is_declaration(data):
            identity = identify(document, self._f._default_namespace)
            if identity.model is Kustomization:
                if not self._declare(document, file, place, tree, path, node):
                    return
            elif identity.model is not None and identity.name and identity.kind != "HelmRelease":
                known = self._objects.get((identity.kind, identity.key))
                if known and known.chain != chain and _is_same(known.document.data, data):
                    return  # the same thing, brought by two Kustomizations
                self._objects.setdefault((identity.kind, identity.key), output)
        self._outputs.append(output)

    def _declare(
        self,
        document: Document,
        file: SourceFile,
        place: Place,
        tree: FileTree,
        path: str | None,
        parent: _Node | None,
    ) -> bool:
        """A Kustomization was found: follow it. False where it is one that is known already."""
        key = identify(document, self._f._default_namespace).key
        chain = (*parent.chain, parent.key) if parent is not None else ()
        known = self._nodes.get(key)
        if known is not None:
            return self._declared_again(known, document, tree, chain)
        resource, errors = validate(document, Kustomization, key.namespace)
        if not isinstance(resource, Kustomization):
            # Its errors are told where it is read; of what is in it nothing is known.
            self._nodes[key] = _Node(
                key, document, None, file, place, tree, path or "", chain, error=errors[0]
            )
            return True
        node = _Node(
            key=key,
            document=document,
            resource=resource,
            file=file,
            place=place,
            tree=tree,
            path=path or "",
            chain=chain,
            prune=resource.spec.prune and (parent is None or parent.prune),
            is_suspended=resource.spec.suspend or (parent is not None and parent.is_suspended),
        )
        self._nodes[key] = node
        if len(chain) >= MAX_DEPTH or len(self._nodes) > MAX_KUSTOMIZATIONS:
            many = (
                f"{MAX_DEPTH} Kustomizations within each other"
                if len(chain) >= MAX_DEPTH
                else f"{MAX_KUSTOMIZATIONS} Kustomizations"
            )
            self._fail(node, node.fail(f"more than {many}", ("metadata", "name")))
            return True
        self._pending.append(node)
        return True

    def _declared_again(
        self,
        known: _Node,
        document: Document,
        tree: FileTree,
        chain: tuple[DeclarationKey, ...],
    ) -> bool:
        """Whether it counts as another one. A Kustomization may hold itself, as Flux's bootstrap
        makes it; not by way of others.
        """
        is_same_place = (document.file, document.line) == (known.document.file, known.document.line)
        if known.key in chain:
            if chain[-1] == known.key and is_same_place:
                return False
            way = " -> ".join(str(key) for key in (*chain[chain.index(known.key) :], known.key))
            self._tell(
                DeclarationError(
                    f"the Kustomizations include each other: {way}",
                    where=document.where_is(("spec", "path")),
                    field="spec.path",
                    next_step="a Kustomization must not come out of one that it brings out",
                )
            )
            return False
        if is_same_place and _is_same(known.document.data, document.data):
            return False  # brought by two others, and the same
        self._again.setdefault(known.key, []).append(document)
        return True

    # The end

    def result(self) -> BuiltDeclarations:
        """Everything that came out."""
        self._refuse_circles()
        self._refuse_duplicates()
        failed = {key: node.error for key, node in self._nodes.items() if node.error is not None}
        by_file: dict[SourceFile, list[Document]] = {}
        for output in self._outputs:
            if not any(key in failed for key in output.chain):
                by_file.setdefault(output.file, []).append(output.document)
        self._f._asked = {k: v for k, v in self._f._asked.items() if k in self._used_asked}
        self._f._substituted = self._kept_substituted
        return BuiltDeclarations(
            files=tuple((file, Documents(tuple(found))) for file, found in by_file.items()),
            errors=tuple(self._errors),
            failed=failed,
            suspended=frozenset(key for key, node in self._nodes.items() if node.is_suspended),
            hides_policies=bool(failed or self._errors) and self._may_hide_policies(),
        )

    def _refuse_circles(self) -> None:
        wants = {
            key: wanted_by(key, node.spec)
            for key, node in self._nodes.items()
            if node.error is None
        }
        for key, node in self._nodes.items():
            circle = cycle_through(key, wants) if key in wants else ()
            if circle:
                way = " -> ".join(str(step) for step in (*circle, key))
                error = node.fail(
                    f"the Kustomizations depend on each other in a circle: {way}",
                    ("spec", "dependsOn"),
                    "none of them could ever be ready; remove one dependency",
                )
                self._fail(node, error)

    def _refuse_duplicates(self) -> None:
        """Two Kustomizations of one name: nobody knows which is meant, so neither is followed."""
        for key, others in self._again.items():
            node = self._nodes[key]
            if node.error is None:
                # The error itself is told where duplicates are.
                node.error = node.fail(
                    f"Kustomization {key} is declared more than once, also at {others[0].where}",
                    ("metadata", "name"),
                    "keep one of them; name one cluster's directory with -f",
                )

    def _may_hide_policies(self) -> bool:
        """Whether a file that was not read may hold a policy."""
        for tree in self._trees:
            waiting = [""]
            while waiting:
                directory = waiting.pop()
                try:
                    names = tree.names(directory) or ()
                    for name in names:
                        path = joined(directory, name)
                        if name.endswith("/"):
                            waiting.append(path)
                        elif name.endswith((".yaml", ".yml", ".json")) and (
                            (tree.root, path) not in self._read_paths
                            and b"kind: ReleasePolicy" in (tree.read(path) or b"")
                        ):
                            return True
                except DeclarationError:
                    continue
        return False


def identity_of(place: str, chain: Sequence[DeclarationKey]) -> str:
    """What tells apart what different Kustomizations of a place brought out: a record keeps it."""
    return f"{place}#{','.join(str(key) for key in chain)}" if chain else place


def chain_of(identity: str) -> tuple[str, tuple[DeclarationKey, ...]]:
    """The place and the Kustomizations of an identity."""
    place, mark, names = identity.rpartition("#")
    if not mark or not all(name.count("/") == 1 for name in names.split(",")):
        return identity, ()
    return place, tuple(DeclarationKey(*name.split("/")) for name in names.split(","))


def _overlay_of(spec: KustomizationSpec) -> Overlay:
    return Overlay(
        namespace=spec.target_namespace or "",
        name_prefix=spec.name_prefix or "",
        name_suffix=spec.name_suffix or "",
        components=spec.components,
        ignore_missing_components=spec.ignore_missing_components,
        patches=tuple(patch.manifest() for patch in spec.patches),
        images=tuple(image.manifest() for image in spec.images),
    )


def _substitute_from(node: _Node) -> tuple[SubstituteReference, ...]:
    post_build = node.spec.post_build if node.error is None else None
    return tuple(post_build.substitute_from) if post_build is not None else ()


def _source_of(node: _Node) -> KindKey:
    reference = node.spec.source_ref
    key = DeclarationKey(reference.namespace or node.key.namespace, reference.name)
    return reference.kind, key


def _holds_itself(data: Any, path: str | None) -> bool:
    """Whether a Kustomization's path has the file in it that declares it."""
    spec = data.get("spec") if isinstance(data, dict) else None
    target = spec.get("path") if isinstance(spec, dict) else None
    directory = joined("", str(target or "").lstrip("/"))
    return path is not None and (not directory or path.startswith(f"{directory}/"))


def _is_kustomization(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and data.get("kind") == "Kustomization"
        and str(data.get("apiVersion", "")).startswith(f"{_GROUP}/")
    )


def _is_ours(data: Mapping[str, Any]) -> bool:
    """Whether an object is of a kind, or at least of a group, that is read."""
    group = str(data.get("apiVersion", "")).rpartition("/")[0]
    if not group:
        return data.get("kind") in ("ConfigMap", "Secret")
    return group in _GROUPS


def _is_sealed(data: Mapping[str, Any]) -> bool:
    if isinstance(data.get("sops"), dict):
        return True
    if data.get("kind") != "Secret":
        return False
    return any(is_encrypted(content) for content in _contents(data).values())


def _contents(data: Mapping[str, Any]) -> dict[str, bytes]:
    found = {}
    for name, text in _texts(data.get("data")).items():
        try:
            found[name] = base64.b64decode(text)
        except (binascii.Error, ValueError):
            continue
    return found


def _decrypted(each: BuiltObject, decrypt: Decrypt, keys: Sequence[str]) -> dict[str, Any]:
    """An object that is encrypted, or a Secret made of encrypted files. Raises HelmopsError."""
    data = each.data
    if isinstance(data.get("sops"), dict):
        # Kustomize put the keys in another order, over which the MAC is.
        text = decrypt(
            json.dumps(data).encode(), f"{each.file}.json", age_keys=keys, ignore_mac=True
        )
        found = json.loads(text)
        if not isinstance(found, dict):
            raise DeclarationError("what was decrypted is no object")
        found.pop("sops", None)
        return found
    opened = {
        name: base64.b64encode(decrypt(content, name, age_keys=keys)).decode()
        for name, content in _contents(data).items()
        if is_encrypted(content)
    }
    return {**data, "data": {**data["data"], **opened}}


def _metadata(data: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = data.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _texts(given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        return {}
    return {name: text for name, text in given.items() if isinstance(text, str)}


def _marker(data: Mapping[str, Any], name: str) -> str:
    """A label or annotation of Flux's Kustomizations, which is what Flux looks at, too."""
    metadata = _metadata(data)
    label = _texts(metadata.get("labels")).get(f"{_GROUP}/{name}", "")
    return label or _texts(metadata.get("annotations")).get(f"{_GROUP}/{name}", "")


def _opts_out(data: Mapping[str, Any], of: str) -> bool:
    return _marker(data, of) == _DISABLED


def _is_same(one: Any, other: Any) -> bool:
    """Whether two objects say the same, whoever brought them."""
    return bool(_without_owner(one) == _without_owner(other))


def _without_owner(data: Any) -> Any:
    metadata = {k: v for k, v in _metadata(data).items() if k not in ("labels", "annotations")}
    return {**data, "metadata": metadata} if isinstance(data, dict) else data


def _placed(error: DeclarationError, where: str, name: str = "") -> DeclarationError:
    """An error with the place that asked for it, where it has none of its own."""
    if error.where:
        return error
    return type(error)(
        error.what, where=where, field=error.field or name, next_step=error.next_step
    )


def _steps(name: str) -> Iterator[str | int]:
    """The path of a field such as `spec.components[1]`."""
    for part in name.split("."):
        bare, _, position = part.partition("[")
        yield bare
        if position:
            yield int(position.rstrip("]"))


def _path_in(tree: FileTree, file: SourceFile) -> str | None:
    root = tree.root.rstrip("/") + "/"
    return file.location[len(root) :] if file.location.startswith(root) else None


def _text_of(tree: FileTree, path: str) -> Callable[[], str]:
    def text() -> str:
        try:
            return (tree.read(path) or b"").decode("utf-8", "replace")
        except DeclarationError:
            return ""

    return text
