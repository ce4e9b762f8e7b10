"""Charts from a real registry (Docker's), pushed by real helm, signed by real cosign."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import charts as packaging
from devcluster import paths
from devcluster.certificates import Authority
from devcluster.errors import ToolMissing
from devcluster.registry import PASSWORD, USER, Registry
from helmops.errors import SignatureRefused, SourceDenied
from helmops.http import Http
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import HelmRepositorySpec, OCIRepositorySpec
from helmops.sources.oci_artifacts import OciArtifacts
from tests.conftest import CHARTS
from tests.e2e.helmops_process import (
    RELEASE,
    SOURCE_API,
    Helmops,
    documents,
    release,
    repository,
    secret,
    until,
)
from tests.fakes.chart_archives import archive_of, member
from tests.fakes.signatures import SIMPLE, new_key, public_key, signature_of, simple_payload

Serve = Callable[..., Registry]
LOGIN = {"username": USER, "password": PASSWORD}


@pytest.fixture
def serve_registry(tmp_path: Path) -> Iterator[Serve]:
    """Starts registries; the options are Registry's. Skips where there is none to be had."""
    with contextlib.ExitStack() as stack:
        started: list[Registry] = []

        def serve(**options: Any) -> Registry:
            folder = tmp_path / f"registry-{len(started)}"
            try:
                started.append(Registry(folder, lambda _: None, **options))
            except ToolMissing as missing:
                pytest.skip(str(missing))
            return stack.enter_context(started[-1])

        yield serve


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with Http() as one:
        yield one


@pytest.fixture
def oci(http: Http, tmp_path: Path) -> OciArtifacts:
    return OciArtifacts(http, tmp_path / "cache")


def push(registry: Registry, version: str, chart: str = "config", **options: Any) -> str:
    """Push one of our charts in that version; gives back the digest of its manifest."""
    tag = options.pop("tag", version.replace("+", "_"))
    client = options.pop("client", None)
    package = packaging.package(CHARTS / chart, version=version, **options)
    return registry.push(f"charts/{chart}", tag, package.data, client=client)


def artifact(registry: Registry, *, name: str = "config", **spec: Any) -> dict[str, Any]:
    """An OCIRepository of the chart `config`, asked often enough for a test."""
    return {
        "apiVersion": SOURCE_API,
        "kind": "OCIRepository",
        "metadata": {"name": name},
        "spec": {
            "url": f"{registry.url}/charts/config",
            "interval": "1s",
            "timeout": "5s",
            "insecure": True,
            **spec,
        },
    }


def of_artifact(name: str = "app", of: str = "config", **spec: Any) -> dict[str, Any]:
    """A HelmRelease whose chart an OCIRepository is."""
    reference = {"kind": "OCIRepository", "name": of}
    given = {"interval": "1h", "timeout": "20s", "chartRef": reference, **spec}
    return {**RELEASE, "metadata": {"name": name}, "spec": given}


# Releases.


