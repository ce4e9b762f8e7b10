"""What a Flux repository costs: `helmops build` cold, warm, and after one file changed.

    python -m benchmarks.build

Makes a Git repository in the shape of public ones (250 Flux Kustomizations, 220 HelmReleases, a
kustomization.yaml for each, components, patches and variables as often as there), and measures
commands as people run them, and the running service's look at a change.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Row, render
from devcluster import tools
from helmops.model.declarations import Defaults
from helmops.service.declarations import Declarations
from helmops.service.reading import builder_of, declarations_of
from helmops.service.settings import Settings
from helmops.service.waking import changed_releases

HELMOPS = Path(sys.executable).with_name("helmops")
NAMESPACES = 24
KUSTOMIZATIONS = 249
WITHOUT_RELEASE = 29
SUBSTITUTED = 74
WITH_COMPONENTS = 73
DEPENDENT = 109
WAITING = 100
#: Runs of a command, of which the least disturbed counts.
TIMES = 9

_DEFAULTS = """\
  patches:
    - patch: |-
        apiVersion: kustomize.toolkit.fluxcd.io/v1
        kind: Kustomization
        metadata:
          name: _
        spec:
          patches:
            - patch: |-
                apiVersion: helm.toolkit.fluxcd.io/v2
                kind: HelmRelease
                metadata:
                  name: _
                spec:
                  upgrade:
                    cleanupOnFail: true
                    remediation:
                      remediateLastFailure: true
                      retries: 2
              target:
                group: helm.toolkit.fluxcd.io
                kind: HelmRelease
      target:
        group: kustomize.toolkit.fluxcd.io
        kind: Kustomization
