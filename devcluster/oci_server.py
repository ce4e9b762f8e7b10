"""An OCI registry in memory on loopback, which can lie, page, and want tokens; for tests and
benchmarks. What real registries do is seen with Debian's (`devcluster.registry`).
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from devcluster.certificates import KeyPair
from devcluster.loopback import Answer, LoopbackServer, Request

HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<what>[^/]+)")


def digest_of(content: bytes) -> str:
    """Its digest, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Stored:
    """One repository: blobs and manifests by digest, tags in the order of the list."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    referrers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class OciServer:
    """A registry whose content is put in by methods, not over HTTP.

    `server` is the LoopbackServer with its faults and requests. With `user` it wants a login:
    `Basic`, or where `tokens` is true a token of its own `/token`, for one repository each.
    `page` is the most tags of a page. Attributes may be changed while it runs.
    """

    def __init__(
        self,
        *,
        user: str = "",
        password: str = "",
        tokens: bool = False,
        page: int = 0,
        tls: KeyPair | None = None,
        client_ca: Path | None = None,
        port: int = 0,
    ) -> None:
        self.user, self.password, self.tokens, self.page = user, password, tokens, page
        self.repositories: dict[str, Stored] = {}
        #: What `/token` gives by scope, and where its realm is, if elsewhere.
        self.realm = ""
        self.identity_token = ""
        self.token_life = 300
        self._issued: dict[str, str] = {}
        self._count = 0
        #: Headers that are left out or replaced, by name in lower case: None leaves one out.
        self.headers: dict[str, str | None] = {}
        #: Answers in place of the real ones, by path.
        self.instead: dict[str, Answer] = {}
        #: Where blobs are redirected to; empty: nowhere.
        self.blobs_at = ""
        self.server = LoopbackServer(
            self._respond, tls=tls, client_ca=client_ca, etags=False, port=port
        )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def url(self) -> str:
        """`oci://` and its host."""
        return f"oci://{self.host}"

    def close(self) -> None:
        self.server.close()

    def __enter__(self) -> "OciServer":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # Content.

    def repository(self, name: str) -> Stored:
        return self.repositories.setdefault(name, Stored())

    def put_blob(self, name: str, content: bytes) -> dict[str, Any]:
        """Store a blob; gives back its descriptor."""
        digest = digest_of(content)
        self.repository(name).blobs[digest] = content
        return {"digest": digest, "size": len(content)}

    def put_manifest(
        self, name: str, tag: str, manifest: Mapping[str, Any], media_type: str = MANIFEST
    ) -> str:
        """Store a manifest, and let a tag (where one is given) name it; gives back its digest."""
        body = json.dumps(manifest).encode()
        digest = digest_of(body)
        stored = self.repository(name)
        stored.manifests[digest] = (media_type, body)
        if tag:
            stored.tags[tag] = digest
        return digest

    def push(
        self,
        name: str,
        tag: str,
        content: bytes,
        *,
        config: bytes = b"{}",
        config_type: str = HELM_CONFIG,
        layer_type: str = HELM_CONTENT,
        **annotations: str,
    ) -> str:
        """Store an artifact of one layer; gives back its manifest's digest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": config_type, **self.put_blob(name, config)},
            "layers": [{"mediaType": layer_type, **self.put_blob(name, content)}],
            "annotations": annotations,
        }
        return self.put_manifest(name, tag, manifest)

    # Answers.

    def _respond(self, request: Request) -> Answer:
        if request.path == "/token":
            return self._token(request)
        if request.path in self.instead:
            return self.instead[request.path]
        found = _PATH.fullmatch(request.path)
        if found is None:
            return self._checked(request, "") or Answer(404 if request.path != "/v2/" else 200)
        refused = self._checked(request, found["name"])
        if refused is not None:
            return refused
        stored = self.repositories.get(found["name"])
        if stored is None:
            return _error(404, "NAME_UNKNOWN")
        answer = self._of(stored, found["kind"], found["what"], request)
        changed = {k: self.headers.get(k.lower(), v) for k, v in answer.headers.items()}
        headers = {name: value for name, value in changed.items() if value is not None}
        return Answer(answer.status, answer.body, headers)

    def _of(self, stored: Stored, kind: str, what: str, request: Request) -> Answer:
        if kind == "tags":
            return self._tags(stored, request)
        if kind == "blobs":
            if what not in stored.blobs:
                return _error(404, "BLOB_UNKNOWN")
            if self.blobs_at:
                return Answer(307, b"", {"Location": f"{self.blobs_at}/{what}"})
            return Answer(200, stored.blobs[what], {"Content-Type": "application/octet-stream"})
        if kind == "referrers":
            if what not in stored.referrers:
                return Answer(404)  # as registries of before 1.1 answer
            listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": stored.referrers[what]}
            return Answer(200, json.dumps(listed).encode(), {"Content-Type": INDEX})
        digest = stored.tags.get(what, what)
        if digest not in stored.manifests:
            return _error(404, "MANIFEST_UNKNOWN")
        media_type, body = stored.manifests[digest]
        return Answer(200, body, {"Content-Type": media_type, "Docker-Content-Digest": digest})

    def _tags(self, stored: Stored, request: Request) -> Answer:
        query = parse_qs(request.query)
        tags, last = list(stored.tags), query.get("last", [""])[0]
        start = tags.index(last) + 1 if last in stored.tags else 0
        size = min(int(query.get("n", ["0"])[0]) or len(tags), self.page or len(tags) or 1)
        shown = tags[start : start + size]
        headers = {"Content-Type": "application/json"}
        if start + size < len(tags):
            headers["Link"] = f'<{request.path}?last={shown[-1]}&n={size}>; rel="next"'
        return Answer(200, json.dumps({"name": "x", "tags": shown}).encode(), headers)

    # Logins.

    def _checked(self, request: Request, name: str) -> Answer | None:
        if not self.user:
            return None
        sent = request.headers.get("authorization", "")
        if not self.tokens:
            if sent == _basic(self.user, self.password):
                return None
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="test registry"'})
        if sent and sent == f"Bearer {self._issued.get(name)}":
            return None
        realm = self.realm or f"{self.server.url}/token"
        scope = f"repository:{name}:pull"
        said = f'Bearer realm="{realm}",service="registry.test",scope="{scope}"'
        return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": said})

    def _token(self, request: Request) -> Answer:
        asked = parse_qs(request.query or request.body.decode())
        refresh = asked.get("refresh_token", [""])[0]
        right = request.headers.get("authorization", "") == _basic(self.user, self.password)
        if not right and (not refresh or refresh != self.identity_token):
            return _error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="tokens"'})
        name = asked.get("scope", [""])[0].split(":")[1]
        self._count += 1
        self._issued[name] = f"token-{self._count}"
        body = {"token": self._issued[name], "expires_in": self.token_life}
        return Answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = {"errors": [{"code": code, "message": "as the test wants it"}]}
    return Answer(status, json.dumps(body).encode(), headers or {})
