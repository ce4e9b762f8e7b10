"""Builds directories with kustomize, the one that kubectl carries, and only when something changed.

kubectl runs in a scratch directory that holds copies of just the files that the build names: what
it reads is what was checked, it can reach nothing else, and nobody's checkout is written to. What a
Flux Kustomization adds (namespace, patches, components, …) is put into the copy of the directory's
own kustomization, as Flux does it (seen with fluxcd/pkg/kustomize 1.44).

A build is known by the digests of all that it read, in memory and in the cache directory. Nothing
that holds a Secret in clear text is kept on disk, and nothing with a remote base, of which nobody
knows whether it changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from helmops.errors import DeclarationError
from helmops.model.documents import Document, read_documents
from helmops.sources.file_tree import TreeView, joined
from helmops.sources.kustomize_files import (
    KUSTOMIZATION_NAMES,
    InputReader,
    Inputs,
    kustomization_file,
    read_kustomization,
)
from helmops.sources.kustomize_simple import build_simply, compose

#: Builds that run at once: each takes a core.
CONCURRENT: Final = 2
#: Seconds that one may take; more where it loads something from afar.
_SECONDS: Final = 60.0
_SECONDS_REMOTE: Final = 180.0
_MAX_OUTPUT: Final = 64 * 1024 * 1024
_MAX_MEMORY: Final = 2 * 1024 * 1024 * 1024
#: To be changed with the form or the meaning of what is kept.
_FORMAT: Final = 1
#: Results of one Kustomization that are kept, for several branches or clusters.
_KEPT: Final = 3
_KEPT_FILES: Final = 4096

_ORIGIN: Final = "config.kubernetes.io/origin"
#: In every file with an object of a kind that is read.
_OURS: Final = (b".toolkit.fluxcd.io/", b"helmops.dev/", b"ConfigMap", b"Secret", b"Kustomization")
#: What only the slower, exact reader understands: tags, merges, anchors.
_UNUSUAL: Final = re.compile(r"!!|<<|[&*][\w-]+")


class KustomizeUnavailable(DeclarationError):
    """There is no kubectl that could build."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a Flux Kustomization adds to the kustomization of its path. Patches and images are as
    in its manifest.
    """

    namespace: str = ""
    name_prefix: str = ""
    name_suffix: str = ""
    components: tuple[str, ...] = ()
    ignore_missing_components: bool = False
    patches: tuple[Mapping[str, Any], ...] = ()
    images: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltObject:
    """One object, not to be changed; `file` and `line` are where it came from in the tree.

    `text` is kustomize's own YAML of it, where it has a `$` in it, for variables.
    """

    data: dict[str, Any] = field(repr=False)
    file: str
    line: int
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Built:
    """What a build gave. `encrypted` are the files in it that SOPS encrypted."""

    objects: tuple[BuiltObject, ...]
    encrypted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A build and what it was made of: digests by path, empty where there was nothing.

    With `in_memory` it must not go to disk.
    """

    files: Mapping[str, str]
    listed: Mapping[str, str]
    built: Built
    in_memory: bool = False


