from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from helmops.errors import (
    ChartRefused,
    SourceDenied,
    SourceInvalid,
    SourceMissing,
    SourceUnavailable,
)
from helmops.model.actions import Desired, Target, Unresolved
from helmops.model.charts import ChartArtifact, ChartVersion, Tree
from helmops.model.declarations import Defaults
from helmops.model.declared import DeclarationSet
from helmops.model.records import Origin, Proof, Record, Snapshot
from helmops.model.releases import DeclarationKey, HelmStatus, ReleaseId
from helmops.reconcile.resolving import Resolver
from helmops.reconcile.secrets import DeclaredSecrets, texts_of
from helmops.resolve.digest import config_digest
from tests.fakes.chart_builder import Built, FakeChartBuilder
from tests.fakes.chart_repositories import FakeChartRepositories
from tests.fakes.clock import FakeClock
from tests.fakes.cluster_state import FakeCluster
from tests.fakes.git_trees import FakeGitTrees
from tests.fakes.helm import FakeHelm
from tests.fakes.oci_repositories import FakeOciRepositories
from tests.fakes.references import FakeReferences
from tests.unit.reconcile.samples import (
    CHARTS,
    GIT,
    ROOT,
    chart,
    config_map,
    declare,
    git_repository,
    helm_chart,
    key,
    policy,
    release,
    repository,
    secret,
)

SECRET = "correct-horse-battery-staple"


class FakeTreeFiles:
    """The `TreeFiles` port: files by tree and path; `error` is raised by every read."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.error: SourceInvalid | None = None

    async def read(self, tree: Tree, path: str) -> bytes | None:
        if self.error is not None:
            raise self.error
        return self.files.get((tree.path, path))


class Room:
    """A resolver and all that it asks."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.charts = FakeChartRepositories()
        self.artifacts = FakeOciRepositories()
        self.git = FakeGitTrees()
        self.builder = FakeChartBuilder()
        self.files = FakeTreeFiles()
        self.references = FakeReferences()
        unsupported = options.pop("unsupported_fields", ())
        self.resolver = Resolver(
            clock=self.clock,
            helm=FakeHelm(FakeCluster(self.clock), major=3, unsupported_fields=unsupported),
            repositories=self.charts,
            artifacts=self.artifacts,
            git=self.git,
            builder=self.builder,
            files=self.files,
            references=DeclaredSecrets(self.references),
            **{"defaults": Defaults.SAFE, **options},
        )

    async def desired(
        self,
        *documents: Any,
        deployed: str = "",
        declared: DeclarationSet | None = None,
        records: Mapping[DeclarationKey, Record] | None = None,
    ) -> Desired:
        wanted = self.resolver.wanted(declared or declare(*documents), key())
        return await wanted.desired(deployed, records or {})

    async def target(self, *documents: Any, **other: Any) -> Target:
        found = (await self.desired(*documents, **other)).target
        assert isinstance(found, Target), found
        return found

    async def unresolved(self, *documents: Any, **other: Any) -> Unresolved:
        found = (await self.desired(*documents, **other)).target
        assert isinstance(found, Unresolved), found
        return found

    async def values(self, *documents: Any) -> Mapping[str, Any]:
        return (await self.target(repository(), *documents)).values


@pytest.fixture
def room() -> Room:
    room = Room()
    room.charts.offer(CHARTS, "web", "1.0.0", "1.1.0", "2.0.0", "2.1.0-rc.1")
    return room


# What does not depend on any source


async def test_what_is_wanted_is_the_declaration_with_its_defaults_filled_in(room: Room) -> None:
    documents = (
        repository(),
        release(targetNamespace="prod", values={"a": 1}),
        policy(prune=True),
    )
    declared = declare(*documents)
    found = await room.desired(declared=declared)
    assert (found.key, found.release) == (key(), ReleaseId("prod", "prod-web"))
    assert found.spec.upgrade.remediation.remediate_last_failure is True
    assert found.policy.prune
    assert found.defaults is Defaults.SAFE
    assert found.declaration_digest == declared.releases[key()].digest
    assert found.origin == "all.yaml:10"
    assert found.location == ROOT
    assert found.manifest["spec"]["values"] == {"a": 1}
    assert not found.is_observed_only


async def test_a_wanted_release_knows_what_helm_calls_it(room: Room) -> None:
    wanted = room.resolver.wanted(declare(repository(), release(releaseName="other")), key())
    assert (wanted.key, wanted.release) == (key(), ReleaseId("apps", "other"))


@pytest.mark.parametrize("mode", ["observe", "enforce"])
@pytest.mark.parametrize("only", [True, False])
async def test_observed_only_by_policy_or_for_all(mode: str, only: bool) -> None:
    room = Room(observe_only=only)
    found = await room.desired(repository(), release(), policy(mode=mode))
    assert found.is_observed_only is (only or mode == "observe")


# Versions


async def test_the_newest_in_the_range_is_taken(room: Room) -> None:
    found = await room.target(repository(), release(chart=chart(version="1.x")))
    assert found.chart.version == "1.1.0"
    assert found.choice == "1.1.0 is the newest in '1.x'"
    assert (found.held_back, found.downgrade_from) == ((), "")
    assert not found.follows_content


async def test_without_a_version_a_first_install_takes_the_newest_release(room: Room) -> None:
    assert (await room.target(repository(), release())).chart.version == "2.0.0"


async def test_without_a_version_no_new_major_by_itself(room: Room) -> None:
    found = await room.target(repository(), release(), deployed="1.0.0")
    assert found.chart.version == "1.1.0"
    assert found.held_back == ("2.0.0: upgrade.allow is minor, and 1.0.0 is deployed",)


