"""Which files a build of kustomize reads: all that a `kustomization.yaml` names, and what these do.

Known before kustomize runs, so that a path that leaves the repository, a remote base or a circle is
refused with the place that asks for it, and so that an unchanged build is not run again.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from helmops.errors import DeclarationError
from helmops.model.documents import Document, Path, dotted, read_documents
from helmops.sources.file_tree import LeavesTree, TreeView, joined

#: The names of kustomize's own file, in the order in which they are looked for.
KUSTOMIZATION_NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")

#: Files, and bytes in them, that one build may read.
MAX_FILES: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024

_REMOTE: Final = re.compile(
    r"^(git::|gh:|[a-z+]+://|[\w.-]+@[\w.-]+:|github\.com[/:])|\.git(//|\?|$)|[?&](ref|version)=",
    re.I,
)
_GENERATORS: Final = ("configMapGenerator", "secretGenerator")
_PLUGINS: Final = ("generators", "transformers", "validators")
_ENCRYPTED: Final = b"ENC[AES256_GCM,"


@dataclass(slots=True)
class Inputs:
    """What a build reads. `files` has contents by path; `absent` and `listed` are what the answer
    depends on, too: files that are not there, and directories whose names were read.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    #: Directories by the path that names them, where a link leads to another one.
    links: dict[str, str] = field(default_factory=dict)
    is_remote: bool = False
    #: Places that name files which SOPS encrypted.
    encrypted: list[str] = field(default_factory=list)
    #: Directories that are built into this one.
    directories: set[str] = field(default_factory=set)


def kustomization_file(tree: TreeView, directory: str) -> str:
    """The path of a directory's kustomization file; empty where it has none.

    Raises DeclarationError where there are several.
    """
    found = [path for name in KUSTOMIZATION_NAMES if tree.is_file(path := joined(directory, name))]
    if len(found) > 1:
        raise DeclarationError(
            f"the directory has {' and '.join(posixpath.basename(path) for path in found)}",
            where=tree.show(found[1]),
            next_step="keep one of them",
        )
    return found[0] if found else ""