def test_a_release_follows_a_range_and_a_tag_that_moves(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry()
    first = push(registry, "1.0.0").partition(":")[2]
    helmops.declare(artifact(registry, ref={"semver": "1.x"}), of_artifact())
    helmops.reconcile()
    seen = helmops.see()
    assert seen.history[0]["chartVersion"] == f"1.0.0+{first[:12]}"
    assert helmops.data()["chart"] == f"1.0.0+{first[:12]}"
    assert helmops.reconcile().status == 0
    assert helmops.revisions() == {1: "deployed"}

    with helmops.serve() as service:
        newer = push(registry, "1.1.0").partition(":")[2]
        service.until_seen("1.1.0", lambda seen: seen.history[0]["chartVersion"][:5] == "1.1.0")
        assert helmops.data()["chart"] == f"1.1.0+{newer[:12]}"


def test_a_digest_stands_still_whatever_the_tags_do(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry()
    digest = push(registry, "1.0.0")
    push(registry, "2.0.0")
    helmops.declare(artifact(registry, ref={"digest": digest, "tag": "2.0.0"}), of_artifact())
    helmops.reconcile()
    assert helmops.data()["chart"] == f"1.0.0+{digest.partition(':')[2][:12]}"


def test_an_upgrade_of_what_is_at_hand_needs_no_registry(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry()
    push(registry, "1.0.0")
    source = artifact(registry, ref={"tag": "1.0.0"})
    helmops.declare(source, of_artifact())
    helmops.reconcile()
    registry.stop()
    helmops.declare(source, of_artifact(values={"data": {"message": "new"}}))
    helmops.reconcile()
    assert helmops.data()["message"] == "new"
    registry.start()


def test_what_helm_released_from_a_registry_is_taken_over_without_a_new_revision(
    helmops: Helmops, serve_registry: Serve, tmp_path: Path
) -> None:
    registry = serve_registry()
    package = packaging.package(CHARTS / "config", version="1.0.0")
    (tmp_path / package.filename).write_bytes(package.data)
    helmops.run_helm(
        "push", str(tmp_path / package.filename), f"{registry.url}/charts", "--plain-http"
    )
    chart = f"{registry.url}/charts/config"
    helmops.run_helm("install", "app", chart, "--version", "1.0.0", "--plain-http")
    helmops.declare(artifact(registry, ref={"semver": "1.x"}), of_artifact())
    helmops.reconcile()
    assert helmops.revisions() == {1: "deployed"}
    assert helmops.see().is_ready


def test_a_moved_tag_is_held_until_somebody_says_go_on(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry()
    first = push(registry, "1.0.0").partition(":")[2][:12]
    helmops.declare(artifact(registry, ref={"tag": "1.0.0"}), of_artifact())
    helmops.reconcile()
    moved = push(registry, "1.0.0", values={"data": {"message": "moved"}})
    helmops.reconcile("--with-source", status=1)
    assert helmops.revisions() == {1: "deployed"}
    assert helmops.data()["chart"] == f"1.0.0+{first}"
    helmops.run("resume", "app")
    helmops.reconcile()
    assert helmops.data()["chart"] == f"1.0.0+{moved.partition(':')[2][:12]}"
    assert helmops.data()["message"] == "moved"


def test_a_chart_that_is_not_signed_by_the_key_leaves_the_release_as_it_is(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry()
    ours, theirs = new_key(), new_key()

    def sign(digest: str, key: Any) -> None:
        """As cosign does it."""
        payload = simple_payload(digest)
        signature = base64.b64encode(signature_of(key, payload)).decode()
        at = f"{digest.replace(':', '-')}.sig"
        signed = {"dev.cosignproject.cosign/signature": signature}
        registry.push("charts/config", at, payload, layer_type=SIMPLE, of_layer=signed)

    sign(push(registry, "1.0.0"), ours)
    signed_by = {"provider": "cosign", "secretRef": {"name": "keys"}}
    source = artifact(registry, ref={"semver": "*"}, verify=signed_by)
    keys = secret("keys", **{"cosign.pub": public_key(ours).decode()})
    helmops.declare(source, of_artifact(), keys)
    helmops.reconcile()
    assert helmops.revisions() == {1: "deployed"}
    newer = push(registry, "1.1.0")
    for signs, says in ((None, "not signed"), (theirs, "none of its signatures")):
        if signs is not None:
            sign(newer, signs)
        refused = helmops.reconcile("--with-source", "--timeout", "1s")
        assert "signature cannot be verified" in refused.text
        assert says in refused.text
    assert helmops.revisions() == {1: "deployed"}
    sign(newer, ours)
    helmops.reconcile("--with-source")
    assert helmops.data()["chart"].startswith("1.1.0+")


def test_a_chart_of_a_helm_repository_in_a_registry_with_logins_in_docker_s_form(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry(login=True)
    push(registry, "1.0.0+b1")
    push(registry, "1.2.0")
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    logins = json.dumps({"auths": {registry.host: {"auth": pair}}})
    charts = repository(
        f"{registry.url}/charts", type="oci", insecure=True, secretRef={"name": "login"}
    )
    helmops.declare(
        charts,
        release(version="1.0.0+b1"),
        release("newest"),
        secret("login", **{".dockerconfigjson": logins}),
    )
    helmops.reconcile()
    assert helmops.data()["chart"] == "1.0.0+b1"
    assert helmops.data("newest")["chart"] == "1.2.0"
    helmops.declare(charts, release(), secret("login", username=USER, password="wrong"))
    refused = helmops.reconcile(status=1)
    assert "401" in refused.text
    assert helmops.revisions() == {1: "deployed"}
    assert "wrong" not in refused.text.replace("what is wrong", "")


# Logins and TLS, against the real thing.


@pytest.mark.parametrize("login", [{"login": True}, {"tokens": True}], ids=["htpasswd", "tokens"])
async def test_a_registry_is_logged_in_to_and_refuses_who_is_not_known(
    serve_registry: Serve, oci: OciArtifacts, login: dict[str, Any]
) -> None:
    registry = serve_registry(**login)
    push(registry, "1.0.0")
    spec = OCIRepositorySpec.model_validate(artifact(registry, ref={"tag": "1.0.0"})["spec"])
    known = HttpCredentials(**LOGIN)
    [version] = await oci.versions(spec, known)
    assert (await oci.pull(spec, version, known)).version == "1.0.0"
    for credentials in (HttpCredentials(), HttpCredentials(username=USER, password="wrong")):
        with pytest.raises(SourceDenied):
            await oci.versions(spec, credentials)


async def test_a_registry_with_an_own_ca_and_client_certificates(
    serve_registry: Serve, oci: OciArtifacts, authority: Authority
) -> None:
    client = authority.issue("client", also=())
    registry = serve_registry(
        tls=authority.issue("registry"), client_ca=authority.certificate, tokens=True
    )
    push(registry, "1.0.0", client=client)
    spec = HelmRepositorySpec(url=f"{registry.url}/charts", type="oci")
    ca = authority.certificate.read_text()
    mine = HttpCredentials(
        **LOGIN, ca=ca, certificate=client.certificate.read_text(), key=client.key.read_text()
    )
    [version] = await oci.chart_versions(spec, "config", mine)
    assert (await oci.pull_chart(spec, version, mine)).name == "config"
    with pytest.raises(SourceDenied, match="client certificate"):
        await oci.chart_versions(spec, "config", HttpCredentials(**LOGIN, ca=ca))
    with pytest.raises(SourceDenied, match="certificate is refused"):
        await oci.chart_versions(spec, "config", HttpCredentials(**LOGIN))


# Signatures.


@pytest.fixture(scope="session")
def cosign() -> Path:
    """cosign 2.6 on PATH, or in the cache of the local cluster's programs; building it takes
    minutes, so that nobody's test run is held up by it.
    """
    kept = paths.cache() / "cosign-2.6.5" / "cosign"
    found = shutil.which("cosign") or (str(kept) if os.access(kept, os.X_OK) else None)
    if found is None:
        pytest.skip(
            "cosign is not installed: GOBIN=~/.cache/helmops/devcluster/cosign-2.6.5 go install"
            " github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5"
        )
    return Path(found)


@pytest.mark.parametrize("bundle", [False, True], ids=["simple-signing", "bundle"])
async def test_what_cosign_signs_is_verified_with_its_key_and_with_no_other(
    cosign: Path, serve_registry: Serve, oci: OciArtifacts, tmp_path: Path, bundle: bool
) -> None:
    def run(*arguments: str) -> None:
        environment = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(tmp_path)}
        subprocess.run(
            [cosign, *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True
        )

    registry = serve_registry()
    digest = push(registry, "1.0.0")
    keys = []
    for name in ("ours", "theirs"):
        run("generate-key-pair", "--output-key-prefix", name)
        keys.append((tmp_path / f"{name}.pub").read_bytes())
    spec = OCIRepositorySpec.model_validate(artifact(registry, ref={"tag": "1.0.0"})["spec"])
    [version] = await oci.versions(spec, HttpCredentials())
    with pytest.raises(SignatureRefused, match="not signed"):
        await oci.pull(spec, version, HttpCredentials(), keys[:1])
    run(
        *("sign", "--yes", "--key", "ours.key", "--tlog-upload=false", "--allow-http-registry"),
        *(f"--new-bundle-format={str(bundle).lower()}", f"{registry.host}/charts/config@{digest}"),
    )
    pulled = await oci.pull(spec, version, HttpCredentials(), keys[:1])
    assert pulled.version == "1.0.0"
    with pytest.raises(SignatureRefused, match="none of its signatures"):
        await oci.pull(spec, version, HttpCredentials(), keys[1:])


# Declarations out of a registry.


def push_fleet(registry: Registry, tag: str, **files: str) -> str:
    """Push files as `flux push artifact` does it; gives back the digest of the manifest."""
    archive = archive_of(member(f"{name}.yaml", text.encode()) for name, text in files.items())
    return registry.push(
        "team/fleet",
        tag,
        archive,
        config_type="application/vnd.cncf.flux.config.v1+json",
        layer_type="application/vnd.cncf.flux.content.v1.tar+gzip",
    )


def test_releases_of_a_kustomization_follow_their_artifact_in_a_registry(
    helmops: Helmops, serve_registry: Serve
) -> None:
    registry = serve_registry()
    push(registry, "1.0.0")
    chart = documents(artifact(registry, ref={"tag": "1.0.0"}))

    def fleet(tag: str, message: str) -> None:
        app = of_artifact(values={"data": {"message": message}})
        push_fleet(registry, tag, app=documents(app), chart=chart)

    url = f"{registry.url}/team/fleet"
    fleet("1.0.0", "first")
    source = artifact(registry, name="fleet", url=url, ref={"semver": ">=1.0"})
    kustomization = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": "fleet"},
        "spec": {
            "interval": "1m",
            "prune": True,
            "path": "./",
            "targetNamespace": helmops.namespace,
            "sourceRef": {"kind": "OCIRepository", "name": "fleet"},
        },
    }
    helmops.declare(source, kustomization)
    built = helmops.run("build", "-f", str(helmops.declarations), "-o", "json").json
    found = {each["kind"]: each["metadata"].get("annotations", {}) for each in built["items"]}
    assert found["HelmRelease"]["helmops.dev/origin"] == f"{url}/app.yaml:1"
    helmops.reconcile()
    assert helmops.data()["message"] == "first"

    with helmops.serve() as service:
        fleet("1.1.0", "second")
        until("the new artifact", lambda: helmops.data()["message"] == "second")
        registry.stop()
        service.until_logged("fleet cannot be asked, and is taken to be as it was")
        registry.start()
        fleet("1.2.0", "third")
        until("the next artifact", lambda: helmops.data()["message"] == "third")
    assert helmops.revisions() == {1: "superseded", 2: "superseded", 3: "deployed"}