class Kustomizer:
    """Builds, from several threads. `executable` is kubectl, a name on PATH or a path.

    `cache` is a directory that processes may share.
    """

    def __init__(self, executable: str, cache: Path, *, allow_remote: bool = False) -> None:
        self._executable = executable
        self._cache = cache
        self._allow_remote = allow_remote
        self._memory: dict[str, list[_Kept]] = {}
        self._slots = threading.Semaphore(CONCURRENT)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        #: How many times kubectl was run.
        self.runs = 0

    def close(self) -> None:
        """Start nothing more, and end what runs."""
        self._closed = True
        for process in list(self._running):
            _kill(process)

    def build(
        self,
        tree: TreeView,
        directory: str,
        overlay: Overlay | None = None,
        *,
        with_text: bool = False,
    ) -> Built:
        """What a directory of a tree is built to. One without a kustomization file is built as Flux
        does, of all YAML files in it, where an overlay is given (an empty one will do). `with_text`
        asks for kustomize's text of objects that may have variables in them.

        Raises DeclarationError, KustomizeUnavailable.
        """
        key = self._key(directory, overlay, with_text=with_text)
        known = self._at_hand(key, tree)
        if known is not None:
            return known
        return self._build(tree, directory, overlay, key, with_text=with_text)

    def known(
        self,
        tree: TreeView,
        directory: str,
        overlay: Overlay | None = None,
        *,
        with_text: bool = False,
    ) -> Built | None:
        """What `build` would give where that is at hand: found in a millisecond, and less from the
        second time on.
        """
        return self._at_hand(self._key(directory, overlay, with_text=with_text), tree)

    def _at_hand(self, key: str, tree: TreeView) -> Built | None:
        known = self._memory.get(key)
        if known is None:
            known = self._memory.setdefault(key, self._load(key))
        return next((kept.built for kept in known if _is_current(kept, tree)), None)

    def _key(self, directory: str, overlay: Overlay | None, *, with_text: bool) -> str:
        parts = (_FORMAT, self._program_identity(), directory, overlay, with_text)
        return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()

    def _program_identity(self) -> str:
        path = shutil.which(self._executable)
        if path is None:
            return ""
        with contextlib.suppress(OSError):
            status = os.stat(path)
            return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"
        return path

    def _build(
        self,
        tree: TreeView,
        directory: str,
        overlay: Overlay | None,
        key: str,
        *,
        with_text: bool,
    ) -> Built:
        reader = InputReader(tree, allow_remote=self._allow_remote)
        inputs = reader.inputs
        if not tree.is_directory(directory):
            raise DeclarationError(f"there is no directory `{directory or '.'}`")
        real = tree.real(directory)
        file = kustomization_file(tree, real)
        if not file and overlay is None:
            raise DeclarationError("the directory has no kustomization.yaml")
        for name in KUSTOMIZATION_NAMES:
            if joined(real, name) != file:
                inputs.absent.add(joined(real, name))
        if file:
            content = tree.read(file) or b""
            inputs.files[file] = content
            document = read_kustomization(tree.show(file), content)
        else:
            file = joined(real, KUSTOMIZATION_NAMES[0])
            scanned = reader.scanned(real)
            document = _generated(
                tree.show(file), [posixpath.relpath(p, real or ".") for p in scanned]
            )
            if not scanned:
                return self._keep(key, tree, inputs, Built(()))
        merged = _with_overlay(document.data, overlay or Overlay(), tree, real, inputs)
        reader.kustomization(real, replace(document, data=merged), ())
        simple = self._built_simply(inputs, real, merged, with_text=with_text)
        if simple is not None:
            return self._keep(key, tree, inputs, simple)
        text = json.dumps({**merged, "buildMetadata": ["originAnnotations"]}, indent=1)
        output = self._run(tree, real, inputs, file, text.encode())
        objects = tuple(_objects(output, real, inputs, tree.show(file)))
        return self._keep(key, tree, inputs, Built(objects, tuple(sorted(inputs.encrypted))))

    @staticmethod
    def _built_simply(
        inputs: Inputs, directory: str, kustomization: Mapping[str, Any], *, with_text: bool
    ) -> Built | None:
        """Without a process, where that is certain to be the same; else None."""
        if inputs.is_remote or inputs.links:
            return None
        if with_text and (
            "$" in json.dumps(kustomization)
            or any(b"$" in text for text in inputs.files.values() if _may_be_ours(text))
        ):
            return None
        found = build_simply(inputs.files, directory, kustomization)
        if found is None:
            return None
        objects = tuple(
            BuiltObject(
                data,
                path,
                line_of(inputs.files[path].decode(), data["kind"], data["metadata"]["name"]),
            )
            for data, path in found
        )
        return Built(objects, tuple(sorted(inputs.encrypted)))

    # kubectl

    def _run(
        self, tree: TreeView, directory: str, inputs: Inputs, file: str, kustomization: bytes
    ) -> str:
        program = shutil.which(self._executable)
        if program is None:
            raise KustomizeUnavailable(
                f"kustomizations are built by kubectl, and `{self._executable}` is not there",
                where="kubectl",
                next_step="install kubectl, or name one with --kubectl or HELMOPS_KUBECTL",
            )
        scratch_in = self._cache / "scratch"
        scratch_in.mkdir(parents=True, exist_ok=True)
        with (
            self._slots,
            tempfile.TemporaryDirectory(dir=scratch_in, ignore_cleanup_errors=True) as scratch,
        ):
            root = os.path.join(scratch, "tree")
            _lay_out(root, directory, inputs, file, kustomization)
            return self._kubectl(
                program, scratch, os.path.join(root, directory), inputs, tree, file
            )

    def _kubectl(
        self, program: str, scratch: str, path: str, inputs: Inputs, tree: TreeView, file: str
    ) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HELMOPS_")}
        environment |= {"KUBECONFIG": os.devnull, "KUBECTL_KUBERC": "false"}
        # It ends before collecting garbage would pay: a quarter of its time, seen with 1.37.
        environment |= {"GOGC": "off", "GOMEMLIMIT": "1GiB", "GOMAXPROCS": "2"}
        if not inputs.is_remote:
            environment["HOME"] = scratch
        command = [program, "kustomize", "--load-restrictor=LoadRestrictionsNone", path]
        seconds = _SECONDS_REMOTE if inputs.is_remote else _SECONDS
        where = tree.show(file)
        with (
            open(os.path.join(scratch, "out"), "w+b") as out,
            open(os.path.join(scratch, "err"), "w+b") as err,
        ):
            if self._closed:
                raise DeclarationError("helmops is stopping", where=where)
            self.runs += 1
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=scratch,
                env=environment,
                start_new_session=True,
            )
            self._running.add(process)
            try:
                _bound(process.pid)
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise DeclarationError(
                    f"kustomize was not done after {seconds:.0f} s, and was stopped", where=where
                ) from None
            finally:
                _kill(process)
                self._running.discard(process)
            out.seek(0)
            err.seek(0)
            said = err.read(64 * 1024).decode("utf-8", "replace")
            if status != 0:
                raise DeclarationError(f"kustomize: {_cause(said, status, scratch)}", where=where)
            return out.read(_MAX_OUTPUT).decode("utf-8", "replace")

    # What is kept

    def _keep(self, key: str, tree: TreeView, inputs: Inputs, built: Built) -> Built:
        files = {path: hashlib.sha256(text).hexdigest() for path, text in inputs.files.items()}
        files |= dict.fromkeys(inputs.absent, "")
        with contextlib.suppress(DeclarationError):
            for path in inputs.absent:
                tree.digest(path)  # so that the tree looks whether it comes
            listed = {path: tree.names_digest(path) for path in inputs.listed}
            is_open = any(_is_open_secret(each.data) for each in built.objects)
            kept = _Kept(files, listed, built, in_memory=inputs.is_remote or is_open)
            known = [kept, *self._memory.get(key, [])][:_KEPT]
            self._memory[key] = known
            if not kept.in_memory:
                self._save(key, known)
        return built

    def _load(self, key: str) -> list[_Kept]:
        try:
            found = json.loads((self._cache / f"{key}.json").read_bytes())
            return [
                _Kept(
                    each["files"],
                    each["listed"],
                    Built(
                        tuple(BuiltObject(*each_object) for each_object in each["objects"]),
                        tuple(each["encrypted"]),
                    ),
                )
                for each in found
            ]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _save(self, key: str, known: Sequence[_Kept]) -> None:
        """Keep it for other processes. A cache that cannot be written is no reason to fail."""
        found = [
            {
                "files": dict(each.files),
                "listed": dict(each.listed),
                "objects": [[o.data, o.file, o.line, o.text] for o in each.built.objects],
                "encrypted": each.built.encrypted,
            }
            for each in known
            if not each.in_memory
        ]
        with contextlib.suppress(OSError):
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._cache, delete=False) as stream:
                json.dump(found, stream, separators=(",", ":"))
            os.replace(stream.name, self._cache / f"{key}.json")
            self._tidy()

    def _tidy(self) -> None:
        entries = list(self._cache.glob("*.json"))
        if len(entries) > _KEPT_FILES:
            entries.sort(key=lambda entry: entry.stat().st_mtime)
            for entry in entries[: _KEPT_FILES // 4]:
                entry.unlink(missing_ok=True)


def _is_current(kept: _Kept, tree: TreeView) -> bool:
    try:
        return all(tree.digest(path) == digest for path, digest in kept.files.items()) and all(
            tree.names_digest(path) == digest for path, digest in kept.listed.items()
        )
    except DeclarationError:
        return False


def _may_be_ours(content: bytes) -> bool:
    """Whether a file may hold an object of a kind that is read."""
    return any(mark in content for mark in _OURS)


def _is_open_secret(data: Mapping[str, Any]) -> bool:
    return data.get("kind") == "Secret" and "sops" not in data


# The kustomization that is built ----------------------------------------------------------------


def _generated(shown: str, resources: Sequence[str]) -> Document:
    data = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"./{path}" for path in resources],
    }
    document = read_documents(shown, "kind: Kustomization\n").documents[0]
    return replace(document, data=data)