async def test_flux_defaults_take_a_new_major_without_a_version() -> None:
    room = Room(defaults=Defaults.FLUX)
    room.charts.offer(CHARTS, "web", "1.0.0", "2.0.0")
    found = await room.target(repository(), release(), deployed="1.0.0")
    assert found.chart.version == "2.0.0"


async def test_a_range_that_lets_a_new_major_in_is_somebodys_word(room: Room) -> None:
    found = await room.target(repository(), release(chart=chart(version="*")), deployed="1.0.0")
    assert found.chart.version == "2.0.0"


@pytest.mark.parametrize(
    ("allow", "version"), [("patch", "1.0.0"), ("minor", "1.1.0"), ("major", "2.0.0")]
)
async def test_a_policy_says_how_far_an_upgrade_may_go(
    room: Room, allow: str, version: str
) -> None:
    documents = (repository(), release(chart=chart(version="*")), policy(upgrade={"allow": allow}))
    assert (await room.target(*documents, deployed="1.0.0")).chart.version == version


async def test_a_policy_allows_a_new_major_where_no_version_is_said(room: Room) -> None:
    documents = (repository(), release(), policy(upgrade={"allow": "major"}))
    assert (await room.target(*documents, deployed="1.0.0")).chart.version == "2.0.0"


async def test_a_lower_version_than_the_deployed_one_is_marked_as_a_downgrade(room: Room) -> None:
    documents = (repository(), release(chart=chart(version="1.0.0")))
    assert (await room.target(*documents, deployed="1.1.0")).downgrade_from == "1.1.0"


async def test_what_is_deployed_under_no_semantic_version_limits_nothing(room: Room) -> None:
    found = await room.target(repository(), release(), deployed="latest")
    assert found.chart.version == "2.0.0"
    assert found.held_back == ()


async def test_a_range_without_a_version_is_tried_again(room: Room) -> None:
    found = await room.unresolved(repository(), release(chart=chart(version=">=3")))
    assert (found.reason, found.stalled) == ("ArtifactFailed", False)
    assert "no version of web is in '>=3'" in found.message


async def test_what_is_no_range_is_not_tried_again(room: Room) -> None:
    found = await room.unresolved(repository(), release(chart=chart(version="newest")))
    assert (found.reason, found.stalled, found.retry_at) == ("InvalidVersionRange", True, None)


async def test_a_chart_that_must_not_be_used_is_not_tried_again(room: Room) -> None:
    room.charts.refused["web-2.0.0"] = ChartRefused("another digest")
    found = await room.unresolved(repository(), release())
    assert (found.stalled, found.message) == (True, "another digest")


# Sources that fail


