"""What one `-f` names, and which of its files are read as they are, built, or left to others.

A directory with a `kustomization.yaml` is built. A directory that a Flux Kustomization's `path`
names is that Kustomization's: it is not read a second time by itself. So the root of a whole
repository can be named as well as the directory of one cluster in it.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from helmops.errors import DeclarationError
from helmops.model.declarations.kustomization import FILE_SOURCES
from helmops.model.declared import SourceFile
from helmops.sources.file_tree import FileTree, joined
from helmops.sources.kustomize_files import (
    KUSTOMIZATION_NAMES,
    read_kustomization,
    references,
)

_FLUX: Final = re.compile(r"^\"?apiVersion\"?: *[\"']?kustomize\.toolkit\.fluxcd\.io/", re.M)
_KUSTOMIZATION: Final = re.compile(r"^kind: *[\"']?Kustomization\b", re.M)
_PATH: Final = re.compile(r"^ {1,6}path: *[\"']?([^\s\"'#]*)", re.M)
_SOURCE: Final = re.compile(r"^ {1,6}sourceRef:((?:.*\n?)(?:^ {3,}.*\n?)*)", re.M)
_NAME: Final = re.compile(r"\bname: *[\"']?([^\s\"'#,}]+)")
_URL: Final = re.compile(r"\burl: *[\"']?([^\s\"'#,}]+)")
_KIND: Final = re.compile(r"\bkind: *[\"']?(\w+)")
_REPOSITORY: Final = re.compile(rf"^kind: *[\"']?({'|'.join(FILE_SOURCES)})\b", re.M)
_SEPARATOR: Final = re.compile(r"^---.*$", re.M)
_COMPONENT: Final = re.compile(r"^kind: *[\"']?Component\b", re.M)


@dataclass(slots=True)
class Place:
    """One `-f`. `identity` tells it from any other in the world, `start` is the path in `tree` that
    it names. `urls` are those of the repository that it is a part of, without scheme and user, and
    `branch` is the one that is checked out, as far as they are known.
    """

    label: str
    identity: str
    tree: FileTree
    start: str = ""
    urls: frozenset[str] = frozenset()
    branch: str = ""


@dataclass(slots=True)
class Split:
    """The files of a place: `raw` are read as they are, `units` are directories to build. Of those
    in `partly`, only the Kustomizations count that hold them: the rest comes out of these.
    """

    raw: list[SourceFile] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    partly: set[str] = field(default_factory=set)
    errors: list[DeclarationError] = field(default_factory=list)


def open_place(label: str, path: str, identity: str) -> Place:
    """A directory or file of this machine. Its tree is the Git checkout that it is in, or else the
    directory itself.
    """
    location = os.path.realpath(path)
    directory = location if os.path.isdir(location) else os.path.dirname(location)
    git = _git_directory(directory)
    root = os.path.dirname(git) if git else directory
    start = "" if location == root else os.path.relpath(location, root)
    place = Place(label, identity, FileTree(root), start)
    place.tree.show = lambda path: shown_beside(label, start, path)
    if git:
        place.urls, place.branch = _remotes(git)
    return place


def open_checkout(label: str, identity: str, root: str, start: str, url: str, branch: str) -> Place:
    """A commit of a repository, checked out at `root`."""
    tree = FileTree(root, frozen=True, show=lambda path: shown_in_git(label, start, path))
    return Place(label, identity, tree, start.strip("/"), frozenset({bare_url(url)}), branch)


def shown_beside(label: str, start: str, path: str) -> str:
    """What people are told of a path in the tree: relative to what they wrote."""
    if not start or path == start or path.startswith(f"{start}/"):
        return posixpath.join(label, path[len(start) :].lstrip("/")) if path != start else label
    return posixpath.normpath(posixpath.join(label, posixpath.relpath(path or ".", start)))


def shown_in_git(label: str, start: str, path: str) -> str:
    """The same for a Git location, whose `label` may end in `?path=…`."""
    start = start.strip("/")
    if start and label.endswith(f"?path={start}"):
        return f"{label[: -len(start)]}{path}"
    return f"{label}/{path}" if path else label


def bare_url(url: str) -> str:
    """A repository's URL for comparing: host and path, without scheme, user, port and `.git`."""
    if "://" not in url and (found := re.match(r"(?:[^@/]+@)?([\w.-]+):(?!//)(.+)", url)):
        url = f"ssh://{found[1]}/{found[2]}"
    parts = urlsplit(url)
    path = parts.path.strip("/").removesuffix(".git").rstrip("/")
    return f"{(parts.hostname or '').lower()}/{path}"