def read_kustomization(path: str, content: bytes) -> Document:
    """The one document in a kustomization file. Raises DeclarationError."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise DeclarationError("not text in UTF-8", where=path) from None
    documents = read_documents(path, text)
    if documents.errors:
        raise documents.errors[0]
    if len(documents.documents) != 1 or not isinstance(documents.documents[0].data, dict):
        raise DeclarationError("must be one mapping", where=f"{path}:1")
    return documents.documents[0]


class InputReader:
    """Collects what a build reads, within its bounds."""

    def __init__(self, tree: TreeView, *, allow_remote: bool) -> None:
        self._tree = tree
        self._allow_remote = allow_remote
        self._size = 0
        self.inputs = Inputs()

    def directory(self, path: str, *, named_at: str, above: tuple[str, ...] = ()) -> None:
        """A directory with a kustomization file, which is read. Raises DeclarationError."""
        real = self._tree.real(path)
        if real != path:
            self.inputs.links[path] = real
        if real in above:
            circle = " -> ".join((*above[above.index(real) :], real))
            raise DeclarationError(
                f"the kustomizations include each other: {circle}",
                where=named_at,
                next_step="remove one of the references",
            )
        if real in self.inputs.directories:
            return
        self.inputs.directories.add(real)
        file = kustomization_file(self._tree, real)
        if not file:
            raise DeclarationError(
                f"`{path}` has no kustomization.yaml",
                where=named_at,
                next_step="name its files, or add a kustomization.yaml that lists them",
            )
        for name in KUSTOMIZATION_NAMES:
            other = joined(real, name)
            if other != file:
                self.inputs.absent.add(other)
        content = self._file(file, named_at)
        self.kustomization(real, read_kustomization(self._tree.show(file), content), above)

    def kustomization(self, directory: str, document: Document, above: tuple[str, ...]) -> None:
        """Everything that a kustomization of a directory names. Raises DeclarationError."""
        within = (*above, directory)
        for name in ("helmCharts", "helmChartInflationGenerator"):
            if document.data.get(name):
                raise DeclarationError(
                    "charts in a kustomization are not rendered",
                    where=document.where_is((name,)),
                    field=name,
                    next_step="write a HelmRelease for them",
                )
        for path, reference, may_be_directory in references(document.data):
            place = document.where_is(path)
            before = set(self.inputs.files)
            self._reference(directory, reference, place, dotted(path), within, may_be_directory)
            if path[0] in _PLUGINS:
                for added in self.inputs.files.keys() - before:
                    self._plugins(directory, self.inputs.files[added], place, dotted(path))
        for name in _PLUGINS:
            for position, item in _texts(document.data.get(name)):
                if _is_inline(item):
                    place = document.where_is((name, position))
                    self._plugins(directory, item.encode(), place, dotted((name, position)))

    def scanned(self, directory: str) -> list[str]:
        """What Flux puts into the kustomization of a directory without one: its YAML files, also
        those of directories in it, and directories that have one. Raises DeclarationError.
        """
        found: list[str] = []
        waiting = [directory]
        while waiting:
            current = waiting.pop()
            self.inputs.listed.add(current)
            names = self._tree.names(current) or ()
            if "Chart.yaml" in names:
                continue
            for name in names:
                path = joined(current, name)
                if name.endswith("/"):
                    if self._tree.real(path) != path:
                        continue  # a link: Flux's walk does not follow them
                    for other in KUSTOMIZATION_NAMES:
                        self.inputs.absent.add(posixpath.join(path, other))
                    if kustomization_file(self._tree, path):
                        found.append(path)
                    else:
                        waiting.append(path)
                elif name.endswith((".yaml", ".yml")):
                    found.append(path)
            if len(found) > MAX_FILES:
                raise DeclarationError(
                    f"more than {MAX_FILES} files", where=self._tree.show(directory)
                )
        self.inputs.absent = {p for p in self.inputs.absent if not self._tree.is_file(p)}
        return sorted(found)

    def _plugins(self, directory: str, content: bytes, where: str, name: str) -> None:
        """The files that configurations of built-in plugins name, where they are files."""
        for document in read_documents(where, content.decode("utf-8", "replace")).documents:
            for reference in paths_of_plugin(document.data):
                path = joined(directory, reference)
                if _REMOTE.search(reference):
                    self._reference(directory, reference, where, name, (), False)
                elif posixpath.isabs(reference) or path.startswith("../"):
                    raise LeavesTree(
                        f"`{reference}` leads out of the repository", where=where, field=name
                    )
                elif self._tree.is_file(path):
                    self._file(path, where)

    def _reference(
        self,
        directory: str,
        reference: str,
        where: str,
        name: str,
        above: tuple[str, ...],
        may_be_directory: bool,
    ) -> None:
        try:
            path = joined(directory, reference)
            if posixpath.isabs(reference):
                raise LeavesTree(f"`{reference}` leads out of the repository")
            if not _REMOTE.search(reference) or self._tree.is_file(path):
                if may_be_directory and self._tree.is_directory(path):
                    self.directory(path, named_at=where, above=above)
                    return
                if self._tree.is_file(path):
                    self._file(path, where)
                    return
                self.inputs.absent.add(path)
                if self._tree.ignores(path):
                    raise DeclarationError(
                        f"`{reference}` is ignored: Flux leaves it out",
                        next_step="see .sourceignore, and `ignore` of the GitRepository",
                    )
                raise DeclarationError(
                    f"`{reference}` does not exist", next_step="paths are relative to this file"
                )
        except DeclarationError as error:
            raise DeclarationError(
                error.what,
                where=error.where or where,
                field=error.field or ("" if error.where else name),
                next_step=error.next_step,
            ) from None
        if not self._allow_remote:
            raise DeclarationError(
                f"`{_shown(reference)}` is a remote base, and these are not loaded",
                where=where,
                field=name,
                next_step="copy it into the repository, or allow them with --remote-bases",
            )
        self.inputs.is_remote = True

    def _file(self, path: str, where: str) -> bytes:
        if path in self.inputs.files:
            return self.inputs.files[path]
        content = self._tree.read(path)
        if content is None:
            raise DeclarationError(f"`{path}` does not exist", where=where)
        real = self._tree.real(path)
        if real != path:
            self.inputs.links[path] = real
        self._size += len(content)
        if len(self.inputs.files) >= MAX_FILES or self._size > MAX_BYTES:
            raise DeclarationError(
                f"more than {MAX_FILES} files or {MAX_BYTES // 1024 // 1024} MiB", where=where
            )
        self.inputs.files[path] = content
        if _ENCRYPTED in content:
            self.inputs.encrypted.append(path)
        return content


def references(data: Mapping[str, Any]) -> Iterator[tuple[Path, str, bool]]:
    """Every path that a kustomization names: where, the path, and whether it may be a directory.

    What is not as kustomize wants it is passed over: kustomize says so.
    """
    for name in ("resources", "bases", "components"):
        for position, item in _texts(data.get(name)):
            yield (name, position), item, True
    for name in ("crds", "configurations"):
        for position, item in _texts(data.get(name)):
            yield (name, position), item, False
    for name in ("patches", "patchesJson6902", "replacements"):
        for position, entry in _mappings(data.get(name)):
            if isinstance(entry.get("path"), str) and entry["path"]:
                yield (name, position, "path"), entry["path"], False
    for position, item in _texts(data.get("patchesStrategicMerge")):
        if "\n" not in item and ":" not in item.rstrip(":"):
            yield ("patchesStrategicMerge", position), item, False
    openapi = data.get("openapi")
    if isinstance(openapi, dict) and isinstance(openapi.get("path"), str):
        yield ("openapi", "path"), openapi["path"], False
    for name in _GENERATORS:
        for position, entry in _mappings(data.get(name)):
            for path, reference in _of_generator(entry):
                yield (name, position, *path), reference, False
    for name in _PLUGINS:
        for position, item in _texts(data.get(name)):
            if not _is_inline(item):
                yield (name, position), item, True


def paths_of_plugin(data: Any) -> Iterator[str]:
    """Every text in the configuration of a built-in plugin that may be the path of a file; not all
    are: a `fieldSpecs` has paths, too.
    """
    if isinstance(data, list):
        for item in data:
            yield from paths_of_plugin(item)
    elif isinstance(data, dict):
        yield from (reference for _, reference in _of_generator(data))
        for key, value in data.items():
            if key in ("path", "valuesFile") and isinstance(value, str):
                yield value
            elif key == "paths":
                yield from (item for _, item in _texts(value))
            else:
                yield from paths_of_plugin(value)


def _of_generator(item: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for position, file in _texts(item.get("files")):
        key, equals, path = file.partition("=")
        yield ("files", position), path if equals else key
    for position, file in _texts(item.get("envs")):
        yield ("envs", position), file
    if isinstance(item.get("env"), str):
        yield ("env",), item["env"]


def _is_inline(item: str) -> bool:
    """Whether a plugin's configuration stands there itself, not the path of one."""
    return "\n" in item or item.lstrip().startswith("{")


def _texts(given: Any) -> Iterator[tuple[int, str]]:
    if isinstance(given, list):
        for position, item in enumerate(given):
            if isinstance(item, str):
                yield position, item


def _mappings(given: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if isinstance(given, list):
        for position, item in enumerate(given):
            if isinstance(item, dict):
                yield position, item


def _shown(reference: str) -> str:
    """A URL without its user and query."""
    return re.sub(r"//[^/@\s]+@", "//", reference).split("?")[0][:200]