async def test_a_failing_source_is_asked_again_after_a_back_off(room: Room) -> None:
    room.charts.fail(CHARTS, SourceUnavailable("no answer"))
    waits = []
    for _ in range(12):
        found = await room.unresolved(repository(), release())
        assert found.retry_at is not None
        waits.append((found.retry_at - room.clock.now()).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert (found.reason, found.message) == ("SourceNotReady", "no answer")


async def test_an_answer_ends_the_back_off(room: Room) -> None:
    room.charts.fail(CHARTS, SourceUnavailable("no answer"))
    for _ in range(5):
        await room.unresolved(repository(), release())
    room.charts.fail(CHARTS, None)
    await room.target(repository(), release())
    room.charts.fail(CHARTS, SourceDenied("no answer"))
    found = await room.unresolved(repository(), release(interval="2h"))
    assert found.retry_at == room.clock.now() + timedelta(seconds=1)


async def test_a_source_that_says_when_is_not_asked_before(room: Room) -> None:
    room.charts.fail(CHARTS, SourceUnavailable("429", retry_after=90.0))
    found = await room.unresolved(repository(), release())
    assert found.retry_at == room.clock.now() + timedelta(seconds=90)


async def test_each_release_has_its_own_back_off(room: Room) -> None:
    room.charts.fail(CHARTS, SourceUnavailable("no answer"))
    for _ in range(5):
        await room.unresolved(repository(), release())
    declared = declare(repository(), release("other"))
    wanted = room.resolver.wanted(declared, key("other"))
    found = (await wanted.desired("", {})).target
    assert isinstance(found, Unresolved)
    assert found.retry_at == room.clock.now() + timedelta(seconds=1)


async def test_a_removed_declaration_is_forgotten(room: Room) -> None:
    room.charts.fail(CHARTS, SourceUnavailable("no answer"))
    for _ in range(5):
        await room.unresolved(repository(), release())
    room.resolver.forget(key())
    found = await room.unresolved(repository(), release())
    assert found.retry_at == room.clock.now() + timedelta(seconds=1)


async def test_a_source_that_is_not_declared_is_named_with_the_place(room: Room) -> None:
    found = await room.unresolved(repository("other"), release())
    assert (found.reason, found.stalled) == ("SourceNotReady", False)
    assert found.message == (
        "all.yaml:20: HelmRepository apps/charts is not declared (declared are apps/other)"
    )


async def test_a_suspended_source_is_waited_for(room: Room) -> None:
    found = await room.unresolved(repository(suspend=True), release())
    assert "HelmRepository apps/charts is suspended" in found.message
    assert room.charts.asked == []


async def test_values_files_of_a_repositorys_chart_make_another_chart_of_it(room: Room) -> None:
    room.builder.put_values_file("", "prod.yaml")
    plain = await room.target(repository(), release())
    files = {"valuesFiles": ["prod.yaml", "gone.yaml"], "ignoreMissingValuesFiles": True}
    found = await room.target(repository(), release(chart=chart(**files)))
    assert found.chart.version == plain.chart.version
    assert found.chart.digest != plain.chart.digest
    assert (plain.follows_content, found.follows_content) == (False, True)
    missing = await room.unresolved(repository(), release(chart=chart(valuesFiles=["gone.yaml"])))
    assert "no values file" in missing.message


# HelmCharts


def referring(name: str = "web", **reference: Any) -> dict[str, Any]:
    found = release(chartRef={"kind": "HelmChart", "name": name, **reference})
    del found["spec"]["chart"]
    return found


async def test_a_helm_chart_that_is_referred_to_says_which_chart(room: Room) -> None:
    found = await room.target(repository(), helm_chart(version="~1.0"), referring())
    assert (found.chart.name, found.chart.version) == ("web", "1.0.0")


async def test_a_helm_chart_of_another_namespace_has_its_source_beside_it(room: Room) -> None:
    elsewhere = {"namespace": "infra"}
    room.charts.offer("https://infra.example.com", "web", "7.0.0")
    found = await room.target(
        {
            **repository(url="https://infra.example.com"),
            "metadata": {"name": "charts", **elsewhere},
        },
        repository(),
        helm_chart(metadata=elsewhere),
        referring(**elsewhere),
    )
    assert found.chart.version == "7.0.0"


async def test_a_helm_chart_without_a_version_is_as_a_release_without_one(room: Room) -> None:
    documents = (repository(), helm_chart(), referring())
    assert (await room.target(*documents, deployed="1.0.0")).chart.version == "1.1.0"
    documents = (repository(), helm_chart(version="*"), referring())
    assert (await room.target(*documents, deployed="1.0.0")).chart.version == "2.0.0"


async def test_a_helm_chart_in_git_is_packaged_with_all_that_it_says(room: Room) -> None:
    commit = pushed(room)
    room.builder.put_values_file(f"/trees/{commit}", "prod.yaml")
    said = {"valuesFiles": ["prod.yaml"], "reconcileStrategy": "Revision"}
    source = {"kind": "GitRepository", "name": "git"}
    found = await room.target(
        git_repository(), helm_chart(chart="charts/web", sourceRef=source, **said), referring()
    )
    assert found.chart.version == f"1.2.3+{commit[:12]}"
    assert found.follows_content
    assert room.builder.built[-1].values_files == ("prod.yaml",)


async def test_a_helm_chart_that_is_not_declared_is_named_with_the_place(room: Room) -> None:
    found = await room.unresolved(repository(), referring("other"))
    assert (found.reason, found.stalled) == ("SourceNotReady", False)
    assert "HelmChart apps/other is not declared" in found.message
    assert "all.yaml:" in found.message


async def test_a_helm_chart_without_its_source_names_the_line_in_the_helm_chart(room: Room) -> None:
    found = await room.unresolved(referring(), helm_chart())
    assert "HelmRepository apps/charts is not declared" in found.message
    assert found.message.startswith("all.yaml:")
    line = int(found.message.split(":")[1])
    assert line > 12  # in the second document


async def test_a_suspended_helm_chart_is_waited_for(room: Room) -> None:
    found = await room.unresolved(repository(), helm_chart(suspend=True), referring())
    assert "HelmChart apps/web is suspended" in found.message
    assert room.charts.asked == []


async def test_what_is_not_acted_on_in_a_helm_chart_is_refused(room: Room) -> None:
    verify = {"provider": "notation", "secretRef": {"name": "keys"}}
    found = await room.unresolved(repository(), helm_chart(verify=verify), referring())
    assert (found.reason, found.stalled) == ("NotSupported", True)
    assert "spec.verify.provider" in found.message


async def test_a_second_pass_over_a_helm_chart_costs_no_resolution(room: Room) -> None:
    declared = declare(repository(), helm_chart(), referring())
    first = await room.desired(declared=declared)
    assert (await room.desired(declared=declared)).target is first.target


# What is not acted on


async def test_fields_that_are_not_acted_on_are_refused_all_at_once(room: Room) -> None:
    kube_config = {"secretRef": {"name": "other-cluster"}}
    found = await room.unresolved(
        repository(), release(kubeConfig=kube_config, serviceAccountName="deployer")
    )
    assert (found.reason, found.stalled) == ("NotSupported", True)
    assert "spec.kubeConfig: not acted on yet" in found.message
    assert "spec.serviceAccountName: not acted on yet" in found.message
    assert room.charts.asked == [], "before anything is fetched"


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_hook_with_a_command_is_refused_unless_commands_are_allowed(allowed: bool) -> None:
    room = Room(allow_commands=allowed)
    room.charts.offer(CHARTS, "web", "1.0.0")
    hooks = [{"name": "backup", "at": "beforeUpgrade", "command": ["backup", "hunter2"]}]
    declared = (repository(), release(), policy(remediation={"hooks": hooks}))
    if allowed:
        assert await room.target(*declared)
        return
    found = await room.unresolved(*declared)
    assert (found.reason, found.stalled) == ("NotSupported", True)
    assert "spec.remediation.hooks[0].command: helmops was not started with --allow-commands" in (
        found.message
    )
    assert "HELMOPS_ALLOW_COMMANDS" in found.message
    assert "hunter2" not in found.message
    assert room.charts.asked == [], "before anything is fetched"


async def test_a_field_that_this_helm_has_no_flag_for_is_refused_where_it_is_set() -> None:
    room = Room(unsupported_fields=("install.serverSideApply",))
    room.charts.offer(CHARTS, "web", "1.0.0")
    assert await room.target(repository(), release(install={"disableWait": True}))
    found = await room.unresolved(repository(), release(install={"serverSideApply": True}))
    assert found.reason == "NotSupported"
    assert "spec.install.serverSideApply: helm 3 has no flag for it" in found.message
    assert "all.yaml:2" in found.message


async def test_health_checks_that_do_not_compile_are_refused_before_a_release(
    room: Room,
) -> None:
    check = {"apiVersion": "v1", "kind": "Odd", "current": "status.ready =="}
    found = await room.unresolved(repository(), release(healthCheckExprs=[check]))
    assert (found.reason, found.stalled) == ("InvalidCELExpression", True)
    assert "spec.healthCheckExprs" in found.message


# Charts from directories


def directory(name: str = ".", path: str = "charts/web", **spec: Any) -> dict[str, Any]:
    source = {"kind": "Directory", "name": name}
    return {"spec": {"chart": path, "sourceRef": source, **spec}}


async def test_a_chart_beside_the_declaration_is_packaged(room: Room) -> None:
    room.builder.put(ROOT, "charts/web", "web", "1.2.3")
    found = await room.target(release(chart=directory(valuesFiles=[])))
    assert (found.chart.name, found.chart.version) == ("web", "1.2.3")
    assert found.choice == "1.2.3 is what Directory . has at charts/web"
    assert not found.follows_content
    assert room.builder.built == [Built(Tree(".", "", ROOT), "charts/web")]


async def test_values_files_of_the_chart_are_handed_on(room: Room) -> None:
    room.builder.put(ROOT, "charts/web", "web", "1.2.3")
    await room.target(
        release(chart=directory(valuesFiles=["a.yaml"], ignoreMissingValuesFiles=True))
    )
    assert room.builder.built[0].values_files == ("a.yaml",)
    assert room.builder.built[0].ignore_missing_values_files


async def test_a_lower_version_in_the_directory_is_a_downgrade(room: Room) -> None:
    room.builder.put(ROOT, "charts/web", "web", "1.2.3")
    assert (
        await room.target(release(chart=directory()), deployed="1.3.0")
    ).downgrade_from == "1.3.0"
    assert (await room.target(release(chart=directory()), deployed="odd")).downgrade_from == ""


@pytest.mark.parametrize("name", ["..", "../declarations-of-others", "a/../.."])
async def test_a_directory_outside_of_what_was_named_is_refused(room: Room, name: str) -> None:
    found = await room.unresolved(release(chart=directory(name)))
    assert f"the directory {name} leaves {ROOT}" in found.message
    assert room.builder.built == []


async def test_a_chart_that_is_not_there_is_tried_again(room: Room) -> None:
    found = await room.unresolved(release(chart=directory()))
    assert (found.reason, found.stalled) == ("SourceNotReady", False)


# Charts from Git


def from_git(**spec: Any) -> dict[str, Any]:
    source = {"kind": "GitRepository", "name": "git"}
    return {"spec": {"chart": "charts/web", "sourceRef": source, **spec}}


def pushed(room: Room, version: str = "1.2.3") -> str:
    commit = room.git.push(GIT)
    room.builder.put(f"/trees/{commit}", "charts/web", "web", version)
    return commit


async def test_a_chart_of_the_newest_commit_is_packaged(room: Room) -> None:
    commit = pushed(room)
    found = await room.target(git_repository(), release(chart=from_git()))
    assert found.chart.version == "1.2.3"
    assert not found.follows_content
    assert room.builder.built[0].tree == Tree(GIT, f"main@sha1:{commit}", f"/trees/{commit}")
    assert room.builder.built[0].version_suffix == ""


async def test_by_revision_each_commit_is_another_chart(room: Room) -> None:
    commit = pushed(room)
    found = await room.target(
        git_repository(), release(chart=from_git(reconcileStrategy="Revision"))
    )
    assert found.chart.version == f"1.2.3+{commit[:12]}"
    assert found.follows_content


async def test_git_is_asked_once_an_interval_or_when_it_is_polled(room: Room) -> None:
    pushed(room)
    declared = declare(git_repository(), release(chart=from_git()))
    await room.target(declared=declared)
    pushed(room, "1.2.4")
    assert (await room.target(declared=declared)).chart.version == "1.2.3"
    room.clock.advance(timedelta(minutes=5))
    assert (await room.target(declared=declared)).chart.version == "1.2.4"
    pushed(room, "1.2.5")
    source = declared.sources["GitRepository", key("git")]
    assert await room.resolver.poll_git(source)
    assert (await room.target(declared=declared)).chart.version == "1.2.5"
    assert not await room.resolver.poll_git(source), "nothing new"
    assert [call[0] for call in room.git.asked].count("resolve") == 4


async def test_a_first_poll_of_git_is_no_change(room: Room) -> None:
    pushed(room)
    declared = declare(git_repository(), release(chart=from_git()))
    assert not await room.resolver.poll_git(declared.sources["GitRepository", key("git")])


async def test_git_that_does_not_answer_is_asked_again(room: Room) -> None:
    room.git.fail(GIT, SourceUnavailable("no answer"))
    found = await room.unresolved(git_repository(), release(chart=from_git()))
    assert found.reason == "SourceNotReady"
    assert found.retry_at is not None


async def test_a_poll_of_a_chart_repository_tells_of_news(room: Room) -> None:
    source = declare(repository(), release()).sources["HelmRepository", key("charts")]
    assert await room.resolver.poll_repository(source)
    assert not await room.resolver.poll_repository(source)
    room.charts.fail(CHARTS, SourceUnavailable("no answer"))
    with pytest.raises(SourceUnavailable):
        await room.resolver.poll_repository(source)


# Credentials


async def test_a_declared_secret_opens_a_source_before_the_clusters(room: Room) -> None:
    documents = (repository(secretRef={"name": "token"}), release())
    room.references.put_secret("apps", "token", username="ada", password=SECRET)
    await room.target(*documents)
    assert room.references.reads == ["Secret apps/token"]
    room.references.reads.clear()
    await room.target(*documents, secret("token", username="ada", password=SECRET))
    assert room.references.reads == []


async def test_a_secret_that_is_not_there_is_waited_for(room: Room) -> None:
    found = await room.unresolved(repository(secretRef={"name": "token"}), release())
    assert (found.reason, found.stalled) == ("SourceNotReady", False)
    assert "Secret apps/token does not exist" in found.message


async def test_a_source_that_refuses_the_credentials_is_said_as_flux_does(room: Room) -> None:
    room.charts.fail(CHARTS, SourceDenied("401"))
    assert (await room.unresolved(repository(), release())).reason == "AuthenticationFailed"


# Post-rendering


async def test_the_chart_carries_what_becomes_of_its_objects(room: Room) -> None:
    plain = await room.target(repository(), release())
    assert (plain.chart.post_rendering, plain.post_render_digest) == (None, "")
    labelled = await room.target(repository(), release(commonMetadata={"labels": {"a": "b"}}))
    assert labelled.chart.post_rendering is not None
    assert labelled.post_render_digest == labelled.chart.post_rendering.digest


async def test_that_helm_3_leaves_hooks_out_is_said_once(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    for labels in ({"a": "1"}, {"a": "2"}):
        await room.target(repository(), release(commonMetadata={"labels": labels}))
    assert caplog.text.count("helm 3 gives post-renderers no hooks") == 1


@pytest.mark.parametrize("strategy", ["combined", "separate"])
async def test_what_helm_3_cannot_do_with_hooks_is_refused_where_it_is_asked_for(
    room: Room, strategy: str
) -> None:
    common = {"labels": {"a": "b"}}
    asked = release(commonMetadata=common, postRenderStrategy=strategy)
    found = await room.unresolved(repository(), asked)
    assert (found.reason, found.stalled) == ("NotSupported", True)
    assert "spec.postRenderStrategy: helm 3 gives" in found.message
    await room.target(repository(), release(postRenderStrategy=strategy))
    await room.target(repository(), release(commonMetadata=common, postRenderStrategy="nohooks"))


# Values


def values_from(*references: dict[str, Any], **values: Any) -> dict[str, Any]:
    return release(valuesFrom=list(references), values=values)


async def test_inline_values_are_the_values(room: Room) -> None:
    found = await room.target(repository(), release(values={"a": {"b": 1}}))
    assert found.values == {"a": {"b": 1}}
    assert found.config_digest == config_digest({"a": {"b": 1}})


async def test_references_are_merged_in_order_and_inline_values_over_them(room: Room) -> None:
    found = await room.values(
        values_from({"kind": "ConfigMap", "name": "one"}, {"kind": "Secret", "name": "two"}, c=3),
        config_map("one", values__yaml="{a: 1, b: 1, c: 1, deep: {x: 1, z: 1}}"),
        secret("two", values__yaml="{b: 2, c: 2, deep: {z: 2}}"),
    )
    assert found == {"a": 1, "b": 2, "c": 3, "deep": {"x": 1, "z": 2}}


async def test_values_come_from_the_cluster_where_nothing_is_declared(room: Room) -> None:
    room.references.put_config_map("apps", "one", values__yaml="a: 1")
    room.references.put_secret("apps", "two", values__yaml="b: 2")
    found = await room.values(
        values_from({"kind": "ConfigMap", "name": "one"}, {"kind": "Secret", "name": "two"})
    )
    assert found == {"a": 1, "b": 2}


async def test_what_is_declared_goes_before_the_cluster(room: Room) -> None:
    room.references.put_config_map("apps", "one", values__yaml="a: cluster")
    found = await room.values(
        values_from({"kind": "ConfigMap", "name": "one"}),
        config_map("one", values__yaml="a: declared"),
    )
    assert found == {"a": "declared"}
    assert room.references.reads == []


async def test_a_key_of_its_own(room: Room) -> None:
    found = await room.values(
        values_from({"kind": "ConfigMap", "name": "one", "valuesKey": "prod.yaml"}),
        config_map("one", values__yaml="a: 1", prod__yaml="a: 2"),
    )
    assert found == {"a": 2}


async def test_a_target_path_wins_over_everything(room: Room) -> None:
    found = await room.values(
        values_from(
            {"kind": "Secret", "name": "one", "valuesKey": "port", "targetPath": "db.port"},
            {"kind": "ConfigMap", "name": "two"},
            db={"port": 1, "host": "x"},
        ),
        secret("one", port="5432"),
        config_map("two", values__yaml="db: {port: 2}"),
    )
    assert found == {"db": {"port": 5432, "host": "x"}}


@pytest.mark.parametrize(("literal", "expected"), [(False, 5432), (True, "5432")])
async def test_a_target_path_is_read_as_set_does_unless_it_is_literal(
    room: Room, literal: bool, expected: object
) -> None:
    reference = {
        "kind": "Secret",
        "name": "one",
        "valuesKey": "text",
        "targetPath": "port",
        "literal": literal,
    }
    found = await room.values(values_from(reference), secret("one", text="5432"))
    assert found == {"port": expected}


async def test_a_values_file_out_of_git(room: Room) -> None:
    commit = room.git.push(GIT)
    room.files.files[f"/trees/{commit}", "env/prod.yaml"] = b"a: 1"
    reference = {"kind": "GitRepository", "name": "git", "path": "env/prod.yaml"}
    assert await room.values(git_repository(), values_from(reference)) == {"a": 1}


@pytest.mark.parametrize(("path", "tree"), [("prod.yaml", ROOT), ("env/prod.yaml", f"{ROOT}/env")])
async def test_a_values_file_beside_the_declaration(room: Room, path: str, tree: str) -> None:
    room.files.files[tree, "prod.yaml"] = b"a: 1"
    assert await room.values(values_from({"kind": "File", "path": path})) == {"a": 1}


async def test_a_values_file_outside_of_what_was_named_is_refused(room: Room) -> None:
    found = await room.unresolved(
        repository(), values_from({"kind": "File", "path": "../secret.yaml"})
    )
    assert f"leaves {ROOT}" in found.message


async def test_a_file_that_cannot_be_read_is_said(room: Room) -> None:
    room.files.error = SourceInvalid("prod.yaml is larger than 4 MiB")
    found = await room.unresolved(repository(), values_from({"kind": "File", "path": "prod.yaml"}))
    assert found.message == "prod.yaml is larger than 4 MiB"


REFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "ConfigMap", "name": "one"}, "ConfigMap apps/one"),
    ({"kind": "Secret", "name": "one"}, "Secret apps/one"),
    (
        {"kind": "GitRepository", "name": "git", "path": "a.yaml"},
        "a.yaml in GitRepository apps/git",
    ),
    ({"kind": "File", "path": "a.yaml"}, "a.yaml"),
]