def split(place: Place, files: Iterable[SourceFile]) -> Split:
    """Sort the files that were found below a place's start. Raises nothing."""
    paths = {_path_in(place.tree, file): file for file in files}
    inside = {path: file for path, file in paths.items() if path is not None}
    result = Split(raw=[file for path, file in paths.items() if path is None])
    directories = _kustomized(place.tree, inside)
    tops = _outermost(directories)
    entries: dict[str, list[str]] = {top: [] for top in tops}
    for path in inside:
        top = next((t for t in _above(path) if t in tops), None)
        entries.setdefault(path if top is None else top, []).append(path)
    claims = _claims(place, inside)
    if not directories and not claims:
        result.raw = list(paths.values())
        return result
    taken: dict[str, str] = {}
    partly: set[str] = set()
    for entry, held in entries.items():
        for path, targets in claims.items():
            if any(_is_below(entry, target) for target in targets):
                if path in held:
                    partly.add(entry)
                else:
                    taken[entry] = path
    result.partly = partly - taken.keys()
    result.errors += _circles(place, entries, claims, taken)
    included = _included(place.tree, [top for top in tops if top not in taken], directories)
    for entry in sorted(entries.keys() - taken.keys()):
        if entry not in tops:
            result.raw.append(inside[entry])
        elif entry not in included and not _COMPONENT.search(directories[entry]):
            result.units.append(entry)
    return result


@dataclass(frozen=True, slots=True)
class _Claim:
    """A directory that a Kustomization names (empty: all), and kind and name of its source."""

    directory: str
    source: tuple[str, str]


def claimed(text: str) -> list[_Claim]:
    """What the Flux Kustomizations in a text name. Of a path with a variable, what is before it."""
    if "kustomize.toolkit.fluxcd.io/" not in text:
        return []
    found = []
    for document in _SEPARATOR.split(text):
        if _FLUX.search(document) and _KUSTOMIZATION.search(document):
            path, source = _PATH.search(document), _SOURCE.search(document)
            name = path[1] if path else ""
            if "${" in name:
                name = posixpath.dirname(name[: name.index("${")] + "x")
            of = source[1] if source else ""
            kind = _KIND.search(of)
            found.append(
                _Claim(joined("", name.lstrip("/")), (kind[1] if kind else "", _name_in(of)))
            )
    return found


def _claims(place: Place, inside: dict[str, SourceFile]) -> dict[str, list[str]]:
    """By file: the directories of this repository that Kustomizations in it name. What takes its
    files from another source names none of these.
    """
    found = {path: each for path, file in inside.items() if (each := claimed(file.text))}
    if not found:
        return {}
    foreign = {
        (kind[1], _name_in(document))
        for file in inside.values()
        if any(wanted in file.text for wanted in FILE_SOURCES)
        for document in _SEPARATOR.split(file.text)
        if (kind := _REPOSITORY.search(document))
        and (url := _URL.search(document))
        and bare_url(url[1]) not in place.urls
    }
    # Flux's bootstrap: a Kustomization whose path has its own file is from where it stands.
    own = {
        claim.source
        for path, claims in found.items()
        for claim in claims
        if claim.directory and _is_below(path, claim.directory)
    }
    return {
        path: kept
        for path, claims in found.items()
        if (kept := [c.directory for c in claims if c.source not in foreign - own])
    }


def _name_in(text: str) -> str:
    name = _NAME.search(text)
    return name[1] if name else ""