"""


class Repository:
    """The generated repository."""

    def __init__(self, root: Path, kustomizations: int = KUSTOMIZATIONS) -> None:
        self.root = root
        self._count = kustomizations
        self._random = random.Random(1)

    def write(self) -> None:
        self._file("cluster/ks.yaml", _flux("cluster-apps", "./apps", "flux-system") + _DEFAULTS)
        self._file(
            "components/backup/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
            "resources:\n  - ./claim.yaml\n",
        )
        self._file(
            "components/backup/claim.yaml",
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: ${APP}\nspec:\n"
            "  resources:\n    requests:\n      storage: ${CAPACITY:=5Gi}\n",
        )
        spaces: dict[str, list[str]] = {}
        for number in range(self._count):
            space, app = f"space-{number % NAMESPACES}", f"app-{number}"
            spaces.setdefault(space, []).append(app)
            self._app(number, space, app)
        for space, apps in spaces.items():
            self._file(
                f"apps/{space}/kustomization.yaml",
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
                f"namespace: {space}\nresources:\n  - ./namespace.yaml\n"
                + "".join(f"  - ./{app}/ks.yaml\n" for app in apps),
            )
            self._file(
                f"apps/{space}/namespace.yaml",
                f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {space}\n",
            )
        for command in (
            ("init", "-q", "-b", "main"),
            ("add", "-A"),
            ("-c", "user.name=b", "-c", "user.email=b@example.com", "commit", "-qm", "all"),
        ):
            subprocess.run(["git", *command], cwd=self.root, check=True)

    def change(self, number: int, tag: str) -> None:
        """Another version in one release."""
        file = self._release_file(number)
        text = file.read_text()
        file.write_text(text.replace("interval: 1h", f"interval: 1h\n  timeout: {tag}", 1))

    def _release_file(self, number: int) -> Path:
        space = f"space-{number % NAMESPACES}"
        return self.root / f"apps/{space}/app-{number}/app/helmrelease.yaml"

    def _app(self, number: int, space: str, app: str) -> None:
        directory = f"apps/{space}/{app}"
        spec = f"  targetNamespace: {space}\n  wait: {str(number < WAITING).lower()}\n"
        is_substituted = number % 3 == 0 and number // 3 < SUBSTITUTED
        if is_substituted:
            spec += f"  postBuild:\n    substitute:\n      APP: {app}\n"
        if is_substituted and number // 3 < WITH_COMPONENTS:
            spec += "  components:\n    - ../../../../components/backup\n"
        if number >= self._count - DEPENDENT and number:
            earlier = number - NAMESPACES
            if earlier >= 0:
                spec += f"  dependsOn:\n    - name: app-{earlier}\n"
        self._file(f"{directory}/ks.yaml", _flux(app, f"./{directory}/app", "") + spec)
        if number >= self._count - WITHOUT_RELEASE:
            self._file(
                f"{directory}/app/settings.yaml",
                f"apiVersion: example.com/v1\nkind: Setting\nmetadata:\n  name: {app}\n",
            )
            names = ["settings"]
        else:
            self._file(f"{directory}/app/helmrelease.yaml", self._release(app, is_substituted))
            self._file(
                f"{directory}/app/ocirepository.yaml",
                "apiVersion: source.toolkit.fluxcd.io/v1\nkind: OCIRepository\nmetadata:\n"
                f"  name: {app}\nspec:\n  interval: 15m\n  layerSelector:\n"
                "    mediaType: application/vnd.cncf.helm.chart.content.v1.tar+gzip\n"
                f"    operation: copy\n  ref:\n    tag: 4.{number}.0\n"
                f"  url: oci://registry.example.com/charts/{app}\n",
            )
            names = ["helmrelease", "ocirepository"]
        self._file(
            f"{directory}/app/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
            + "".join(f"  - ./{name}.yaml\n" for name in names),
        )

    def _release(self, app: str, is_substituted: bool) -> str:
        host = "${APP}" if is_substituted else app
        containers = "".join(
            f"        container-{number}:\n          image:\n"
            f"            repository: registry.example.com/{app}-{number}\n"
            f"            tag: 1.{self._random.randint(0, 99)}.0\n          env:\n"
            + "".join(f"            SETTING_{each}: value of {each}\n" for each in range(12))
            + "          resources:\n            requests:\n              cpu: 10m\n"
            "              memory: 128Mi\n            limits:\n              memory: 512Mi\n"
            "          probes:\n            liveness:\n              enabled: true\n"
            "              spec:\n                periodSeconds: 10\n"
            for number in range(2)
        )
        return (
            "---\napiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata:\n"
            f"  name: {app}\nspec:\n  chartRef:\n    kind: OCIRepository\n    name: {app}\n"
            f"  interval: 1h\n  values:\n    controllers:\n      main:\n"
            f"{containers}    route:\n      hostnames:\n        - {host}.example.com\n"
        )

    def _file(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _flux(name: str, path: str, namespace: str) -> str:
    where = f"  namespace: {namespace}\n" if namespace else ""
    return (
        "---\napiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n"
        f"  name: {name}\n{where}spec:\n  interval: 1h\n  path: {path}\n  prune: true\n"
        "  sourceRef:\n    kind: GitRepository\n    name: flux-system\n"
        "    namespace: flux-system\n"
    )


def _command(repository: Repository, cache: Path, kubectl: Path) -> tuple[float, float, int]:
    """Seconds, seconds of CPU, and releases of one `helmops build`."""
    environment = {
        **os.environ,
        "HELMOPS_KUBECTL": str(kubectl),
        "HELMOPS_CACHE_DIR": str(cache),
        "KUBECONFIG": os.devnull,
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    ended = subprocess.run(
        [HELMOPS, "build", "-f", "cluster", "-o", "name"],
        cwd=repository.root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    took = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, used, ended.stdout.count("HelmRelease/")


async def _service(
    repository: Repository, cache: Path, kubectl: Path, number: int
) -> tuple[float, float, int]:
    """Seconds until the running service knows a change, seconds of a look, and who was woken."""
    from helmops.http import Http
    from helmops.service.clock import SystemClock
    from helmops.sources.git import GitMirrors
    from helmops.sources.oci_knowledge import OciKnowledge
    from helmops.sources.oci_trees import OciTrees
    from helmops.sources.sops import Sops

    settings = Settings.load(
        {
            "filenames": (str(repository.root / "cluster"),),
            "kubectl": str(kubectl),
            "cache_dir": cache,
            "defaults": Defaults.SAFE.value,
        },
        os.environ,
    )
    declarations: Declarations = declarations_of(
        settings,
        SystemClock(),
        GitMirrors(cache / "git"),
        Sops(),
        builder_of(settings),
        artifacts=OciTrees(OciKnowledge(Http(), cache), cache / "artifacts"),
        cluster=None,
        see=lambda _: None,
    )
    before = await declarations.read()
    assert not before.errors, before.errors[:3]
    for _ in range(3):
        await declarations.poll()
    started = time.perf_counter()
    assert await declarations.poll() is None
    look = time.perf_counter() - started
    repository.change(number, "9m")
    started = time.perf_counter()
    after = await declarations.poll()
    took = time.perf_counter() - started
    assert after is not None
    return took, look, len(changed_releases(before, after))


def rows() -> Iterator[Row]:
    """The table's rows."""
    kubectl = tools.find_all(lambda text: print(text, file=sys.stderr))["kubectl"]
    what = "build, 250 Kustomizations, 220 releases"
    with tempfile.TemporaryDirectory() as scratch:
        repository = Repository(Path(scratch) / "repository")
        repository.write()
        cache = Path(scratch) / "cache"
        took, used, releases = _command(repository, cache, kubectl)
        assert releases == 220, releases
        yield Row(f"{what}: cold", took, "s", goal="15 s on two cores")
        yield Row(f"{what}: cold, CPU", used, "s")
        again = [_command(repository, cache, kubectl) for _ in range(TIMES)]
        yield Row(f"{what}: nothing changed", min(took for took, _, _ in again), "s")
        changed = []
        for number in range(TIMES):
            repository.change(100 + number, "3m")
            changed.append(_command(repository, cache, kubectl))
        seconds = min(took for took, _, _ in changed)
        yield Row(f"{what}: after a change of one file", seconds, "s", goal="1 s")
        seconds = min(used for _, used, _ in changed)
        yield Row(f"{what}: after a change of one file, CPU", seconds, "s")
        took, look, woken = asyncio.run(_service(repository, cache, kubectl, 110))
        yield Row("the same, in the running service: a change is known", took, "s")
        yield Row("the same, in the running service: a look without change", look, "s")
        assert woken == 1, woken
        small = Repository(Path(scratch) / "small", kustomizations=80 + WITHOUT_RELEASE)
        small.write()
        took, _, woken = asyncio.run(_service(small, cache, kubectl, 7))
        assert woken == 1, woken
        yield Row("80 releases, in the running service: a change is known", took, "s", goal="2 s")


if __name__ == "__main__":
    print(render(rows()))