@pytest.mark.parametrize(("reference", "named"), REFERENCES, ids=lambda v: v if v is str else "")
async def test_a_reference_to_nothing_is_waited_for_unless_it_is_optional(
    room: Room, reference: dict[str, Any], named: str
) -> None:
    room.git.push(GIT)
    found = await room.unresolved(repository(), git_repository(), values_from(reference))
    assert (found.reason, found.stalled) == ("ValuesError", False)
    assert f"{named} does not exist" in found.message
    assert "all.yaml:" in found.message
    optional = values_from({**reference, "optional": True}, a=1)
    assert await room.values(git_repository(), optional) == {"a": 1}


async def test_optional_is_about_the_object_not_about_its_keys(room: Room) -> None:
    reference = {"kind": "ConfigMap", "name": "one", "valuesKey": "x", "optional": True}
    found = await room.unresolved(
        repository(), values_from(reference), config_map("one", values__yaml="a: 1")
    )
    assert "ConfigMap apps/one has no key x" in found.message


@pytest.mark.parametrize("content", ["- a\n", "a: [1\n", "just text"])
async def test_values_that_are_none_are_refused_without_being_shown(
    room: Room, content: str
) -> None:
    text = f"{content}#{SECRET}" if content.endswith("\n") else f"{content} {SECRET}"
    found = await room.unresolved(
        repository(),
        values_from({"kind": "Secret", "name": "one"}),
        secret("one", values__yaml=text),
    )
    assert (found.reason, found.stalled) == ("ValuesError", True)
    assert "Secret apps/one key values.yaml" in found.message
    assert SECRET not in found.message