def _with_overlay(
    data: Mapping[str, Any], overlay: Overlay, tree: TreeView, directory: str, inputs: Inputs
) -> dict[str, Any]:
    """A kustomization with what Flux puts into it. Raises DeclarationError."""
    names = {
        "namespace": overlay.namespace,
        "namePrefix": overlay.name_prefix,
        "nameSuffix": overlay.name_suffix,
    }
    merged = {**data, **{name: text for name, text in names.items() if text}}
    if overlay.patches:
        merged["patches"] = [*_list(merged, "patches"), *map(dict, overlay.patches)]
    for position, component in enumerate(overlay.components):
        place = f"spec.components[{position}]"
        path = joined(directory, component)
        if posixpath.isabs(component) or re.match(r"[a-z+]+://|[\w.-]+@", component, re.I):
            raise DeclarationError(f"`{component}` is no path in the repository", field=place)
        if not tree.is_directory(path):
            inputs.absent.update(joined(path, name) for name in KUSTOMIZATION_NAMES)
            if overlay.ignore_missing_components:
                continue
            raise DeclarationError(
                f"there is no directory `{path}`",
                field=place,
                next_step="components are relative to `spec.path`",
            )
        merged["components"] = [*_list(merged, "components"), component]
    images = [dict(image) for image in _list(merged, "images") if isinstance(image, dict)]
    for wanted in overlay.images:
        same = next((image for image in images if image.get("name") == wanted["name"]), None)
        if same is None:
            images.append(dict(wanted))
            continue
        if wanted.get("newName"):
            same["newName"] = wanted["newName"]
        if wanted.get("newTag") or wanted.get("digest"):
            # They choose the version together: setting one takes the other away.
            same.pop("newTag", None)
            same.pop("digest", None)
            same |= {k: wanted[k] for k in ("newTag", "digest") if wanted.get(k)}
    if images:
        merged["images"] = images
    return merged


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []


def _lay_out(root: str, directory: str, inputs: Inputs, file: str, kustomization: bytes) -> None:
    """Write what the build reads below `root`, as it lies in the tree, links included."""
    os.makedirs(os.path.join(root, directory), exist_ok=True)
    for path, content in {**inputs.files, file: kustomization}.items():
        location = os.path.join(root, inputs.links.get(path, path))
        os.makedirs(os.path.dirname(location), exist_ok=True)
        with open(location, "wb") as stream:
            stream.write(content)
    for path, real in sorted(inputs.links.items()):
        location = os.path.join(root, path)
        if not os.path.lexists(location):
            os.makedirs(os.path.dirname(location), exist_ok=True)
            os.symlink(os.path.join(root, real), location)


def _bound(pid: int) -> None:
    """No more memory and output than a build can make sense with. Not on every system."""
    limit = getattr(resource, "prlimit", None)
    if limit is not None:
        with contextlib.suppress(OSError, ValueError):
            limit(pid, resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
            limit(pid, resource.RLIMIT_FSIZE, (_MAX_OUTPUT, _MAX_OUTPUT))


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _cause(said: str, status: int, scratch: str) -> str:
    """The words of kustomize, with paths of the repository in place of those of the copy.

    What it repeats of documents is left out: it may be secret.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("error:")), "")
    if not told and status < 0:
        return f"ended by {signal.Signals(-status).name}: the build needs too much memory or space"
    if not told:
        told = next((line for line in lines if "out of memory" in line or "panic:" in line), "")
    text = (told or (lines[-1] if lines else "it said nothing")).removeprefix("error: ")
    text = text.replace(os.path.realpath(scratch) + "/tree/", "").replace(scratch + "/tree/", "")
    text = re.sub(r"(?s)(\[?\{\"|map\[|\[?\{map).*", "…", text)
    text = re.sub(r"\[[^\]]{60,}\]|\{[^}]{60,}\}", "…", text)
    text = re.sub(r"'[^']*'(?=\n|$)", lambda found: found[0][:200], text)
    return text if len(text) <= 400 else f"{text[:180]} … {text[-200:]}"


# What comes out ---------------------------------------------------------------------------------


def _objects(output: str, directory: str, inputs: Inputs, shown: str) -> Iterator[BuiltObject]:
    if not output.strip():
        return
    for part in output.rstrip("\n").split("\n---\n"):
        text = part + "\n"  # it ends the last line, which may be of a text
        data = parse_object(text, shown)
        metadata = data.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        origin = without_origin(data)
        file = _origin_file(origin, directory)
        content = inputs.files.get(file, inputs.files.get(inputs.links.get(file, ""), b""))
        line = line_of(
            content.decode("utf-8", "replace"),
            str(data.get("kind", "")),
            str(metadata.get("name", "")),
        )
        yield BuiltObject(data, file, line, text if "$" in text else "")


def without_origin(data: dict[str, Any]) -> str:
    """Take out of an object what kustomize noted of its origin; gives that."""
    metadata = data.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(annotations, dict):
        return ""
    origin = str(annotations.pop(_ORIGIN, ""))
    if not annotations:
        del metadata["annotations"]
    return origin


def _origin_file(origin: str, directory: str) -> str:
    found = re.search(r"^(?:path|configuredIn): *(.+?) *$", origin, re.M)
    name = found[1].strip("\"'") if found else KUSTOMIZATION_NAMES[0]
    if re.search(r"^repo:", origin, re.M):
        return joined(directory, KUSTOMIZATION_NAMES[0])
    return joined(directory, name)


def parse_object(text: str, where: str) -> dict[str, Any]:
    """One object of YAML, read as Kubernetes reads it. Raises DeclarationError."""
    try:
        data = _parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise DeclarationError(f"what was built is no YAML: {problem}", where=where) from None
    if not isinstance(data, dict):
        raise DeclarationError("what was built is no object", where=where)
    return data


def _parsed(text: str) -> Any:
    if _UNUSUAL.search(text):
        documents = read_documents("", text)
        if documents.errors:
            raise yaml.MarkedYAMLError(problem=documents.errors[0].what)
        return documents.documents[0].data if len(documents.documents) == 1 else None
    return compose(text)


def line_of(text: str, kind: str, name: str) -> int:
    """The line on which the document of an object begins in a file that may hold several; the first
    of its kind where none has its name, and 1 where there is none.
    """
    best, best_rank = 1, 0
    begin, number = 0, 0
    chunks: list[tuple[int, list[str]]] = [(0, [])]
    for number, line in enumerate(text.splitlines()):
        if line.startswith("---"):
            chunks.append((number + 1, []))
        else:
            chunks[-1][1].append(line)
    for begin, lines in chunks:
        first = next(
            (i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None
        )
        if first is None:
            continue
        rank = _rank(lines, kind, name)
        if rank > best_rank:
            best, best_rank = begin + first + 1, rank
    return best


def _rank(lines: Sequence[str], kind: str, name: str) -> int:
    """How well a document fits: 3 kind and name, 2 kind and a part of the name, 1 kind."""
    if f"kind: {kind}" not in (line.split(" #")[0].rstrip().replace('"', "") for line in lines):
        return 0
    is_within = False
    for line in lines:
        if line.startswith("metadata:"):
            is_within = True
        elif is_within and line[:1] not in (" ", "#", ""):
            break
        elif is_within and (found := re.match(r"\s+name: *[\"']?([^\s\"'#]+)", line)):
            return 3 if found[1] == name else 2 if found[1] in name else 1
    return 1
