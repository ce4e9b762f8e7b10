"""Charts from OCIRepositories, and from Helm repositories in registries."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from helmops.errors import SourceDenied, SourceUnavailable
from helmops.model.credentials import HttpCredentials
from helmops.model.declarations import Defaults
from helmops.model.declared import DeclarationSet
from tests.unit.reconcile.samples import (
    REGISTRY,
    artifact,
    chart,
    declare,
    key,
    policy,
    release,
    release_of_artifact,
    repository,
    secret,
)
from tests.unit.reconcile.test_resolving import Room


class OciRoom(Room):
    """A room with a registry, whose charts can be packaged anew."""

    def push(self, tag: str, version: str = "", content: str = "", **more: Any) -> str:
        """Push a version of the chart `web`; gives back twelve digits of its digest."""
        version = version or tag
        digest = self.artifacts.push(REGISTRY, tag, "web", version, content, **more)
        self.builder.put("/oci", f"{digest[:8]}.tgz", "web", version)
        return digest[:12]


@pytest.fixture
def room() -> OciRoom:
    return OciRoom()


async def test_a_chart_has_twelve_digits_of_its_digest_behind_the_version_as_with_flux(
    room: OciRoom,
) -> None:
    digest = room.push("1.2.3")
    target = await room.target(release_of_artifact(), artifact(ref={"tag": "1.2.3"}))
    assert target.chart.version == f"1.2.3+{digest}"
    assert target.chart.revision == f"1.2.3+{digest}"
    assert target.chart.source == REGISTRY
    assert target.choice == "1.2.3 is what OCIRepository apps/web has at 1.2.3"
    assert not target.follows_content


async def test_build_metadata_gives_way_to_the_digest(room: OciRoom) -> None:
    digest = room.push("1.2.3_b4", "1.2.3+b4")
    target = await room.target(release_of_artifact(), artifact(ref={"tag": "1.2.3_b4"}))
    assert target.chart.version == f"1.2.3+{digest}"


async def test_what_runs_under_its_plain_version_goes_on_under_it(room: OciRoom) -> None:
    """Helm released it: taking it over must not change a label."""
    room.push("1.2.3")
    documents = release_of_artifact(), artifact(ref={"tag": "1.2.3"})
    target = await room.target(*documents, deployed="1.2.3")
    assert target.chart.version == "1.2.3"
    assert target.follows_content
    assert room.builder.built == []


async def test_what_flux_released_goes_on_under_flux_s_version(room: OciRoom) -> None:
    digest = room.push("1.2.3")
    documents = release_of_artifact(), artifact(ref={"tag": "1.2.3"})
    target = await room.target(*documents, deployed=f"1.2.3+{digest}")
    assert target.chart.version == f"1.2.3+{digest}"


async def test_a_tag_that_moved_is_another_version(room: OciRoom) -> None:
    documents = release_of_artifact(), artifact(ref={"tag": "latest"})
    room.push("latest", "1.2.3", "one")
    before = await room.target(*documents)
    room.push("latest", "1.2.3", "other")
    after = await room.target(*documents, deployed=before.chart.version)
    assert before.chart.version.partition("+")[0] == after.chart.version.partition("+")[0]
    assert before.chart.version != after.chart.version


async def test_a_range_means_the_newest_in_it(room: OciRoom) -> None:
    for tag in ("1.0.0", "1.9.0", "2.0.0", "1.10.0-rc.1"):
        room.push(tag)
    target = await room.target(release_of_artifact(), artifact(ref={"semver": "1.x"}))
    assert target.chart.version.partition("+")[0] == "1.9.0"
    assert target.choice == "1.9.0 is the newest in '1.x'"


async def test_a_policy_limits_ranges_and_tags_alike(room: OciRoom) -> None:
    for tag in ("1.0.0", "1.9.0", "2.0.0"):
        room.push(tag)
    limits = policy(upgrade={"allow": "minor"})
    ranged = release_of_artifact(), artifact(ref={"semver": "*"}), limits
    target = await room.target(*ranged, deployed="1.0.0")
    assert target.chart.version.partition("+")[0] == "1.9.0"
    assert target.held_back == ("2.0.0: upgrade.allow is minor, and 1.0.0 is deployed",)
    tagged = release_of_artifact(), artifact(ref={"tag": "2.0.0"}), limits
    held = await room.unresolved(*tagged, deployed="1.0.0")
    assert "held back: upgrade.allow is minor" in held.message
    target = await room.target(*tagged, deployed="2.0.0+abcdefabcdef")
    assert target.chart.version.partition("+")[0] == "2.0.0"


async def test_a_lower_version_is_told_as_a_downgrade(room: OciRoom) -> None:
    room.push("1.0.0")
    documents = release_of_artifact(), artifact(ref={"tag": "1.0.0"})
    target = await room.target(*documents, deployed="1.1.0+abcdefabcdef")
    assert target.downgrade_from == "1.1.0+abcdefabcdef"
    target = await room.target(*documents, deployed="1.0.0+abcdefabcdef")
    assert target.downgrade_from == ""


async def test_the_artifact_may_be_of_another_namespace_and_so_are_its_secrets(
    room: OciRoom,
) -> None:
    room.push("latest", "1.0.0")
    elsewhere = {"namespace": "flux"}
    room.references.put_secret("flux", "login", username="ada", password="s3cret")
    source = artifact(metadata=elsewhere, secretRef={"name": "login"})
    await room.target(release_of_artifact(namespace="flux"), source)
    assert room.artifacts.credentials == HttpCredentials(username="ada", password="s3cret")
    missing = await room.unresolved(release_of_artifact(), source)
    assert "OCIRepository apps/web is not declared" in missing.message


async def test_docker_s_logins_are_read_for_the_registry_s_host(room: OciRoom) -> None:
    room.push("latest", "1.0.0")
    auth = base64.b64encode(b"ada:s3cret").decode()
    logins = json.dumps({"auths": {"registry.example.com": {"auth": auth}, "other.test": {}}})
    await room.target(
        release_of_artifact(),
        artifact(secretRef={"name": "login"}),
        secret("login", __dockerconfigjson=logins),
    )
    assert room.artifacts.credentials == HttpCredentials(username="ada", password="s3cret")


async def test_a_suspended_artifact_is_not_asked(room: OciRoom) -> None:
    unresolved = await room.unresolved(release_of_artifact(), artifact(suspend=True))
    assert "OCIRepository apps/web is suspended" in unresolved.message
    assert room.artifacts.asked == []


async def test_what_is_not_acted_on_is_refused_by_name(room: OciRoom) -> None:
    source = artifact(verify={"provider": "notation", "secretRef": {"name": "keys"}})
    unresolved = await room.unresolved(release_of_artifact(), source)
    assert (unresolved.reason, unresolved.stalled) == ("NotSupported", True)
    assert "spec.verify.provider" in unresolved.message


async def test_a_library_is_refused(room: OciRoom) -> None:
    room.push("latest", "1.0.0", library=True)
    unresolved = await room.unresolved(release_of_artifact(), artifact())
    assert "web is a library chart" in unresolved.message


async def test_a_registry_that_fails_is_told_with_what_it_said(room: OciRoom) -> None:
    room.artifacts.fail(REGISTRY, SourceDenied("the registry answered 401"))
    unresolved = await room.unresolved(release_of_artifact(), artifact())
    assert (unresolved.reason, unresolved.stalled) == ("AuthenticationFailed", False)


# Signatures.

SIGNED = {"verify": {"provider": "cosign", "secretRef": {"name": "keys"}}}


async def test_a_signature_is_asked_for_with_the_keys_of_the_secret(room: OciRoom) -> None:
    room.push("1.0.0")
    documents = (
        release_of_artifact(),
        artifact(ref={"tag": "1.0.0"}, **SIGNED),
        secret("keys", ours__pub="OURS", theirs__pub="THEIRS", notes="no key"),
    )
    refused = await room.unresolved(*documents)
    assert (refused.reason, refused.stalled) == ("VerificationError", False)
    room.artifacts.sign(REGISTRY, "1.0.0", b"THEIRS")
    await room.target(*documents)
    assert room.artifacts.keys == (b"OURS", b"THEIRS")


@pytest.mark.parametrize("data", [{}, {"cosign__key": "PRIVATE"}])
async def test_a_secret_without_public_keys_is_refused(room: OciRoom, data: dict[str, str]) -> None:
    room.push("1.0.0")
    source = artifact(ref={"tag": "1.0.0"}, **SIGNED)
    refused = await room.unresolved(release_of_artifact(), source, secret("keys", **data))
    assert "Secret apps/keys has no public key" in refused.message
    missing = await room.unresolved(release_of_artifact(), source)
    assert "Secret apps/keys does not exist" in missing.message
    assert not any(call == "pull" for call, _ in room.artifacts.asked)


async def test_the_signature_of_a_chart_is_asked_for_with_keys_beside_its_source(
    room: OciRoom,
) -> None:
    url = "oci://registry.example.com/charts"
    room.charts.offer(url, "web", "1.0.0")
    signed = chart(
        version="1.0.0",
        sourceRef={"kind": "HelmRepository", "name": "charts", "namespace": "flux"},
        **SIGNED,
    )
    source = repository(url=url, type="oci")
    source["metadata"]["namespace"] = "flux"
    keys = secret("keys", cosign__pub="OURS")
    keys["metadata"]["namespace"] = "flux"
    await room.target(release(chart=signed), source, keys)
    assert room.charts.keys == (b"OURS",)


# Polls and memory.


async def test_a_pass_over_an_unchanged_artifact_pulls_nothing(room: OciRoom) -> None:
    room.push("1.0.0")
    declared = declare(release_of_artifact(), artifact(ref={"semver": "*"}))
    before = await room.target(declared=declared)
    room.artifacts.asked.clear()
    assert await room.target(declared=declared) is before
    assert [call for call, _ in room.artifacts.asked] == ["versions"]
    room.push("1.1.0")
    assert await room.target(declared=declared) is not before


def polled(declared: DeclarationSet, name: str = "web") -> Any:
    return declared.sources["OCIRepository", key(name)]


async def test_a_poll_says_whether_anything_changed(room: OciRoom) -> None:
    room.artifacts.polls = False
    room.push("latest", "1.0.0")
    declared = declare(release_of_artifact(), artifact())
    await room.target(declared=declared)
    assert await room.resolver.poll(polled(declared)) is False
    room.push("latest", "1.1.0")
    assert await room.resolver.poll(polled(declared)) is True
    assert await room.resolver.poll(polled(declared)) is False
    room.artifacts.fail(REGISTRY, SourceUnavailable("no answer"))
    with pytest.raises(SourceUnavailable):
        await room.resolver.poll(polled(declared))


async def test_a_registry_that_does_not_answer_is_told_beside_what_it_said_last(
    room: OciRoom,
) -> None:
    room.push("latest", "1.0.0")
    declared = declare(release_of_artifact(), artifact())
    before = await room.target(declared=declared)
    room.artifacts.fail(REGISTRY, SourceUnavailable("no answer"))
    after = await room.target(declared=declared)
    assert (after.chart, after.fetch_failed) == (before.chart, "no answer")
    room.artifacts.fail(REGISTRY, None)
    assert (await room.target(declared=declared)).fetch_failed == ""


async def test_two_declarations_of_one_artifact_are_both_told_of_news(room: OciRoom) -> None:
    room.artifacts.polls = False
    room.push("latest", "1.0.0")
    declared = declare(release_of_artifact(), artifact(), artifact("same"))
    for name in ("web", "same"):
        await room.resolver.poll(polled(declared, name))
    room.push("latest", "1.1.0")
    assert await room.resolver.poll(polled(declared, "web")) is True
    assert await room.resolver.poll(polled(declared, "same")) is True


# Chart repositories in registries.


async def test_a_helm_repository_in_a_registry_is_opened_with_docker_s_logins(
    room: OciRoom,
) -> None:
    url = "oci://registry.example.com/charts"
    room.charts.offer(url, "web", "1.0.0")
    auth = base64.b64encode(b"ada:s3cret").decode()
    logins = json.dumps({"auths": {"registry.example.com": {"auth": auth}}})
    target = await room.target(
        release(chart=chart(version="1.0.0")),
        repository(url=url, type="oci", secretRef={"name": "login"}),
        secret("login", __dockerconfigjson=logins),
    )
    assert (target.chart.version, target.follows_content) == ("1.0.0", False)


async def test_defaults_do_not_change_what_an_artifact_means() -> None:
    for defaults in Defaults:
        room = OciRoom(defaults=defaults)
        digest = room.push("latest", "2.0.0")
        target = await room.target(release_of_artifact(), artifact(), deployed="1.0.0")
        assert target.chart.version == f"2.0.0+{digest}"


async def test_a_failure_is_retried_later_and_later(room: OciRoom) -> None:
    room.artifacts.fail(REGISTRY, SourceUnavailable("no answer", retry_after=90))
    unresolved = await room.unresolved(release_of_artifact(), artifact())
    assert unresolved.retry_at is not None
    assert unresolved.retry_at >= room.clock.now() + timedelta(seconds=90)