async def test_a_git_repository_of_values_that_is_not_declared_is_named(room: Room) -> None:
    reference = {"kind": "GitRepository", "name": "git", "path": "a.yaml"}
    found = await room.unresolved(repository(), values_from(reference))
    assert "GitRepository apps/git is not declared" in found.message


# Dependencies


async def test_dependencies_that_are_not_ready_are_named_whatever_the_target(room: Room) -> None:
    documents = (repository(), release(dependsOn=[{"name": "db"}]), release("db"))
    found = await room.desired(*documents)
    assert found.waiting_for == ("apps/db (not released yet)",)
    assert isinstance(found.target, Target)


async def test_a_release_is_beside_those_that_are_declared_with_it(room: Room) -> None:
    declared = declare(repository(), release(), release("db"))
    wanted = room.resolver.wanted(declared, key())
    assert wanted.is_beside(key("db"))
    assert not wanted.is_beside(key())
    assert not wanted.is_beside(key("none"))


# Secrets that must not be shown


@pytest.mark.parametrize(
    ("content", "hidden"),
    [
        (SECRET, {SECRET}),
        (f"  {SECRET}\n", {SECRET}),
        (f"db:\n  password: {SECRET}\n  user: 'somebody'\n  port: 5432", {SECRET, "somebody"}),
        ("short", set()),
        ("", set()),
        (" \n ", set()),
    ],
    ids=["whole", "with a line's end", "a file of values", "short", "empty", "blank"],
)
def test_texts_that_give_something_away_are_found(content: str, hidden: set[str]) -> None:
    found = set(texts_of({"a": content.encode()}))
    assert hidden <= found
    assert bool(found) is bool(hidden)
    assert not {"5432", "short", ""} & found, "short ones would hide half of every log"


