"""The Roles in config/kubernetes suffice, and what they lack is refused with a clear error."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from devcluster.cluster import Cluster
from helmops.cluster.api import Api
from helmops.cluster.leases import ClusterLeases
from helmops.cluster.records import SecretRecords
from helmops.cluster.references import ClusterReferences
from helmops.cluster.watches import SecretIndex
from helmops.errors import AccessDenied
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from tests.fakes.clock import FakeClock

CONFIG = Path(__file__).resolve().parents[2] / "config" / "kubernetes"


def rendered(kubectl: Path, folder: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    told = subprocess.run(
        [kubectl, "kustomize", CONFIG / folder], check=True, capture_output=True, text=True
    )
    return [document for document in yaml.safe_load_all(told.stdout) if document]


@dataclass
class Install:
    """helmops' ServiceAccount with the Roles of one namespace, and no more."""

    own: str
    target: str
    other: str
    kubeconfig: Path

    def record(self, namespace: str) -> Record:
        return Record(DeclarationKey(namespace, "web"), ReleaseId(namespace, "web"))


def _paths(manifest: dict[str, Any], namespace: str) -> str:
    plural = {
        "Role": "roles",
        "RoleBinding": "rolebindings",
        "ClusterRole": "clusterroles",
        "ClusterRoleBinding": "clusterrolebindings",
    }[manifest["kind"]]
    prefix = "/apis/rbac.authorization.k8s.io/v1"
    is_wide = manifest["kind"].startswith("Cluster")
    return f"{prefix}/{plural}" if is_wide else f"{prefix}/namespaces/{namespace}/{plural}"


def _kubeconfig(cluster: Cluster, folder: Path, namespace: str) -> Path:
    """A kubeconfig with a token of the ServiceAccount `helmops` there."""
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.request("POST", account, {"metadata": {"name": "helmops"}})
    granted = cluster.request("POST", f"{account}/helmops/token", {"spec": {}})
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {"token": granted["status"]["token"]}}],
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {
                            "server": cluster.server,
                            "certificate-authority": str(cluster.ca_file),
                        },
                    }
                ],
            }
        )
    )
    return path


@pytest.fixture
def install(
    cluster: Cluster, kubectl: Path, make_namespace: Callable[[], str], tmp_path: Path
) -> Install:
    own, target, other = make_namespace(), make_namespace(), make_namespace()
    kubeconfig = _kubeconfig(cluster, tmp_path, own)
    for manifest in rendered(kubectl, "target-namespace"):
        for subject in manifest.get("subjects", ()):
            subject["namespace"] = own
        cluster.request("POST", _paths(manifest, target), manifest)
    return Install(own, target, other, kubeconfig)


@pytest.fixture
async def api(install: Install) -> AsyncIterator[Api]:
    async with await Api.connect(kubeconfig=str(install.kubeconfig)) as api:
        yield api


# It suffices


async def test_the_adapters_do_all_their_work_with_the_roles(api: Api, install: Install) -> None:
    release = ReleaseId(install.target, "web")
    index = SecretIndex(api, lambda kind, changed: None, [install.target])
    task = asyncio.create_task(index.run())
    records = SecretRecords(api, namespaces=[install.target], index=index)
    await records.ensure_namespace(install.target)
    saved = await records.save(install.record(install.target))
    saved = await records.save(saved.evolve(failures=1))
    assert await records.load_all() == (saved,)
    async with asyncio.timeout(20):
        while index.record_version(release) != saved.version:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await records.load(release) == saved

    leases = ClusterLeases(api, FakeClock().now, renew_every=0.1)
    async with leases.hold(release):
        await asyncio.sleep(0.5)

    references = ClusterReferences(api)
    key = DeclarationKey(install.target, "nothing")
    assert await references.config_map(key) is None
    assert await references.secret(key) is None
    await records.delete(saved)
    assert await api.can_i("create", "batch/v1", "Job", install.target)
    assert await api.can_i("get", "v1", "Pod", install.target, subresource="log")
    task.cancel()
    await asyncio.wait([task])


def test_a_real_helm_does_its_work_with_the_roles(
    install: Install, helm: Path, charts: Path
) -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [helm, *command, "-n", install.target],
            env={**os.environ, "KUBECONFIG": str(install.kubeconfig)},
            capture_output=True,
            text=True,
        )

    wait = ("--wait", "--timeout", "60s")
    for command in (
        ("install", "web", str(charts / "web"), *wait),
        ("upgrade", "web", str(charts / "web"), "--set", "message=two", *wait),
        ("test", "web", "--timeout", "60s"),
        ("rollback", "web", "1", *wait),
        ("history", "web"),
        ("uninstall", "web", "--wait", "--timeout", "60s"),
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stderr)


# What lacks is refused clearly


