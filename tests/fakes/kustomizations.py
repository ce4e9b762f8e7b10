"""Random directories for kustomize: what people write, and what makes YAML readers differ."""

from __future__ import annotations

import random
from pathlib import Path

_SCALARS = (
    "yes", "no", "on", "y", "True", "~", "null", "''", '""', "0755", "0o17", "1e3", "1.10", "1.0",
    "-0", ".5", "1_000", "0x1F", "12:30:45", "2024-01-01", "2024-01-01T00:00:00Z", "123", "-7",
    "18446744073709551615", "9007199254740993", "abc", '"quoted: text"', "'single ''quoted'''",
    '"tab\\tand \\u00e9"', "Grüße", "a b c", "http://x.example/y?z=1#frag", '"yes"', "'123'",
    "-", "a: b" , "[]", "{}", "[1, two, '3']", "{a: 1, b: yes}", "|\n{i}line one\n{i}  line two\n",
    "|-\n{i}one\n{i}two", "|+\n{i}one\n\n", ">-\n{i}folded text\n{i}goes on\n", "x" * 200,
    "5m", "10Gi", "0.1", "1.", "+12", "=", "<", "@at", "%25", "`tick`", "a#b", "a #comment",
    "{{ .Release.Name }}", "'{{ .Values.x }}'", "${VAR}", '"${VAR}"', "$$", "!local", "&anchor x",
)  # fmt: skip
_CERTAIN = (
    "abc", "1", "web", "5m", "10Gi", "true", "false", "0.5", "-7", "10.0.0.1/24", "1.2.3", "a b c",
    "'123'", '"yes"', "http://x.example/y?z=1#frag", "Grüße", "~", "null", "0 * * * *", "v1.2.3",
    '"{{ .Release.Name }}"', "x" * 120, "|\n{i}line one\n{i}  line two", "oci://x.example",
    ">-\n{i}folded text\n{i}goes on", "ghcr.io/x/y:1.2@sha256:0a", "'0755'", "a:b", "1h30m",
    "80", "1.50",
)  # fmt: skip
_KEYS = ("a", "b", "c", "'y'", "replicas", "image.tag", '"quoted key"', "name", "items", "env")
_KINDS = (
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
    ("source.toolkit.fluxcd.io/v1", "OCIRepository"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
    ("helmops.dev/v1alpha1", "ReleasePolicy"),
    ("external-secrets.io/v1", "ExternalSecret"),
    ("v1", "Namespace"),
)
_PATCHES = (
    "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: _\n"
    "spec:\n  timeout: 9m\n  a: patched\n  install:\n    crds: Create\n    remediation:\n"
    "      retries: 3\n  env: [x, y]\n",
    "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: _\n"
    "  labels:\n    team: web\n  annotations:\n    note: 'yes'\nspec:\n  b:\n    on: 0755\n",
    "apiVersion: x/v1\nkind: Y\nmetadata:\n  name: other\n  namespace: elsewhere\n"
    "spec:\n  a:\n    b:\n      c: 1.10\n",
    "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: _\n"
    "spec:\n  a: null\n",
    "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n  name: _\n"
    "spec:\n  a: {}\n  items: []\n",
)
_TARGETS = (
    {"kind": "HelmRelease", "group": "helm.toolkit.fluxcd.io"},
    {"kind": "HelmRelease"},
    {"kind": "Kustomization", "group": "kustomize.toolkit.fluxcd.io"},
    {"kind": "Nothing"},
)


class Kustomizations:
    """A directory `app` with a kustomization, and what it names."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._plainness = self._random.choice((0.97, 1.0, 1.0, 1.0))
        self._count = 0

    def write(self) -> None:
        """Write all files."""
        r = self._random
        resources = [self._file("app") for _ in range(r.randint(1, 3))]
        if r.random() < 0.4:
            self._kustomization("app/inner", [self._file("app/inner")])
            resources.append("./inner")
        if r.random() < 0.2:
            self._kustomization("base", [self._file("base")])
            resources.append("../base")
        components = []
        if r.random() < 0.4:
            self._kustomization("component", [self._file("component")], is_component=True)
            components.append("../component")
        self._kustomization("app", resources, components)

    def _kustomization(
        self,
        directory: str,
        resources: list[str],
        components: list[str] | None = None,
        *,
        is_component: bool = False,
    ) -> None:
        r = self._random
        kind, version = ("Component", "v1alpha1") if is_component else ("Kustomization", "v1beta1")
        text = f"apiVersion: kustomize.config.k8s.io/{version}\nkind: {kind}\n"
        if r.random() < 0.4:
            text += f"namespace: {r.choice(('apps', 'web-1'))}\n"
        if r.random() < 0.5:
            text += self._patches()
        for name, paths in (("resources", resources), ("components", components)):
            if paths:
                text += f"{name}:\n" + "".join(f"  - {path}\n" for path in paths)
        path = self._root / directory / "kustomization.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _patches(self) -> str:
        r = self._random
        text = "patches:\n"
        for _ in range(r.randint(1, 2)):
            indented = r.choice(_PATCHES).replace("\n", "\n      ").rstrip()
            target = "".join(f"      {k}: {v}\n" for k, v in r.choice(_TARGETS).items())
            text += f"  - patch: |-\n      {indented}\n    target:\n{target}"
        return text

    def _file(self, directory: str) -> str:
        self._count += 1
        name = f"file-{self._count}.yaml"
        documents = [self._object() for _ in range(self._random.randint(1, 2))]
        path = self._root / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            self._random.choice(("", "---\n", "# a comment\n")) + "---\n".join(documents)
        )
        return f"./{name}"

    def _object(self) -> str:
        r = self._random
        version, kind = r.choice(_KINDS)
        self._count += 1
        text = f"apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: name-{self._count}\n"
        if r.random() < 0.3:
            text += f"  namespace: {r.choice(('apps', 'elsewhere'))}\n"
        if r.random() < 0.3:
            text += f"  labels:\n    app: {r.choice(('web', chr(34) + 'yes' + chr(34)))}\n"
        if r.random() > self._plainness:
            text += "  annotations: {}\n"
        return text + "spec:\n" + self._mapping(2, 3)

    def _mapping(self, indent: int, depth: int) -> str:
        r = self._random
        keys = r.sample(_KEYS, r.randint(1, 4))
        if r.random() > self._plainness:
            keys.append(r.choice(("on", "1", "1.5", "2024-01-01")))
        text = ""
        for key in keys:
            if depth and r.random() < 0.35:
                text += f"{' ' * indent}{key}:\n{self._mapping(indent + 2, depth - 1)}"
            elif depth and r.random() < 0.15:
                text += f"{' ' * indent}{key}:\n"
                for _ in range(r.randint(1, 3)):
                    text += f"{' ' * indent}  - {self._scalar(indent + 4)}\n"
            else:
                text += f"{' ' * indent}{key}: {self._scalar(indent + 2)}\n"
        return text

    def _scalar(self, indent: int) -> str:
        plain = self._random.random() < self._plainness
        scalar = self._random.choice(_CERTAIN) if plain else ""
        return (scalar or self._random.choice(_SCALARS)).replace("{i}", " " * indent).rstrip("\n")