async def test_what_is_read_of_secrets_is_told_once_to_whoever_hides_it() -> None:
    told: list[str] = []
    references = FakeReferences()
    references.put_secret("apps", "one", password=SECRET)
    secrets = DeclaredSecrets(references, lambda *texts: told.extend(texts))
    secrets.declarations = declare(
        secret("two", password=f"{SECRET}-two"), config_map("c", a=SECRET)
    )
    for name in ("one", "two", "one", "none"):
        await secrets.secret(key(name))
    await secrets.config_map(key("c"))
    assert told == [SECRET, f"{SECRET}-two"]


# What is remembered


async def test_what_is_remembered_of_a_declaration_asks_nobody_for_anything(room: Room) -> None:
    """A command without declarations knows the release, not what it should become."""
    declared = replace(declare(repository(), release()), is_remembered=True)
    found = await room.unresolved(declared=declared)
    assert found.is_unasked
    assert room.charts.asked == []


async def test_a_second_pass_over_unchanged_things_costs_no_resolution(room: Room) -> None:
    declared = declare(repository(), release())
    first = await room.desired(declared=declared)
    room.charts.asked.clear()
    again = await room.desired(declared=declared)
    assert again is first
    assert room.charts.asked == [("versions", CHARTS, "web")], "one look, in memory"


