"""The wiring of what reads declarations, apart from the rest: looking at them begins at once."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helmops.errors import UsageError
from helmops.model.declared import DeclarationSet
from helmops.model.releases import DeclarationKey
from helmops.service.clock import SystemClock
from helmops.service.declarations import Declarations
from helmops.service.settings import Settings
from helmops.sources.flux_kustomization import Cluster
from helmops.sources.kustomize import Kustomizer
from helmops.sources.sops import Sops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helmops.cluster.references import ClusterReferences
    from helmops.model.charts import IncludedTree, Tree
    from helmops.model.credentials import GitCredentials, HttpCredentials
    from helmops.model.declarations import GitRepositorySpec, OCIRepositorySpec
    from helmops.reconcile.ports import ArtifactTrees, GitTrees
    from helmops.sources.git import GitMirrors
    from helmops.sources.oci_trees import OciTrees


async def declared_only(
    settings: Settings, see: Callable[[Any], None] = lambda _: None
) -> DeclarationSet:
    """What `-f` declares; a cluster is asked only for variables that are not declared. `see` is
    told the Secrets that were read. Raises UsageError.
    """
    if not settings.filenames:
        raise UsageError("there are no declarations", next_step="name them: -f DIR")
    async with contextlib.AsyncExitStack() as stack:
        git = _GitWhenAsked(settings.cache_dir / "git")
        stack.callback(git.close)
        artifacts = _ArtifactsWhenAsked(settings, stack)
        builder = builder_of(settings)
        stack.callback(builder.close)
        cluster = _ClusterWhenAsked(settings, stack)
        declarations = declarations_of(
            settings,
            SystemClock(),
            git,
            Sops(settings.sops),
            builder,
            artifacts=artifacts,
            cluster=cluster,
            see=see,
        )
        return await declarations.read()


class _GitWhenAsked:
    """The `GitTrees` port, made when it is asked first: a directory needs no git."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mirrors: GitMirrors | None = None

    def close(self) -> None:
        """End what runs."""
        if self._mirrors is not None:
            self._mirrors.close()

    def _made(self) -> GitMirrors:
        from helmops.sources.git import GitMirrors

        if self._mirrors is None:
            self._mirrors = GitMirrors(self._directory)
        return self._mirrors

    async def resolve(self, repository: GitRepositorySpec, credentials: GitCredentials) -> str:
        """See the port."""
        return await self._made().resolve(repository, credentials)

    async def checkout(
        self,
        repository: GitRepositorySpec,
        credentials: GitCredentials,
        revision: str,
        *,
        keys: Mapping[str, bytes] | None = None,
        included: Sequence[IncludedTree] = (),
    ) -> Tree:
        """See the port."""
        return await self._made().checkout(
            repository, credentials, revision, keys=keys, included=included
        )


class _ArtifactsWhenAsked:
    """The `ArtifactTrees` port, made when it is asked first."""

    def __init__(self, settings: Settings, stack: contextlib.AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._made: OciTrees | None = None

    async def _trees(self) -> OciTrees:
        from helmops.http import Http
        from helmops.sources.oci_knowledge import OciKnowledge
        from helmops.sources.oci_trees import OciTrees

        if self._made is None:
            cache = self._settings.cache_dir
            http = Http()
            self._made = OciTrees(OciKnowledge(http, cache), cache / "artifacts")
            await self._stack.enter_async_context(http)
        return self._made

    async def resolve(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """See the port."""
        return await (await self._trees()).resolve(repository, credentials)

    async def seen(self, repository: OCIRepositorySpec, credentials: HttpCredentials) -> str:
        """See the port."""
        return await (await self._trees()).seen(repository, credentials)

    async def checkout(
        self,
        repository: OCIRepositorySpec,
        credentials: HttpCredentials,
        revision: str,
        *,
        keys: Sequence[bytes] = (),
    ) -> Tree:
        """See the port."""
        trees = await self._trees()
        return await trees.checkout(repository, credentials, revision, keys=keys)


class _ClusterWhenAsked:
    """The cluster's ConfigMaps and Secrets, for commands that need none of it mostly."""

    def __init__(self, settings: Settings, stack: contextlib.AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._opened: ClusterReferences | None = None

    async def config_map(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises UsageError, ClusterError."""
        return await (await self._references()).config_map(key)

    async def secret(self, key: DeclarationKey) -> Mapping[str, bytes] | None:
        """Its data, or None where there is none. Raises UsageError, ClusterError."""
        return await (await self._references()).secret(key)

    async def _references(self) -> ClusterReferences:
        from helmops.cluster.api import Api
        from helmops.cluster.references import ClusterReferences

        if self._opened is None:
            api = await Api.connect(
                kubeconfig=self._settings.kubeconfig or None,
                context=self._settings.context or None,
                read_only=True,
                light=True,
            )
            self._opened = ClusterReferences(await self._stack.enter_async_context(api))
        return self._opened


def builder_of(settings: Settings) -> Kustomizer:
    """What builds kustomizations, to be closed at the end."""
    return Kustomizer(
        settings.kubectl, settings.cache_dir / "kustomize", allow_remote=settings.remote_bases
    )


def declarations_of(
    settings: Settings,
    clock: SystemClock,
    git: GitTrees,
    sops: Sops,
    builder: Kustomizer,
    *,
    artifacts: ArtifactTrees,
    cluster: Cluster | None,
    see: Callable[[Any], None],
) -> Declarations:
    """All that `-f` names, not read yet. Raises UsageError."""
    declarations = Declarations(
        clock=clock,
        git=git,
        artifacts=artifacts,
        default_namespace=settings.namespace,
        random=random.random,
        decrypt=sops.decrypt,
        builder=builder,
        cluster=cluster,
        see=see,
    )
    for filename in settings.filenames:
        if filename.startswith("git+"):
            from helmops.sources.git import parse_git_filename

            location = parse_git_filename(filename)
            declarations.add_git(
                location.repository, location.path, location.label, location.credentials
            )
        else:
            if not Path(filename).exists():
                raise UsageError(f"{filename} does not exist", where="-f")
            declarations.add_directory(filename)
    return declarations