def _path_in(tree: FileTree, file: SourceFile) -> str | None:
    root = tree.root.rstrip("/") + "/"
    return file.location[len(root) :] if file.location.startswith(root) else None


def _kustomized(tree: FileTree, inside: dict[str, SourceFile]) -> dict[str, str]:
    """Directories with a kustomization file, and its text."""
    found: dict[str, str] = {}
    for path, file in inside.items():
        directory, name = posixpath.split(path)
        if name in KUSTOMIZATION_NAMES and not _FLUX.search(file.text):
            found[directory] = file.text
    for directory in {posixpath.dirname(path) for path in inside}:
        path = joined(directory, KUSTOMIZATION_NAMES[2])
        if directory not in found and tree.is_file(path):
            found[directory] = (tree.read(path) or b"").decode("utf-8", "replace")
    return found


def _outermost(directories: Iterable[str]) -> set[str]:
    found = set(directories)
    return {each for each in found if not any(above in found for above in _above(each))}


def _above(path: str) -> Sequence[str]:
    """The directories that a path is in, the nearest first, down to the empty one."""
    above = []
    while path:
        path = posixpath.dirname(path)
        above.append(path)
    return above


def _is_below(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(f"{directory}/")


def _circles(
    place: Place,
    entries: dict[str, list[str]],
    claims: dict[str, list[str]],
    taken: dict[str, str],
) -> list[DeclarationError]:
    """Entries that are only in each other's Kustomizations: nothing would read them."""
    reached = {entry for entry in entries if entry not in taken}
    at_hand = list(reached)
    while at_hand:
        for path in entries[at_hand.pop()]:
            for target in claims.get(path, ()):
                for entry in entries:
                    if entry not in reached and _is_below(entry, target):
                        reached.add(entry)
                        at_hand.append(entry)
    return [
        DeclarationError(
            f"the Kustomizations here and in {place.tree.show(taken[entry])} include each other",
            where=place.tree.show(path),
            field="spec.path",
            next_step="a Kustomization must not be in the path of one that is in its own",
        )
        for entry, held in sorted(entries.items())
        if entry not in reached
        for path in held
        if path in claims
    ]


def _included(tree: FileTree, tops: list[str], directories: dict[str, str]) -> set[str]:
    """Those of the directories that another one of them includes, as a base or component."""
    if len(tops) < 2:
        return set()
    found: set[str] = set()
    for directory, text in directories.items():
        try:
            document = read_kustomization(tree.show(directory), text.encode())
        except DeclarationError:
            continue  # told by who builds it
        for _, reference, may_be_directory in references(document.data):
            path = joined(directory, reference)
            if may_be_directory and path != directory and path in directories:
                found.add(path)
    return found


def _git_directory(directory: str) -> str:
    """The `.git` of the checkout that a directory is in; empty where it is in none."""
    while True:
        candidate = os.path.join(directory, ".git")
        if os.path.exists(candidate):
            return candidate
        parent = os.path.dirname(directory)
        if parent == directory:
            return ""
        directory = parent


def _remotes(git: str) -> tuple[frozenset[str], str]:
    """URLs and branch of a checkout, as far as its files tell them."""
    try:
        if os.path.isfile(git):  # of a worktree
            with open(git, encoding="utf-8") as stream:
                git = os.path.join(
                    os.path.dirname(git), stream.read().removeprefix("gitdir:").strip()
                )
        common = git
        if os.path.isfile(os.path.join(git, "commondir")):
            with open(os.path.join(git, "commondir"), encoding="utf-8") as stream:
                common = os.path.join(git, stream.read().strip())
        with open(os.path.join(common, "config"), encoding="utf-8", errors="replace") as stream:
            config = stream.read()
        with open(os.path.join(git, "HEAD"), encoding="utf-8", errors="replace") as stream:
            head = stream.read().strip()
    except OSError:
        return frozenset(), ""
    urls = re.findall(r"^\s*url\s*=\s*(\S+)", config, re.M)
    branch = head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""
    return frozenset(bare_url(url) for url in urls), branch