async def test_a_new_version_is_seen_by_the_next_pass(room: Room) -> None:
    declared = declare(repository(), release())
    await room.target(declared=declared)
    room.charts.offer(CHARTS, "web", "2.2.0")
    assert (await room.target(declared=declared)).chart.version == "2.2.0"


async def test_another_deployed_version_is_another_resolution(room: Room) -> None:
    declared = declare(repository(), release())
    assert (await room.target(declared=declared, deployed="1.0.0")).chart.version == "1.1.0"
    assert (await room.target(declared=declared)).chart.version == "2.0.0"


async def test_changed_declarations_are_another_resolution(room: Room) -> None:
    await room.target(repository(), release(values={"a": 1}))
    assert (await room.target(repository(), release(values={"a": 2}))).values == {"a": 2}


async def test_dependencies_are_looked_at_in_every_pass(room: Room) -> None:
    declared = declare(repository(), release(dependsOn=[{"name": "db"}]), release("db"))
    before = await room.desired(declared=declared)
    record = Record(key=key("db"), release=ReleaseId("apps", "db"))
    after = await room.desired(declared=declared, records={key("db"): record})
    assert before.waiting_for != after.waiting_for


async def test_values_from_elsewhere_are_read_in_every_pass(room: Room) -> None:
    room.references.put_config_map("apps", "one", values__yaml="a: 1")
    declared = declare(repository(), values_from({"kind": "ConfigMap", "name": "one"}))
    assert (await room.target(declared=declared)).values == {"a": 1}
    room.references.put_config_map("apps", "one", values__yaml="a: 2")
    assert (await room.target(declared=declared)).values == {"a": 2}


async def test_charts_from_directories_are_looked_at_in_every_pass(room: Room) -> None:
    room.builder.put(ROOT, "charts/web", "web", "1.0.0")
    declared = declare(release(chart=directory()))
    await room.target(declared=declared)
    room.builder.put(ROOT, "charts/web", "web", "1.0.1")
    assert (await room.target(declared=declared)).chart.version == "1.0.1"


async def test_what_failed_is_tried_in_every_pass(room: Room) -> None:
    declared = declare(repository(), release())
    room.charts.fail(CHARTS, SourceMissing("404"))
    await room.unresolved(declared=declared)
    room.charts.fail(CHARTS, None)
    assert await room.target(declared=declared)


async def test_a_source_that_fails_later_is_noticed_though_all_was_known(room: Room) -> None:
    declared = declare(repository(), release())
    await room.target(declared=declared)
    room.charts.fail(CHARTS, SourceDenied("who are you"))
    assert (await room.unresolved(declared=declared)).message == "who are you"


async def test_what_the_index_says_of_a_version_comes_with_it(room: Room) -> None:
    room.charts.offer(CHARTS, "old", ChartVersion("old", "1.0.0", deprecated=True))
    found = await room.target(repository(), release(chart=chart(chart="old")))
    assert found.chart.deprecated
    assert found.choice == "1.0.0 is the newest release; the chart is deprecated"


# What charts depend on


async def dependency(
    room: Room, repository_url: str, *documents: Any, version: str = "~1.0", name: str = "web"
) -> ChartArtifact:
    """What a chart in a directory gets for a dependency."""
    room.builder.put(f"{ROOT}", "charts/web", "web", "1.2.3")
    await room.target(release(chart=directory()), *documents)
    assert room.builder.fetch is not None
    return await room.builder.fetch(name, version, repository_url)


async def test_a_dependency_is_fetched_from_the_repository_that_it_names(room: Room) -> None:
    assert (await dependency(room, CHARTS)).version == "1.0.0"
    assert (await dependency(room, CHARTS, version="1.1.0")).version == "1.1.0"


async def test_a_dependencys_repository_is_opened_as_the_one_declared_for_its_url(
    room: Room,
) -> None:
    opened = repository("any", url=f"{CHARTS}/", secretRef={"name": "login"})
    room.charts.offer(f"{CHARTS}/", "web", "1.0.0")
    with pytest.raises(SourceMissing, match="Secret apps/login does not exist"):
        await dependency(room, CHARTS, opened)
    login = secret("login", username="u", password=SECRET)
    assert (await dependency(room, CHARTS, opened, login)).version == "1.0.0"


@pytest.mark.parametrize("alias", ["@charts", "alias:charts"])
async def test_helms_alias_is_a_declared_repository_by_name(room: Room, alias: str) -> None:
    assert (await dependency(room, alias, repository())).version == "1.0.0"
    with pytest.raises(ChartRefused, match="neither a URL nor a HelmRepository"):
        await dependency(room, "@other", repository())


