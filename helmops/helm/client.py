"""Runs helm: the `Helm` port over the real binary, helm 3.17 and newer or helm 4.

Built on pyhelm3's `Command`, whose `run` is replaced: its own goes through a shell, so a cancelled
call leaves helm running, puts the token on the command line and guesses at errors. What it can do
beside the port (`status`, `history`, `get_values`, `list`…) works through ours.

What is held to:
- Secrets go through standard input, the environment or a private directory, never on the command
  line; what helm prints is redacted and bounded before anybody sees it.
- helm sees none of the user's helm configuration, plugins and `HELM_*` variables.
- A cancelled call has ended helm within a second. helm marks an install or upgrade `failed` then;
  `helm rollback` leaves its revision `pending-rollback`, `helm uninstall` leaves `uninstalling`
  (neither handles SIGTERM). So after a cancelled or overdue rollback the next pass has a lock to
  mend; it is ours, and nobody else holds it.
- helm's `--timeout` counts for each of its waits anew. The whole process has a deadline over it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyhelm3.command import Command
from semver import Version

from helmops import process
from helmops.errors import (
    HelmError,
    HelmTimeout,
    HelmUnavailable,
    HelmWaitTimeout,
    HookFailed,
    ObjectRefused,
    PostRenderFailed,
    TestFailed,
)
from helmops.helm import flags
from helmops.helm.documents import encode_values, parse_manifest
from helmops.helm.failures import error_of, is_log
from helmops.helm.flags import HelmVersion
from helmops.helm.locks import ReleaseLocks
from helmops.helm.post_renderer import PostRenderer, post_renderer
from helmops.model.charts import ChartArtifact
from helmops.model.declarations import (
    InstallSpec,
    RollbackSpec,
    TestSpec,
    UninstallSpec,
    UpgradeSpec,
)
from helmops.model.post_rendering import PostRendering
from helmops.model.redaction import SHORTEST_GUESS, redactor, secret_values
from helmops.model.releases import HelmRun, Progress, ReleaseId

#: Says how a stored revision's objects were applied: `ssa`, `csa`, or empty where nobody knows.
#: The revision is a number, or None for the last one. May raise what it likes: helm is asked then.
ApplyMethod = Callable[[ReleaseId, int | None], Awaitable[str]]

#: Bytes of output that a HelmRun and an error keep.
_OUTPUT_LIMIT = 32_768
#: Bytes of rendered manifest that are taken in; Helm's storage ends at 1 MiB compressed.
_MANIFEST_LIMIT = 1 << 27
_QUESTION_SECONDS = 60.0
_TEST_SUITE = re.compile(
    r"^TEST SUITE:\s+(?P<name>\S+)\n(?:[^\n]*\n)*?Phase:\s+(?P<phase>\S*)", re.M
)

#: The lines of the account that helm 3 and 4 give at the end of a command.
_ACCOUNT = re.compile(
    r"(?P<label>NAME|LAST DEPLOYED|NAMESPACE|STATUS|REVISION|DESCRIPTION|TEST SUITE|"
    r"Last Started|Last Completed|Phase|Error):\s+(?P<text>.*)"
    r"|.*Happy Helming!$|release \".*\" uninstalled$|level=WARN msg=\"\w+ failed\""
)


#: What a failed test can look like; the rest is the cluster's trouble, not the test's.
_OF_A_TEST = (TestFailed, HookFailed, HelmWaitTimeout, ObjectRefused)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a whole helm process may take, over helm's own timeout.

    A chart with many hooks spends its timeout several times; `factor` is for them, `margin` for
    everything that has no timeout.
    """

    factor: float = 4.0
    margin: timedelta = timedelta(minutes=1)

    def seconds(self, timeout: timedelta) -> float:
        return timeout.total_seconds() * self.factor + self.margin.total_seconds()


