"""Files to declarations: reads them all, and sorts the good from the bad."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from helmops.errors import DeclarationError, DecryptionFailed
from helmops.model.declarations import (
    Alert,
    ConfigMap,
    HelmRelease,
    Kustomization,
    Provider,
    Receiver,
    ReleasePolicy,
    ReleasePolicySpec,
    ReleaseSelector,
    Resource,
    Secret,
    Source,
)
from helmops.model.declarations.validation import (
    Identity,
    check_identity,
    identify,
    is_declaration,
    validate,
)
from helmops.model.declared import (
    BuiltBy,
    DeclarationSet,
    Declared,
    KindKey,
    SourceFile,
    sections_of,
    unsupported,
    unsupported_fields,
)
from helmops.model.documents import Document, Documents, read_documents
from helmops.model.globs import Glob, compiled, has_wildcards
from helmops.model.releases import DeclarationKey, ReleaseId

__all__ = [
    "BuiltDeclarations",
    "DeclarationSet",
    "Declared",
    "KindKey",
    "SourceFile",
    "read_declarations",
    "unsupported",
    "unsupported_fields",
]

T = TypeVar("T")

_FileReading = tuple[str, tuple[DeclarationKey, ...]]


@dataclass(frozen=True, slots=True)
class BuiltDeclarations:
    """What kustomize made of directories, and what it could not.

    `failed` are the Kustomizations of which nothing is known now: the releases that came out of
    them before stay untouched. `suspended` ones were built, but nothing that vanished from them is
    removed. With `hides_policies`, something that failed may hold policies.
    """

    files: tuple[tuple[SourceFile, Documents], ...] = ()
    errors: tuple[DeclarationError, ...] = ()
    failed: Mapping[DeclarationKey, DeclarationError] = field(default_factory=dict)
    suspended: frozenset[DeclarationKey] = frozenset()
    hides_policies: bool = False


def read_declarations(
    files: Iterable[SourceFile],
    *,
    default_namespace: str = "default",
    previous: DeclarationSet | None = None,
    built: BuiltDeclarations | None = None,
) -> DeclarationSet:
    """Read files to what they declare. Raises nothing: all errors are in the set.

    `previous` is what the same files said before. A policy that can no longer be read stays in
    force from there; without it, the releases that the policy may be for are `untouched`. So are
    the releases of a file that can no longer be read, and of a Kustomization that failed.
    """
    built = built or BuiltDeclarations()
    reading = _Reading(default_namespace, previous, built)
    for file, documents in _read_files(files):
        reading.take(file, documents)
    for file, documents in built.files:
        reading.take(file, documents)
    return reading.finish()


def _read_files(files: Iterable[SourceFile]) -> list[tuple[SourceFile, Documents]]:
    """The documents of each file, once; values files hold none."""
    once = {file.location or file.path: file for file in files}
    read = [(file, _documents_of(file)) for file in once.values()]
    referenced = {
        posixpath.normpath(posixpath.join(posixpath.dirname(file.path), path))
        for file, documents in read
        for document in documents.documents
        for path in _referenced_files(document.data)
    }
    patterns = [compiled(path) for path in referenced if has_wildcards(path)]
    return [
        # Encrypted values concern nobody but the releases that they are of.
        (replace(file, error=None), Documents())
        if _is_readable(file) and _holds_values(file.path, documents, referenced, patterns)
        else (file, documents if file.text or file.error else _empty(file))
        for file, documents in read
    ]


def _is_readable(file: SourceFile) -> bool:
    """Whether there is text that tells what it is, encrypted or not."""
    return file.error is None or isinstance(file.error, DecryptionFailed)


def _documents_of(file: SourceFile) -> Documents:
    # An encrypted file that nothing decrypts still names what it declares.
    return read_documents(file.path, file.text) if _is_readable(file) else Documents()


def _empty(file: SourceFile) -> Documents:
    """A file without a single character may be one that is just being written."""
    error = DeclarationError(
        "the file is empty",
        where=file.path,
        next_step="delete it, if what it declared is no longer wanted",
    )
    return Documents(errors=(error,), complete=False)


def _referenced_files(data: Any) -> Iterator[str]:
    try:
        references = data["spec"]["valuesFrom"]
        for reference in references:
            if reference["kind"] == "File" and isinstance(reference["path"], str):
                yield reference["path"]
    except (KeyError, TypeError):
        return


#: Named as values files, and kustomize's own, are by custom.
_VALUES_NAMES = ("values*.yaml", "values*.yml", "values*.json", "*.values.yaml", "*.values.yml")
_KUSTOMIZE_NAMES = ("kustomization.yaml", "kustomization.yml")


def _holds_values(
    path: str, documents: Documents, referenced: set[str], patterns: Sequence[Glob]
) -> bool:
    if any(is_declaration(document.data) for document in documents.documents):
        return False
    name = posixpath.basename(path)
    normal = posixpath.normpath(path)
    return (
        normal in referenced
        or any(pattern.matches(normal) for pattern in patterns)
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in _VALUES_NAMES + _KUSTOMIZE_NAMES)
    )


@dataclass
class _Found:
    """A document of a kind that is read, before it is known to be good."""

    identity: Identity
    document: Document
    file: SourceFile
    resource: Resource | None = None

    @property
    def kind_key(self) -> KindKey:
        return self.identity.kind, self.identity.key


class _Reading:
    """Collects what files hold, then sorts the good from the bad."""

    def __init__(
        self, default_namespace: str, previous: DeclarationSet | None, built: BuiltDeclarations
    ) -> None:
        self._default_namespace = default_namespace
        self._previous = previous
        self._built = built
        self._found: list[_Found] = []
        self._errors: list[DeclarationError] = list(built.errors)
        self._first_error: dict[_FileReading, DeclarationError] = {}
        self._broken: dict[KindKey, DeclarationError] = {
            ("Kustomization", key): error for key, error in built.failed.items()
        }
        self._ignored: Counter[str] = Counter()
        self._half_read: list[SourceFile] = []
        self._kept_chains: dict[DeclarationKey, BuiltBy] = {}
        self._is_complete = not built.failed and not built.errors

    def take(self, file: SourceFile, documents: Documents) -> None:
        """Take in one file."""
        errors = [file.error] if file.error else list(documents.errors)
        for error in errors:
            self._say(error, file)
        if file.error or not documents.complete:
            self._half_read.append(file)
        if errors:
            # Names may be among what could not be read.
            self._is_complete = False
        for document in documents.documents:
            if isinstance(file.error, DecryptionFailed):
                self._take_unreadable(document, file.error)
            else:
                self._take_document(document, file)

    def _take_unreadable(self, document: Document, error: DeclarationError) -> None:
        """Note what a document declares that cannot be read: nothing else is it."""
        if is_declaration(document.data):
            identity = identify(document, self._default_namespace)
            if identity.model is not None and identity.name:
                self._broken.setdefault((identity.kind, identity.key), error)

    def _say(self, error: DeclarationError, file: SourceFile) -> None:
        self._errors.append(error)
        self._first_error.setdefault(file.reading, error)

    def _take_document(self, document: Document, file: SourceFile) -> None:
        if not is_declaration(document.data):
            self._is_complete = False
            error = DeclarationError(
                "neither `apiVersion` nor `kind`: this is no declaration",
                where=document.where,
                next_step="name values files `values*.yaml`, or refer to them by `valuesFrom`",
            )
            self._say(error, file)
            return
        identity = identify(document, self._default_namespace)
        error_of_identity = check_identity(document, identity)
        if identity.model is None:
            if error_of_identity is None:
                self._ignored[f"{identity.kind} ({identity.group or 'core'})"] += 1
                return
            if identity.kind == "HelmRelease" and identity.name:
                self._broken.setdefault(("HelmRelease", identity.key), error_of_identity)
        found = _Found(identity, document, file)
        errors: Sequence[DeclarationError] = (
            (error_of_identity,) if error_of_identity is not None else ()
        )
        if identity.model is not None and not errors:
            found.resource, errors = validate(document, identity.model, identity.namespace)
        for error in errors:
            self._say(error, file)
        if errors and not identity.is_certain:
            self._is_complete = False
        if identity.model is None:
            return
        self._found.append(found)
        if errors and identity.name:
            self._broken.setdefault(found.kind_key, errors[0])

    def finish(self) -> DeclarationSet:
        """What was found, sorted."""
        self._refuse_duplicates()
        good = [
            Declared(found.resource, found.document, found.file)
            for found in self._found
            if found.resource is not None and found.kind_key not in self._broken
        ]
        self._refuse_shared_release_names(_of_kind(good, HelmRelease))
        self._refuse_cycles(_of_kind(good, HelmRelease))
        policies = _of_kind(good, ReleasePolicy) | self._kept_policies()
        self._refuse_releases_of_bad_files(_of_kind(good, HelmRelease))
        self._refuse_releases_of_files_that_were_good()
        self._refuse_releases_of_failed_kustomizations()
        self._refuse_hidden_policies(_of_kind(good, HelmRelease), policies)
        self._refuse_policy_conflicts(_of_kind(good, HelmRelease), policies)
        untouched = {
            key: error for (kind, key), error in self._broken.items() if kind == "HelmRelease"
        }
        releases = {
            key: release
            for key, release in _of_kind(good, HelmRelease).items()
            if key not in untouched
        }
        return DeclarationSet(
            releases=MappingProxyType(releases),
            sources=MappingProxyType(
                {
                    (item.resource.kind, item.key): Declared(
                        item.resource, item.document, item.file
                    )
                    for item in good
                    if isinstance(item.resource, Source)
                }
            ),
            policies=MappingProxyType(policies),
            config_maps=MappingProxyType(_of_kind(good, ConfigMap)),
            secrets=MappingProxyType(_of_kind(good, Secret)),
            alerts=MappingProxyType(_of_kind(good, Alert)),
            providers=MappingProxyType(_of_kind(good, Provider)),
            receivers=MappingProxyType(_of_kind(good, Receiver)),
            errors=tuple(sorted({str(e): e for e in self._errors}.values(), key=_place)),
            bad_files=frozenset(path for path, _ in self._first_error),
            untouched=MappingProxyType(untouched),
            broken=MappingProxyType(
                {key: error for key, error in self._broken.items() if key[0] != "HelmRelease"}
            ),
            kustomizations=MappingProxyType(_of_kind(good, Kustomization)),
            built_by=MappingProxyType(self._chains()),
            complete=self._is_complete,
            ignored=MappingProxyType(dict(sorted(self._ignored.items()))),
        )

    def _chains(self) -> dict[DeclarationKey, BuiltBy]:
        chains = dict(self._kept_chains)
        for one in self._found:
            built_by = one.file.built_by
            if one.identity.kind == "HelmRelease" and built_by is not None:
                chains[one.identity.key] = built_by
        return chains

    def _refuse(self, item: _Found | Declared[Resource], error: DeclarationError) -> None:
        """Mark one declaration as unusable, for a reason that is not its file's."""
        self._errors.append(error)
        if isinstance(item, _Found):
            self._broken.setdefault(item.kind_key, error)
        else:
            self._broken.setdefault((item.resource.kind, item.key), error)

    def _refuse_duplicates(self) -> None:
        by_key: defaultdict[KindKey, list[_Found]] = defaultdict(list)
        for found in self._found:
            if found.identity.name:
                by_key[found.kind_key].append(found)
        for (kind, key), several in by_key.items():
            if len(several) < 2:
                continue
            for one in several:
                others = ", ".join(o.document.where for o in several if o is not one)
                error = DeclarationError(
                    f"{kind} {key} is declared more than once, also at {others}",
                    where=one.document.where,
                    field="metadata.name",
                    next_step="keep one of them",
                )
                self._refuse(one, error)

    def _refuse_shared_release_names(
        self, releases: Mapping[DeclarationKey, Declared[HelmRelease]]
    ) -> None:
        by_id: defaultdict[ReleaseId, list[Declared[HelmRelease]]] = defaultdict(list)
        for release in releases.values():
            by_id[release.resource.release_id].append(release)
        for release_id, several in by_id.items():
            if len(several) < 2:
                continue
            for one in several:
                others = ", ".join(f"{o.key} ({o.where})" for o in several if o is not one)
                error = DeclarationError(
                    f"{one.key} gives helm the release {release_id}, and so does {others}",
                    where=one.where_is(("spec", "releaseName")),
                    field="spec.releaseName",
                    next_step="give each a `releaseName` or `targetNamespace` of its own",
                )
                self._refuse(one, error)

    def _refuse_cycles(self, releases: Mapping[DeclarationKey, Declared[HelmRelease]]) -> None:
        wants = {
            key: [
                DeclarationKey(other.namespace or key.namespace, other.name)
                for other in release.resource.spec.depends_on
            ]
            for key, release in releases.items()
        }
        for key, release in releases.items():
            cycle = cycle_through(key, wants)
            if not cycle:
                continue
            way = " -> ".join(str(step) for step in (*cycle, key))
            error = DeclarationError(
                f"the releases depend on each other in a circle: {way}",
                where=release.where_is(("spec", "dependsOn")),
                field="spec.dependsOn",
                next_step="none of them could ever begin; remove one dependency",
            )
            self._refuse(release, error)

    def _refuse_releases_of_bad_files(
        self, releases: Mapping[DeclarationKey, Declared[HelmRelease]]
    ) -> None:
        for key, release in releases.items():
            error = self._first_error.get(release.file.reading)
            if error is not None:
                # The error itself is told already.
                self._broken.setdefault(("HelmRelease", key), error)

    def _refuse_releases_of_files_that_were_good(self) -> None:
        """Releases of before that cannot be seen now, because their file cannot be read."""
        if self._previous is None:
            return
        errors = {file.path: self._first_error[file.reading] for file in self._half_read}
        found = {one.identity.key for one in self._found if one.identity.kind == "HelmRelease"}
        before = {key: release.file.path for key, release in self._previous.releases.items()}
        for key, error in self._previous.untouched.items():
            path, colon, line = error.where.rpartition(":")
            before[key] = path if colon and line.isdecimal() else error.where
        for key, path in before.items():
            if path in errors and key not in found:
                self._broken.setdefault(("HelmRelease", key), errors[path])

    def _refuse_releases_of_failed_kustomizations(self) -> None:
        """Releases of before that came out of a Kustomization of which nothing is known now."""
        if self._previous is None:
            return
        found = {one.identity.key for one in self._found if one.identity.kind == "HelmRelease"}
        for key, built_by in self._previous.built_by.items():
            if key in found:
                continue
            for outer in built_by.chain:
                error = self._built.failed.get(outer)
                if error is None and outer in self._built.suspended:
                    error = DeclarationError(
                        f"Kustomization {outer} is suspended: {key} stays as it is, though "
                        "it is no longer in it",
                        next_step="set spec.suspend to false",
                    )
                if error is not None:
                    self._broken.setdefault(("HelmRelease", key), error)
                    self._kept_chains[key] = built_by
                    break

    def _kept_policies(self) -> dict[DeclarationKey, Declared[ReleasePolicy]]:
        """Policies of before that cannot be read now, but were not removed either."""
        if self._previous is None:
            return {}
        half_read = {file.path for file in self._half_read}
        failed = self._built.failed.keys()
        found = {one.identity.key for one in self._found if one.identity.kind == "ReleasePolicy"}
        return {
            key: policy
            for key, policy in self._previous.policies.items()
            if ("ReleasePolicy", key) in self._broken
            or (policy.file.path in half_read and key not in found)
            or (
                policy.file.built_by is not None
                and not failed.isdisjoint(policy.file.built_by.chain)
                and key not in found
            )
        }

    def _refuse_hidden_policies(
        self,
        releases: Mapping[DeclarationKey, Declared[HelmRelease]],
        in_force: Mapping[DeclarationKey, Declared[ReleasePolicy]],
    ) -> None:
        """A release must not be acted on without the policy that somebody wrote for it."""
        for found in self._found:
            if found.identity.kind != "ReleasePolicy" or found.identity.key in in_force:
                continue
            reason = self._broken.get(found.kind_key) or self._first_error[found.file.reading]
            selector = _readable_selector(found.document.data)
            for key, release in releases.items():
                labels = release.resource.metadata.labels
                if key.namespace == found.identity.namespace and (
                    selector is None or selector.matches(key.name, labels)
                ):
                    self._refuse_for_policy(release, reason)
        known = {policy.file.path for policy in in_force.values()}
        for file in self._half_read:
            if file.path not in known and "ReleasePolicy" in file.text:
                for release in releases.values():
                    self._refuse_for_policy(release, self._first_error[file.reading])
        if self._built.hides_policies and self._previous_has_no_built():
            reason = next(iter((*self._built.failed.values(), *self._built.errors)))
            for release in releases.values():
                self._refuse_for_policy(release, reason)

    def _previous_has_no_built(self) -> bool:
        """Whether nothing is known of what was built before, as when helmops begins."""
        return self._previous is None or not self._previous.kustomizations

    def _refuse_for_policy(self, release: Declared[HelmRelease], reason: DeclarationError) -> None:
        if ("HelmRelease", release.key) in self._broken:
            return
        error = DeclarationError(
            f"{release.key} stays as it is: a policy that may be for it cannot be read",
            where=release.where,
            next_step=f"mend {reason.where}",
        )
        self._refuse(release, error)

    def _refuse_policy_conflicts(
        self,
        releases: Mapping[DeclarationKey, Declared[HelmRelease]],
        policies: Mapping[DeclarationKey, Declared[ReleasePolicy]],
    ) -> None:
        among = DeclarationSet(releases=releases, policies=policies)
        for key, release in releases.items():
            said: dict[str, Declared[ReleasePolicy]] = {}
            for policy in among.policies_of(key):
                for section in sections_of(policy.resource.spec):
                    other = said.setdefault(section, policy)
                    if other is policy:
                        continue
                    name = ReleasePolicySpec.model_fields[section].alias or section
                    error = DeclarationError(
                        f"the policies {other.key} ({other.where}) and {policy.key} both say "
                        f"`{name}` for the release {key}",
                        where=policy.where_is(("spec", name)),
                        field=f"spec.{name}",
                        next_step="let only one of them say it, or narrow a selector",
                    )
                    self._refuse(release, error)