async def test_a_dependency_of_a_suspended_repository_is_waited_for(room: Room) -> None:
    with pytest.raises(SourceUnavailable, match="HelmRepository apps/charts is suspended"):
        await dependency(room, CHARTS, repository(suspend=True))


async def test_a_library_chart_is_nothing_to_release(room: Room) -> None:
    room.charts.libraries.add("web")
    found = await room.unresolved(repository(), release())
    assert (found.reason, found.stalled) == ("ArtifactFailed", True)
    assert "web is a library chart: it has nothing to install" in found.message


# Signatures by Helm's provenance


SIGNED = {"upgrade": {"provenance": {"keyringSecretRef": {"name": "keys"}}}}


async def test_a_chart_must_be_signed_where_its_policy_says_so(room: Room) -> None:
    keys = secret("keys", ann="KEY")
    documents = (repository(), release(), policy(**SIGNED), keys)
    found = await room.unresolved(*documents)
    assert (found.reason, found.stalled) == ("VerificationError", False)
    room.charts.signers["web-2.0.0"] = "ann"
    target = await room.target(*documents)
    assert target.choice.endswith("signed by ann")
    missing = await room.unresolved(repository(), release(), policy(**SIGNED))
    assert "Secret apps/keys does not exist" in missing.message


async def test_a_chart_that_can_have_no_provenance_is_refused_where_it_is_asked_for(
    room: Room,
) -> None:
    room.builder.put(ROOT, "charts/web", "web", "1.2.3")
    found = await room.unresolved(release(chart=directory()), policy(**SIGNED))
    assert found.reason == "VerificationError"
    assert "only charts of a HelmRepository have" in found.message


# A source that is down


async def test_a_release_goes_on_with_what_its_source_offered_last_and_says_so(room: Room) -> None:
    declared = declare(repository(), release())
    first = await room.target(declared=declared)
    assert first.fetch_failed == ""
    room.charts.fail(CHARTS, SourceUnavailable("the connection is refused"))
    found = await room.target(declared=declared)
    assert found == replace(first, fetch_failed="the connection is refused")
    changed = await room.target(repository(), release(values={"a": 1}))
    assert (changed.chart, changed.values) == (first.chart, {"a": 1})
    room.charts.fail(CHARTS, None)
    assert (await room.target(declared=declared)).fetch_failed == ""


# What changed behind our back


def recorded(version: str, upstream: str) -> dict[DeclarationKey, Record]:
    snapshot = replace(snapshot_of(version), upstream_digest=upstream)
    return {key(): Record(key=key(), release=ReleaseId("apps", "web"), history=(snapshot,))}


async def test_a_version_that_is_gone_from_its_source_is_told(room: Room) -> None:
    documents = (repository(), release())
    assert (await room.target(*documents, deployed="2.0.0")).yanked == ""
    assert (await room.target(*documents, deployed="2.0.0+build")).yanked == ""
    room.charts.withdraw(CHARTS, "web", "2.0.0")
    found = await room.target(*documents, deployed="2.0.0")
    assert (found.chart.version, found.yanked, found.downgrade_from) == ("1.1.0", "2.0.0", "2.0.0")
    assert (await room.target(*documents, deployed="")).yanked == ""


async def test_another_archive_under_the_deployed_version_is_told(room: Room) -> None:
    documents = (repository(), release(chart=chart(version="2.0.0")))
    first = await room.target(*documents, deployed="2.0.0")
    assert first.retagged_from == ""  # nobody knows what it was released from
    same = recorded("2.0.0", first.chart.digest)
    assert (await room.target(*documents, deployed="2.0.0", records=same)).retagged_from == ""
    other = recorded("2.0.0", "f" * 64)
    found = await room.target(*documents, deployed="2.0.0", records=other)
    assert found.retagged_from == "f" * 64
    newer = await room.target(repository(), release(), deployed="1.0.0", records=other)
    assert newer.retagged_from == ""


async def test_other_values_files_are_not_taken_for_another_archive(room: Room) -> None:
    room.builder.put_values_file("", "prod.yaml")
    pulled = await room.target(repository(), release())
    known = recorded("2.0.0", pulled.chart.digest)
    with_files = release(chart=chart(valuesFiles=["prod.yaml"]))
    found = await room.target(repository(), with_files, deployed="2.0.0", records=known)
    assert found.chart.digest != pulled.chart.digest
    assert found.retagged_from == ""


async def test_what_is_packaged_of_a_directory_is_nobody_s_publication(room: Room) -> None:
    room.builder.put(ROOT, "charts/web", "web", "1.2.3")
    known = recorded("1.2.3", "f" * 64)
    found = await room.target(release(chart=directory()), deployed="1.2.3", records=known)
    assert (found.retagged_from, found.yanked) == ("", "")


async def test_a_release_of_the_new_archive_is_another_resolution(room: Room) -> None:
    declared = declare(repository(), release(chart=chart(version="2.0.0")))
    old = recorded("2.0.0", "f" * 64)
    first = await room.target(declared=declared, deployed="2.0.0", records=old)
    assert first.retagged_from
    new = recorded("2.0.0", first.chart.digest)
    assert not (await room.target(declared=declared, deployed="2.0.0", records=new)).retagged_from


def snapshot_of(version: str) -> Snapshot:
    at = FakeClock().now()
    return Snapshot(
        revision=1,
        digest="d",
        origin=Origin.UPGRADE,
        status=HelmStatus.DEPLOYED,
        chart_name="web",
        chart_version=version,
        app_version="",
        config_digest="c",
        first_deployed=at,
        last_deployed=at,
        released=Proof.PASSED,
        health=Proof.PASSED,
        tests=Proof.SKIPPED,
    )