class HelmClient(Command):  # type: ignore[misc]
    """The helm binary; see the module, and `Helm` in reconcile/ports.py.

    `runtime_dir` is a directory of this machine for locks and helm's caches, shared by all helmops
    of one user. `environment` is added to helm's (`HELM_KUBETOKEN`, `HELM_KUBEAPISERVER`…);
    `secrets` is looked at anew for each text, so that it may grow. `changing` is entered while a
    command changes a release (`SecretIndex.changing`). `kubectl` is what post-renders, a name on
    PATH or a path. Nothing runs before `prepare`, which every
    method calls itself.
    """

    def __init__(
        self,
        *,
        runtime_dir: Path,
        executable: str = "helm",
        kubeconfig: Path | str | None = None,
        context: str | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
        apply_method: ApplyMethod | None = None,
        changing: Callable[[ReleaseId], AbstractContextManager[None]] | None = None,
        deadlines: Deadlines = Deadlines(),
        grace: process.Grace = process.DEFAULT_GRACE,
        kubectl: str = "kubectl",
    ) -> None:
        super().__init__(
            executable=executable,
            kubeconfig=Path(kubeconfig) if kubeconfig else None,
            kubecontext=context or None,
            history_max_revisions=0,
        )
        self._executable: str = executable
        self._kubectl = kubectl
        self._runtime_dir = runtime_dir.absolute()
        self._secrets = secrets
        self._apply_method = apply_method
        self._changing = changing or _unnoticed
        self._deadlines = deadlines
        self._grace = grace
        self._locks = ReleaseLocks(self._runtime_dir / "locks")
        self._environment = self._base_environment() | dict(environment or {})
        self._setpriv = ""
        self._helm: HelmVersion | None = None
        self._preparing = asyncio.Lock()

    def __repr__(self) -> str:
        version = self._helm.version if self._helm else "not asked yet"
        return f"<HelmClient {self._executable} {version}>"

    # ------------------------------------------------------------------ what helm this is

    async def prepare(self) -> HelmVersion:
        """Find helm and ask its version, once. Raises HelmUnavailable."""
        if self._helm is not None:
            return self._helm
        async with self._preparing:
            if self._helm is None:
                self._helm = await self._detect()
        return self._helm

    async def version(self) -> str:
        """Helm's version, as `4.3.1`."""
        return str((await self.prepare()).version)

    @property
    def major(self) -> int:
        """Helm's major version. Raises HelmUnavailable before `prepare`."""
        return self._known.major

    def unsupported(self, field: str, value: object) -> bool:
        """Whether this helm has no flag for a field (`install.serverSideApply`) with this value.

        Raises HelmUnavailable before `prepare`.
        """
        return flags.is_unsupported(self._known, field, value)

    def is_running(self, release: ReleaseId) -> bool:
        """Whether a helm that another helmops on this machine started still works on it."""
        return self._locks.is_running(release)

    # ------------------------------------------------------------------ the port's actions

    async def install(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        spec: InstallSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun:
        """See the port."""
        helm = await self.prepare()
        return await self._act(
            "install",
            release,
            flags.install(helm, spec, timeout, description, wait_strategy),
            (release.name, chart.path),
            timeout=timeout,
            values=values,
            post_rendering=chart.post_rendering,
            progress=progress,
        )

    async def upgrade(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        spec: UpgradeSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun:
        """See the port."""
        helm = await self.prepare()
        is_server_side = await self._is_server_side(spec.server_side_apply, release, None)
        return await self._act(
            "upgrade",
            release,
            flags.upgrade(
                helm, spec, timeout, description, wait_strategy, is_server_side=is_server_side
            ),
            (release.name, chart.path),
            timeout=timeout,
            values=values,
            post_rendering=chart.post_rendering,
            progress=progress,
        )

    async def rollback(
        self,
        release: ReleaseId,
        revision: int,
        spec: RollbackSpec,
        *,
        timeout: timedelta,
        description: str,
        wait_strategy: str = "poller",
        progress: Progress | None = None,
    ) -> HelmRun:
        """See the port. Stopped on its way, it leaves a lock (see the module)."""
        if revision < 1:
            raise HelmError(
                "a rollback needs the revision to go to",
                where=str(release),
                next_step="helm without one would take the last but one, whatever became of it",
            )
        helm = await self.prepare()
        is_server_side = await self._is_server_side(spec.server_side_apply, release, revision)
        return await self._act(
            "rollback",
            release,
            flags.rollback(
                helm, spec, timeout, description, wait_strategy, is_server_side=is_server_side
            ),
            (release.name, str(revision)),
            timeout=timeout,
            progress=progress,
        )

    async def uninstall(
        self,
        release: ReleaseId,
        spec: UninstallSpec,
        *,
        timeout: timedelta,
        description: str,
        progress: Progress | None = None,
    ) -> HelmRun:
        """See the port. Stopped on its way, it leaves the release `uninstalling`; another
        uninstall finishes it.
        """
        helm = await self.prepare()
        return await self._act(
            "uninstall",
            release,
            flags.uninstall(helm, spec, timeout, description),
            (release.name,),
            timeout=timeout,
            progress=progress,
        )

    async def test(
        self,
        release: ReleaseId,
        spec: TestSpec,
        *,
        timeout: timedelta,
        progress: Progress | None = None,
    ) -> HelmRun:
        """See the port. The error's output has the logs of the tests' pods, where they could be
        had; tests that passed and left no logs have passed.
        """
        helm = await self.prepare()
        where = str(release)
        finished, redact = await self._start(
            "test",
            [
                "--namespace",
                release.namespace,
                *flags.test(helm, spec, timeout),
                "--",
                release.name,
            ],
            release=release,
            deadline=self._deadlines.seconds(timeout),
            progress=progress,
            where=where,
        )
        run = _run_of(finished, redact)
        if finished.status == 0:
            return run
        chosen = {each.name for each in spec.filters if not each.exclude}
        passed_over = {each.name for each in spec.filters if each.exclude}
        phases = {
            match["name"]: match["phase"]
            for match in _TEST_SUITE.finditer(finished.stdout.decode(errors="replace"))
            if match["name"] not in passed_over and (not chosen or match["name"] in chosen)
        }
        failed = [name for name, phase in phases.items() if phase == "Failed"]
        stderr = redact(finished.stderr.decode(errors="replace"))
        # helm fails for logs that it cannot get: of a pod that is deleted already, without rights
        if phases and set(phases.values()) == {"Succeeded"} and "unable to get" in stderr:
            return run
        error = error_of("test", stderr, exit_status=finished.status, where=where)
        if failed and isinstance(error, _OF_A_TEST):
            named = f"the test{'s'[: len(failed) - 1]} {', '.join(failed)} failed"
            error = TestFailed(
                named if isinstance(error, TestFailed) else f"{named}: {error.what}",
                where=where,
                next_step=f"see `kubectl -n {release.namespace} logs {failed[0]}`",
            )
        error.output = run.output
        raise error

    async def render(
        self,
        release: ReleaseId,
        chart: ChartArtifact,
        values: Mapping[str, Any],
        *,
        is_upgrade: bool,
        skip_schema_validation: bool = False,
        with_hooks: bool = False,
    ) -> tuple[dict[str, Any], ...]:
        """See the port. Objects of kinds that the chart itself brings in `crds/`, and that the
        cluster does not have yet, can only be rendered without asking the cluster.
        """
        helm = await self.prepare()
        arguments = flags.template(
            is_upgrade=is_upgrade,
            skip_schema_validation=skip_schema_validation,
            with_hooks=with_hooks,
        )
        arguments += ["--namespace", release.namespace]
        where = f"{chart.name}@{chart.version}"
        names = ["--", release.name, chart.path]
        stdin = encode_values(values)
        try:
            stdout = await self._ask(
                "template",
                [*arguments, *flags.asking_the_cluster(helm), *names],
                stdin=stdin,
                values=values,
                post_rendering=chart.post_rendering,
                stdout_limit=_MANIFEST_LIMIT,
                where=where,
            )
        except ObjectRefused as error:
            if "no matches for kind" not in error.output:
                raise
            stdout = await self._ask(
                "template",
                [*arguments, "--dry-run=client", *names],
                stdin=stdin,
                values=values,
                post_rendering=chart.post_rendering,
                stdout_limit=_MANIFEST_LIMIT,
                where=where,
            )
        return parse_manifest(stdout.decode(errors="replace"), where)

    # ------------------------------------------------------------------ running helm

    async def run(self, command: Sequence[object], input: bytes | None = None) -> bytes:  # noqa: A002
        """Run any helm command for pyhelm3's own methods; returns its standard output.

        Raises HelmError.
        """
        await self.prepare()
        operation, *arguments = [str(part) for part in command]
        return await self._ask(operation, arguments, stdin=input or b"")

    async def _act(
        self,
        operation: str,
        release: ReleaseId,
        options: Sequence[str],
        names: Sequence[str],
        *,
        timeout: timedelta,
        values: Mapping[str, Any] | None = None,
        post_rendering: PostRendering | None = None,
        progress: Progress | None = None,
    ) -> HelmRun:
        """A command that changes a release: under its lock, with its deadline."""
        where = str(release)
        finished, redact = await self._start(
            operation,
            ["--namespace", release.namespace, *options, "--", *names],
            stdin=b"" if values is None else encode_values(values),
            values=values,
            post_rendering=post_rendering,
            release=release,
            deadline=self._deadlines.seconds(timeout),
            progress=progress,
            where=where,
        )
        run = _run_of(finished, redact)
        if finished.status:
            stderr = redact(finished.stderr.decode(errors="replace"))
            error = error_of(operation, stderr, exit_status=finished.status, where=where)
            error.output = run.output
            raise error
        return run

    async def _ask(
        self,
        operation: str,
        arguments: Sequence[str],
        *,
        stdin: bytes = b"",
        values: Mapping[str, Any] | None = None,
        post_rendering: PostRendering | None = None,
        environment: Mapping[str, str] | None = None,
        deadline: float = _QUESTION_SECONDS,
        stdout_limit: int = _MANIFEST_LIMIT,
        where: str = "",
        secrets: Sequence[str] = (),
    ) -> bytes:
        """A command that changes nothing in the cluster; returns its whole standard output."""
        finished, redact = await self._start(
            operation,
            arguments,
            stdin=stdin,
            values=values,
            post_rendering=post_rendering,
            environment=environment,
            deadline=deadline,
            stdout_limit=stdout_limit,
            where=where,
            secrets=secrets,
        )
        if finished.status:
            stderr = redact(finished.stderr.decode(errors="replace"))
            raise error_of(operation, stderr, exit_status=finished.status, where=where)
        if finished.is_cut:
            raise HelmError(f"helm said more than {stdout_limit} bytes", where=where)
        return finished.stdout

    async def _start(
        self,
        operation: str,
        arguments: Sequence[str],
        *,
        stdin: bytes = b"",
        values: Mapping[str, Any] | None = None,
        post_rendering: PostRendering | None = None,
        environment: Mapping[str, str] | None = None,
        release: ReleaseId | None = None,
        deadline: float = _QUESTION_SECONDS,
        stdout_limit: int = _OUTPUT_LIMIT,
        progress: Progress | None = None,
        where: str = "",
        secrets: Sequence[str] = (),
    ) -> tuple[process.Finished, Callable[[str], str]]:
        """Run helm to its end. Raises HelmUnavailable, ReleaseLocked, HelmTimeout and, where a
        post-renderer failed, PostRenderFailed; any other failure is for the caller to look at.
        Returns the function that redacts what it said, too.
        """
        redact = redactor(
            (*self._secrets, *secret_values(values or {}), *secrets), shortest=SHORTEST_GUESS
        )
        on_line = None if progress is None else _lines_to(progress, redact)
        with (
            nullcontext() if release is None else self._working_on(release) as lock,
            self._post_renderer(post_rendering) as post,
        ):
            try:
                finished = await process.run(
                    [
                        *(self._executable, operation, *self._connection(operation)),
                        *(() if post is None else post.flags),
                        *arguments,
                    ],
                    environment={
                        **self._environment,
                        **({} if post is None else post.environment),
                        **(environment or {}),
                    },
                    stdin=stdin,
                    deadline=deadline,
                    inherited=(
                        *(() if lock is None else (lock,)),
                        *(() if post is None else post.files),
                    ),
                    grace=self._grace,
                    setpriv=self._setpriv,
                    stdout_limit=stdout_limit,
                    on_start=None if lock is None else lambda pid: self._locks.note(lock, pid),
                    on_line=on_line,
                )
            except OSError as error:
                raise HelmUnavailable(
                    f"helm cannot be started: {error.strerror}",
                    where=self._executable,
                    next_step="is there memory left, and is the binary still there?",
                ) from error
            failure = post.failure if post is not None and finished.status else ""
        if failure:
            raise PostRenderFailed(
                redact(failure),
                where=where,
                next_step="nothing was released; `kubectl kustomize` with these patches tells more",
            )
        if finished.is_overdue:
            raise HelmTimeout(
                f"helm {operation} was still running after {deadline:.0f} s and was stopped",
                where=where,
                next_step="helmops looks at what it left behind; does the API server hang?",
                output=redact(_text(finished.stdout, finished.stderr)),
            )
        return finished, redact

    @contextmanager
    def _post_renderer(self, rendering: PostRendering | None) -> Iterator[PostRenderer | None]:
        if rendering is None:
            yield None
            return
        with (
            self._private_directory() as private,
            post_renderer(
                rendering,
                helm_major=self._known.major,
                kubectl=self._kubectl,
                plugins=self._runtime_dir / "helm" / "post-renderers",
                directory=private,
            ) as prepared,
        ):
            yield prepared

    @contextmanager
    def _working_on(self, release: ReleaseId) -> Iterator[int]:
        """Hold the release's lock; gives the open file that helm has to inherit."""
        lock = self._locks.take(release)
        try:
            with self._changing(release):
                yield lock
        finally:
            self._locks.release(release, lock)

    async def _is_server_side(self, setting: str, release: ReleaseId, revision: int | None) -> bool:
        """Whether helm will apply on the server: as asked, or as that revision was applied."""
        if not self._known.has_server_side_apply or setting == "disabled":
            return False
        if setting == "enabled":
            return True
        if self._apply_method is not None:
            return await self._apply_method(release, revision) == "ssa"
        which = [] if revision is None else ["--revision", str(revision)]
        arguments = ["metadata", "--namespace", release.namespace, "--output", "json", *which]
        answer = await self._ask("get", [*arguments, "--", release.name], where=str(release))
        return bool(json.loads(answer).get("applyMethod") == "ssa")

    # ------------------------------------------------------------------ around helm

    @property
    def _known(self) -> HelmVersion:
        if self._helm is None:
            raise HelmUnavailable("helm was not asked for its version yet", next_step="prepare()")
        return self._helm

    async def _detect(self) -> HelmVersion:
        self._executable = self._find_executable()
        self._runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._setpriv = await self._find_setpriv()
        text = (await self._ask("version", ["--template", "{{ .Version }}"])).decode().strip()
        try:
            version = Version.parse(text.removeprefix("v"))
        except ValueError as error:
            raise HelmUnavailable(
                f"what answered is no helm: {text[:80]!r}",
                where=self._executable,
                next_step="name the path of a helm (HELMOPS_HELM)",
            ) from error
        if version < flags.OLDEST:
            raise HelmUnavailable(
                f"helm {version} is too old",
                where=self._executable,
                next_step=f"helmops wants {flags.OLDEST} or newer",
            )
        return HelmVersion(version)

    def _find_executable(self) -> str:
        """The absolute path of the binary: PATH may change, and so may the directory."""
        found = shutil.which(self._executable)
        if found is None:
            raise HelmUnavailable(
                "there is no helm",
                where=self._executable,
                next_step="install helm 4, or name its path (HELMOPS_HELM)",
            )
        return os.path.abspath(found)

    async def _find_setpriv(self) -> str:
        """A setpriv that can do what process.py wants of it; busybox's cannot."""
        found = shutil.which("setpriv")
        if found is None:
            return ""
        tried = await process.run(
            ["true"],
            environment=self._environment,
            setpriv=found,
            deadline=_QUESTION_SECONDS,
        )
        return found if tried.status == 0 else ""

    def _connection(self, operation: str) -> list[str]:
        """Which cluster, for commands that speak to one."""
        if operation in ("version", "package", "lint", "show", "pull"):
            return []
        return [
            *(["--kubeconfig", str(self._kubeconfig)] if self._kubeconfig else []),
            *(["--kube-context", str(self._kubecontext)] if self._kubecontext else []),
        ]

    def _base_environment(self) -> dict[str, str]:
        """Ours without what would change helm's behaviour, and homes of its own."""
        home = self._runtime_dir / "helm"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HELM_", "HELMOPS_"))
        }
        return inherited | {
            "LANG": "C",
            "LC_ALL": "C",
            "NO_COLOR": "1",
            "HELM_DRIVER": "secret",
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
            "HELM_PLUGINS": str(home / "plugins"),
            "HELM_REPOSITORY_CACHE": str(home / "cache" / "repository"),
            "HELM_REPOSITORY_CONFIG": str(home / "config" / "repositories.yaml"),
            "HELM_REGISTRY_CONFIG": str(home / "config" / "registry.json"),
            "HELM_CONTENT_CACHE": str(home / "cache" / "content"),
        }

    @contextmanager
    def _private_directory(self) -> Iterator[str]:
        """A directory for one run that only we can read."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=self._runtime_dir) as path:
            yield path


def _unnoticed(release: ReleaseId) -> AbstractContextManager[None]:
    return nullcontext()


def _text(stdout: bytes, stderr: bytes) -> str:
    """Both streams as one text without the client's log, its end where it is too long."""
    parts = [
        "\n".join(line for line in part.decode(errors="replace").splitlines() if not is_log(line))
        for part in (stderr, stdout)
    ]
    parts = [part.strip() for part in parts]
    return "\n".join(part for part in parts if part)[-_OUTPUT_LIMIT:]


def _run_of(finished: process.Finished, redact: Callable[[str], str]) -> HelmRun:
    return HelmRun(
        output=redact(_text(finished.stdout, finished.stderr)),
        duration=timedelta(seconds=finished.duration),
    )


def _lines_to(progress: Progress, redact: Callable[[str], str]) -> Callable[[str], None]:
    """What helm says while it works, without what it says when it is done: its account of the
    release, and the error, are told by whoever asked for the run. Of a test its name and how it
    ended are left, on one line.
    """
    test, failed = "", False

    def tell(line: str) -> None:
        nonlocal test, failed
        said = _ACCOUNT.match(line)
        failed = failed or line.startswith("Error:")  # whose text may go over several lines
        if said is None:
            if not failed:
                progress(redact(line))
        elif said["label"] == "TEST SUITE":
            test = said["text"]
        elif said["label"] == "Phase" and test:
            progress(redact(f"test {test}: {said['text']}"))

    return tell
