"""Names in OCI registries: repositories, tags, digests, and how tags spell versions.

The grammar is that of the distribution specification 1.1. A chart's version `1.2.3+build` has the
tag `1.2.3_build`, for a tag may not have a `+` (Helm's rule).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from helmops.errors import SourceInvalid, VersionError
from helmops.resolve.version import Version

SCHEME: Final = "oci://"

#: Where Docker Hub answers; it is known by other names.
DOCKER_HUB: Final = "registry-1.docker.io"
DOCKER_HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", DOCKER_HUB})

# Possessive throughout: nothing is tried twice, whatever a declaration or registry says.
_COMPONENT: Final = r"[a-z0-9]++(?:(?:__|[._]|-++)[a-z0-9]++)*+"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*+")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LONGEST_NAME: Final = 255

#: What most versions look like; told quickly, for some repositories have thousands.
_PLAIN: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,17})\.){2}(?:0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class OciRepository:
    """One repository of a registry: `host` with its port, and `name` within it."""

    host: str
    name: str
    #: Asked over plain HTTP.
    insecure: bool = False

    @classmethod
    def parse(cls, url: str, *, insecure: bool = False) -> OciRepository:
        """Read `oci://host[:port]/name`. Raises SourceInvalid; what it says never holds a user."""
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname or ""
        except ValueError:
            raise _refused("it cannot be read", "(an URL that cannot be read)") from None
        shown = f"{SCHEME}{_netloc(host, port)}{parts.path}"
        if parts.scheme.lower() != "oci" or not host:
            raise _refused(f"it must begin with {SCHEME} and name a host", shown)
        if parts.username is not None or parts.password is not None:
            raise _refused("user and password belong into the Secret of secretRef", shown)
        if parts.query or parts.fragment:
            raise _refused("it may have neither query nor fragment", shown)
        name = parts.path.strip("/")
        if "@" in name or ":" in name:
            raise _refused("tag and digest belong into `ref`, or `version`", shown)
        if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise _refused("the path is no name of a repository (lower-case only)", shown)
        if host in DOCKER_HUB_NAMES:
            host = DOCKER_HUB
        return cls(_netloc(host, port), name, insecure)

    @property
    def base(self) -> str:
        """The address of the registry: `https://host:port`."""
        return f"{'http' if self.insecure else 'https'}://{self.host}"

    def url(self, *path: str) -> str:
        """An address below the repository, as `url("manifests", tag)`."""
        return "/".join((self.base, "v2", self.name, *path))

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.name}"


def _netloc(host: str, port: int | None) -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port is not None else host


def _refused(why: str, shown: str) -> SourceInvalid:
    return SourceInvalid(
        f"not the address of a repository in a registry: {why}",
        where=shown,
        next_step=f"it looks like {SCHEME}registry.example.com/charts/app",
    )


def is_tag(text: str) -> bool:
    """Whether a registry can have such a tag (and so safe in a URL)."""
    return _TAG.fullmatch(text) is not None


def is_oci_digest(text: str) -> bool:
    """Whether this is `sha256:` or `sha512:` and lower-case hex (and so safe in a URL)."""
    return _DIGEST.fullmatch(text) is not None


def digest_with(algorithm_of: str, content: bytes) -> str:
    """The digest of some content, with the algorithm of another digest."""
    algorithm = algorithm_of.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()}"


def version_of_tag(tag: str, *, leading_v: bool = False) -> str | None:
    """The version that a tag spells, None where it spells none. Only whole versions count, as with
    Helm and Flux: `1` and `latest` are no versions. `leading_v` lets `v1.2.3` pass, as Flux does
    where it looks for ranges.
    """
    text = tag.replace("_", "+")
    bare = text[1:] if leading_v and text[:1] == "v" else text
    if _PLAIN.fullmatch(bare):
        return text
    try:
        Version.strict(bare)
    except VersionError:
        return None
    return text


def tag_of_version(version: str) -> str:
    """The tag that spells a version."""
    return version.replace("+", "_")