def _of_kind(
    declared: Iterable[Declared[Resource]], kind: type[T]
) -> dict[DeclarationKey, Declared[Any]]:
    return {item.key: item for item in declared if isinstance(item.resource, kind)}


def _readable_selector(data: Any) -> ReleaseSelector | None:
    """The selector of a policy that has errors elsewhere; None where it cannot be known."""
    try:
        return ReleaseSelector.model_validate(data["spec"].get("selector") or {})
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def _place(error: DeclarationError) -> tuple[str, int, str]:
    file, _, line = error.where.rpartition(":")
    return (file, int(line), error.field) if re.fullmatch("[0-9]+", line) else (error.where, 0, "")


def cycle_through(
    start: DeclarationKey, wants: Mapping[DeclarationKey, Sequence[DeclarationKey]]
) -> tuple[DeclarationKey, ...]:
    """The shortest circle of dependencies that a release is in, from itself on; empty if none."""
    ways: dict[DeclarationKey, tuple[DeclarationKey, ...]] = {start: (start,)}
    at_hand = [start]
    for key in at_hand:
        for wanted in wants.get(key, ()):
            if wanted == start:
                return ways[key]
            if wanted not in ways:
                ways[wanted] = (*ways[key], wanted)
                at_hand.append(wanted)
    return ()