async def test_another_namespace_is_refused_with_the_rule_that_lacks(
    api: Api, install: Install
) -> None:
    who = f"system:serviceaccount:{install.own}:helmops"
    with pytest.raises(AccessDenied) as raised:
        await SecretRecords(api).save(install.record(install.other))
    told = str(raised.value)
    assert f"{who} may not create secrets in namespace {install.other}" in told
    assert 'apiGroups [""], resources ["secrets"], verbs ["create"]' in told

    with pytest.raises(AccessDenied, match=f"may not create leases in namespace {install.other}"):
        async with ClusterLeases(api, FakeClock().now).hold(ReleaseId(install.other, "web")):
            pytest.fail("held without a right to")
    with pytest.raises(AccessDenied, match="may not get configmaps"):
        await ClusterReferences(api).config_map(DeclarationKey(install.other, "x"))


async def test_all_namespaces_at_once_are_refused_until_some_are_known(
    api: Api, install: Install
) -> None:
    records = SecretRecords(api)
    with pytest.raises(AccessDenied, match="list secrets in the whole cluster") as raised:
        await records.load_all()
    assert "ClusterRole" in raised.value.next_step
    saved = await records.save(install.record(install.target))
    assert await records.load_all() == (saved,)


async def test_an_index_of_everything_becomes_one_of_what_is_allowed(
    api: Api, install: Install
) -> None:
    index = SecretIndex(api, lambda kind, changed: None)
    index.add_namespace(install.target)
    index.add_namespace(install.other)
    task = asyncio.create_task(index.run())
    async with asyncio.timeout(20):
        while not index.is_live(install.target):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not index.is_cluster_wide
    assert index.versions(ReleaseId(install.target, "web")) == {}
    assert index.versions(ReleaseId(install.other, "web")) is None
    task.cancel()
    await asyncio.wait([task])


async def test_a_namespace_may_not_be_made(api: Api, install: Install) -> None:
    with pytest.raises(AccessDenied, match="may not create namespaces in the whole cluster"):
        await SecretRecords(api).ensure_namespace("t-never-made")


async def test_the_roles_cannot_be_widened_by_their_holder(api: Api, install: Install) -> None:
    for verb, kind in (
        ("create", "Role"),
        ("update", "Role"),
        ("create", "RoleBinding"),
    ):
        assert not await api.can_i(verb, "rbac.authorization.k8s.io/v1", kind, install.target)
    assert not await api.can_i("impersonate", "v1", "ServiceAccount", install.target)
    assert not await api.can_i("create", "v1", "Pod", install.target, subresource="exec")


# The rest of the manifests


def _allows(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_cluster_role_is_the_two_roles_and_new_namespaces(kubectl: Path) -> None:
    roles = [m for m in rendered(kubectl, "target-namespace") if m["kind"] == "Role"]
    wide = [m for m in rendered(kubectl, "cluster-wide") if m["kind"] == "ClusterRole"]
    both = set().union(*(_allows(role["rules"]) for role in roles))
    assert _allows(wide[0]["rules"]) == both | {("", "namespaces", "create")}


def test_no_rule_has_a_wildcard(kubectl: Path) -> None:
    for manifest in (*rendered(kubectl, "target-namespace"), *rendered(kubectl, "cluster-wide")):
        assert "*" not in {part for rule in _allows(manifest.get("rules", [])) for part in rule}


def test_the_pod_is_accepted_where_only_restricted_ones_are(
    cluster: Cluster, kubectl: Path, namespace: str
) -> None:
    enforce = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    cluster.request("PATCH", f"/api/v1/namespaces/{namespace}", enforce, content="merge-patch+json")
    account = {"metadata": {"name": "helmops"}}
    cluster.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    manifests = rendered(kubectl, "base")
    template = next(m for m in manifests if m["kind"] == "Deployment")["spec"]["template"]
    pod = {"metadata": {"name": "helmops", "labels": {}}, "spec": template["spec"]}
    pods = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    cluster.request("POST", pods, pod)

    lax = {**template["spec"], "securityContext": {}}
    with pytest.raises(HTTPError) as refused:
        cluster.request("POST", pods, {**pod, "spec": lax})
    refused.value.close()


@pytest.mark.parametrize("folder", ["base", "cluster-wide"])
def test_everything_is_what_the_api_server_takes(
    cluster: Cluster, kubectl: Path, folder: str
) -> None:
    done = subprocess.run(
        [kubectl, "apply", "--dry-run=client", "--validate=strict", "-k", CONFIG / folder],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_state_can_be_kept_by_a_component(kubectl: Path, tmp_path: Path) -> None:
    relative = os.path.relpath(CONFIG, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{relative}/base]\ncomponents: [{relative}/persistent-state]\n"
    )
    told = subprocess.run(
        [kubectl, "kustomize", tmp_path], check=True, capture_output=True, text=True
    )
    manifests = {m["kind"]: m for m in yaml.safe_load_all(told.stdout)}
    volumes = manifests["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "helmops-state"}} in volumes
    assert {"scratch", "declarations", "state"} == {volume["name"] for volume in volumes}
    assert manifests["PersistentVolumeClaim"]["metadata"]["name"] == "helmops-state"
