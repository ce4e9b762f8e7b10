"""What needs no kubectl: plain kustomizations are built without one."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from helmops.model.credentials import GitCredentials
from helmops.model.declarations import GitRepositorySpec
from helmops.model.releases import DeclarationKey
from helmops.service.declarations import Declarations
from helmops.service.waking import changed_releases
from tests.fakes.flux_repository import URL, FluxRepository, keys, problems


@pytest.fixture
def repository(tmp_path: Path) -> FluxRepository:
    return FluxRepository(tmp_path)


def key(text: str) -> DeclarationKey:
    return DeclarationKey(*text.split("/"))


async def test_a_kustomization_gives_its_releases_their_namespace_and_says_where_they_stand(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web", "targetNamespace: shop")
    repository.release("apps/web/release.yaml", "web")
    declared = await repository.read()
    assert (keys(declared), declared.errors, declared.complete) == ({"shop/web"}, (), True)
    release = declared.releases[key("shop/web")]
    assert release.where == f"{repository.root}/apps/web/release.yaml:1"
    assert release.where_is(("spec", "interval")).endswith("apps/web/release.yaml:6")
    assert release.file.location == f"{repository.root}/apps/web/release.yaml"
    assert release.resource.metadata.labels == {
        "kustomize.toolkit.fluxcd.io/name": "web",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    }
    assert set(declared.sources) == {("OCIRepository", key("shop/web"))}


async def test_kustomizations_are_followed_to_any_depth_and_patches_pass_down(
    repository: FluxRepository,
) -> None:
    repository.flux(
        "all",
        "./apps",
        """
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
                        timeout: 9m
                    target:
                      kind: HelmRelease
            target:
              kind: Kustomization
              group: kustomize.toolkit.fluxcd.io
        """,
    )
    repository.kustomization("apps/shop", "namespace: shop\nresources:\n  - web/ks.yaml\n")
    repository.flux("web", "./apps/shop/web/app", file="apps/shop/web/ks.yaml")
    repository.release("apps/shop/web/app/release.yaml", "web")
    declared = await repository.read()
    assert keys(declared) == {"default/web"}
    release = declared.releases[key("default/web")]
    assert release.resource.spec.timeout == timedelta(minutes=9)
    assert release.file.built_by is not None
    assert release.file.built_by.chain == (key("flux-system/all"), key("shop/web"))


async def test_the_root_of_a_repository_is_the_same_as_the_directory_of_its_cluster(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web", "targetNamespace: shop")
    repository.release("apps/web/release.yaml", "web")
    declared = await repository.read("")
    assert (keys(declared), declared.errors) == ({"shop/web"}, ())


async def test_a_kustomization_that_holds_itself_is_followed_once(
    repository: FluxRepository,
) -> None:
    repository.flux("flux-system", "./clusters/prod", "commonMetadata: {labels: {by: flux}}")
    repository.write(
        "clusters/prod/source.yaml",
        """
        apiVersion: source.toolkit.fluxcd.io/v1
        kind: GitRepository
        metadata: {name: flux-system, namespace: flux-system}
        spec: {interval: 1m, url: 'ssh://git@elsewhere.example.com/other', ref: {branch: x}}
        """,
    )
    repository.release("clusters/prod/web.yaml", "web")
    declared = await repository.read()
    assert (keys(declared), problems(declared)) == ({"default/web"}, [])
    labels = declared.releases[key("default/web")].resource.metadata.labels
    assert labels["by"] == "flux", "it came by way of the Kustomization, not as it lies there"


async def test_another_repository_is_checked_out(
    repository: FluxRepository, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "release.yaml").write_text(
        "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: db}\n"
        "spec: {interval: 1h, chartRef: {kind: OCIRepository, name: db}}\n"
    )
    repository.git.push("https://git.example.com/other", path=str(other))
    repository.flux("db", "./")
    repository.write(
        "clusters/prod/source.yaml",
        """
        apiVersion: source.toolkit.fluxcd.io/v1
        kind: GitRepository
        metadata: {name: flux-system, namespace: flux-system}
        spec: {interval: 1m, url: 'https://git.example.com/other', ref: {branch: main}}
        """,
    )
    declared = await repository.read()
    assert (keys(declared), problems(declared)) == ({"default/db"}, [])
    assert declared.releases[key("default/db")].where == (
        "git+https://git.example.com/other/release.yaml:1"
    )


async def test_one_that_fails_leaves_the_others_standing_and_its_own_untouched(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web")
    repository.flux("db", "./apps/db")
    repository.release("apps/web/release.yaml", "web")
    repository.release("apps/db/release.yaml", "db")
    before = await repository.read()
    place = before.releases[key("default/db")].file.declared_in
    assert place in repository.declarations.locations
    repository.kustomization("apps/db", "resources:\n  - ./release.yaml\n  - ./missing.yaml\n")
    declared = await repository.poll()
    assert declared is not None
    assert keys(declared) == {"default/web"}
    assert problems(declared) == [
        "apps/db/kustomization.yaml:5: resources[1]: `./missing.yaml` does not exist "
        "(paths are relative to this file)"
    ]
    assert set(declared.untouched) == {key("default/db")}
    assert not declared.complete, "nothing that is missing was removed"
    assert place not in repository.declarations.locations
    (repository.root / "apps/db/kustomization.yaml").unlink()
    again = await repository.poll()
    assert again is not None
    assert (keys(again), again.errors) == ({"default/web", "default/db"}, ())


async def test_a_release_that_is_gone_from_its_kustomization_was_removed(
    repository: FluxRepository,
) -> None:
    repository.flux("apps", "./apps")
    repository.release("apps/web.yaml", "web")
    repository.release("apps/db.yaml", "db")
    before = await repository.read()
    place = before.releases[key("default/db")].file.declared_in
    (repository.root / "apps/db.yaml").unlink()
    declared = await repository.poll()
    assert declared is not None
    assert (keys(declared), declared.complete) == ({"default/web"}, True)
    assert not declared.knows(key("default/db"))
    assert place in repository.declarations.locations


async def test_a_suspended_kustomization_suspends_its_releases_and_removes_none(
    repository: FluxRepository,
) -> None:
    repository.flux("apps", "./apps")
    repository.release("apps/web.yaml", "web")
    repository.release("apps/db.yaml", "db")
    await repository.read()
    repository.flux("apps", "./apps", "suspend: true")
    (repository.root / "apps/db.yaml").unlink()
    declared = await repository.poll()
    assert declared is not None
    assert declared.releases[key("default/web")].resource.spec.suspend
    assert set(declared.untouched) == {key("default/db")}


async def test_a_kustomization_without_prune_takes_prune_from_its_releases(
    repository: FluxRepository,
) -> None:
    repository.flux("apps", "./apps", prune="false")
    repository.flux("others", "./others")
    repository.release("apps/web.yaml", "web")
    repository.release("others/db.yaml", "db")
    repository.write(
        "clusters/prod/policy.yaml",
        """
        apiVersion: helmops.dev/v1alpha1
        kind: ReleasePolicy
        metadata: {name: all, namespace: default}
        spec: {prune: true}
        """,
    )
    declared = await repository.read()
    assert not declared.policy_for(key("default/web")).prune
    assert declared.policy_for(key("default/db")).prune


async def test_what_concerns_others_is_counted_and_left_alone(repository: FluxRepository) -> None:
    repository.flux("apps", "./apps")
    repository.write(
        "apps/more.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata: {name: b}\n",
    )
    declared = await repository.read()
    assert (dict(declared.ignored), declared.errors) == ({"Service (core)": 2}, ())


@pytest.mark.parametrize(
    ("spec", "path", "said"),
    [
        ("kubeConfig: {secretRef: {name: x}}", "./apps", "spec.kubeConfig: not acted on yet"),
        ("serviceAccountName: x", "./apps", "spec.serviceAccountName: not acted on yet"),
        ("components: [../nowhere]", "./apps", "spec.components[0]: there is no directory"),
        ("components: ['https://x.example/y']", "./apps", "is no path in the repository"),
        ("", "./nowhere", "spec.path: there is no directory `nowhere`"),
        ("", "../../../etc", "spec.path: `../../../etc` leads out of the repository"),
        ("patches: [{patch: '[{op: remove, path: /a}]'}]", "./apps", "spec.patches[0].target"),
        ("unknown: 1", "./apps", "spec.unknown: unknown field"),
        ("dependsOn: [{name: apps}]", "./apps", "depend on each other in a circle"),
        (
            "postBuild: {substituteFrom: [{kind: ConfigMap, name: vars}]}",
            "./apps",
            "spec.postBuild.substituteFrom[0]: ConfigMap flux-system/vars is not declared, nor in "
            "the cluster",
        ),
        ("postBuild: {substitute: {a-b: x}}", "./apps", "`a-b` is no name of a variable"),
    ],
)
async def test_a_mistake_is_one_clear_error_and_others_stand(
    repository: FluxRepository, spec: str, path: str, said: str
) -> None:
    repository.flux("apps", path, spec)
    repository.flux("others", "./others")
    repository.release("apps/web.yaml", "web")
    repository.release("others/db.yaml", "db")
    declared = await repository.read()
    assert keys(declared) == {"default/db"}
    assert len(problems(declared)) == 1
    assert problems(declared)[0].startswith("clusters/prod/apps.yaml:")
    assert said in problems(declared)[0]


async def test_sources_of_other_kinds_are_named_as_not_supported(
    repository: FluxRepository,
) -> None:
    repository.flux("apps", "./apps")
    file = repository.root / "clusters/prod/apps.yaml"
    file.write_text(file.read_text().replace("kind: GitRepository", "kind: Bucket"))
    declared = await repository.read()
    assert "spec.sourceRef.kind: `Bucket` is not acted on yet" in problems(declared)[0]


async def test_kustomizations_that_include_each_other_are_one_error(
    repository: FluxRepository,
) -> None:
    repository.flux("one", "./two")
    repository.flux("two", "./clusters/prod", file="two/two.yaml")
    declared = await repository.read()
    assert len(declared.errors) == 1
    assert (
        "include each other: flux-system/one -> flux-system/two -> flux-system/one"
        in (problems(declared)[0])
    )


async def test_directories_that_claim_each_other_are_told(repository: FluxRepository) -> None:
    repository.flux("one", "./b", file="a/one.yaml")
    repository.flux("two", "./a", file="b/two.yaml")
    repository.release("c/web.yaml", "web")
    declared = await repository.read("")
    assert keys(declared) == {"default/web"}
    assert any("include each other" in problem for problem in problems(declared))


async def test_two_of_one_name_are_not_followed(repository: FluxRepository) -> None:
    repository.flux("apps", "./apps")
    repository.flux("apps", "./others", file="clusters/prod/again.yaml")
    repository.release("apps/web.yaml", "web")
    repository.release("others/db.yaml", "db")
    declared = await repository.read()
    assert keys(declared) == set()
    assert any("declared more than once" in each for each in problems(declared)), problems(declared)
    assert not declared.complete


async def test_without_kubectl_what_needs_it_is_one_error(repository: FluxRepository) -> None:
    for name in ("one", "two"):
        repository.flux(name, f"./{name}", "namePrefix: a-")
        repository.release(f"{name}/web.yaml", name)
    repository.flux("plain", "./plain")
    repository.release("plain/db.yaml", "db")
    declared = await repository.read()
    assert keys(declared) == {"default/db"}
    assert problems(declared) == [
        "kubectl: kustomizations are built by kubectl, and `/nonexistent/kubectl` is not there "
        "(install kubectl, or name one with --kubectl or HELMOPS_KUBECTL)"
    ]


async def test_a_failed_kustomization_may_hide_policies(repository: FluxRepository) -> None:
    repository.flux("policies", "./policies", "namePrefix: a-")
    repository.flux("apps", "./apps")
    repository.release("apps/web.yaml", "web")
    repository.write(
        "policies/all.yaml",
        "apiVersion: helmops.dev/v1alpha1\nkind: ReleasePolicy\n"
        "metadata: {name: all, namespace: default}\nspec: {mode: observe}\n",
    )
    declared = await repository.read()
    assert set(declared.untouched) == {key("default/web")}, "its policy may be in there"


async def test_dependencies_make_releases_wait_until_they_are_installed_first(
    repository: FluxRepository,
) -> None:
    repository.flux("base", "./base", "wait: true")
    repository.flux("middle", "./middle", "dependsOn: [{name: base}]")
    repository.flux("apps", "./apps", "dependsOn: [{name: middle}]")
    repository.flux("lost", "./lost", "dependsOn: [{name: nobody}]")
    for name in ("base", "middle", "apps", "lost"):
        repository.release(f"{name}/release.yaml", name)
    declared = await repository.read()
    waits = declared.first_waits
    assert waits[key("default/apps")].releases == (key("default/base"),)
    assert waits[key("default/middle")].releases == (key("default/base"),)
    assert waits[key("default/lost")].missing == (
        "Kustomization flux-system/nobody is not declared",
    )
    assert key("default/base") not in waits


async def test_nothing_changed_costs_a_look_and_a_change_is_seen(
    repository: FluxRepository,
) -> None:
    repository.flux("apps", "./apps")
    repository.release("apps/web.yaml", "web")
    first = await repository.read()
    assert await repository.poll() is None
    repository.release("apps/web.yaml", "web", "timeout: 3m")
    second = await repository.poll()
    assert second is not None
    assert second.releases[key("default/web")].digest != first.releases[key("default/web")].digest
    repository.release("apps/db.yaml", "db")
    third = await repository.poll()
    assert third is not None
    assert keys(third) == {"default/web", "default/db"}


async def test_a_directory_without_any_of_this_is_read_as_it_was(
    repository: FluxRepository,
) -> None:
    repository.release("plain/web.yaml", "web")
    repository.write("plain/values.yaml", "a: 1\n")
    declared = await repository.read("plain")
    assert (keys(declared), declared.errors) == ({"default/web"}, ())
    assert declared.releases[key("default/web")].file.built_by is None


async def test_a_commit_is_followed_and_the_next_one_when_it_comes(
    repository: FluxRepository, tmp_path: Path
) -> None:
    repository.flux("web", "./apps/web")
    repository.release("apps/web/release.yaml", "web")
    spec = GitRepositorySpec.model_validate(
        {"url": URL, "interval": "1m", "ref": {"branch": "main"}}
    )
    label = f"git+{URL}?path=clusters/prod"
    repository.git.push(URL, path=str(repository.root))
    repository.declarations.add_git(spec, "clusters/prod", label, GitCredentials())
    declared = await repository.declarations.read()
    release = declared.releases[key("default/web")]
    assert (problems(declared), release.where) == ([], f"git+{URL}?path=apps/web/release.yaml:1")
    assert repository.declarations.location_of(release.file) == f"{label}#flux-system/web"
    other = tmp_path / "next"
    shutil.copytree(repository.root, other)
    (other / "apps/web/release.yaml").rename(other / "apps/web/again.yaml")
    repository.git.push(URL, path=str(other))
    await repository.clock.sleep(61)
    changed = await repository.poll()
    assert changed is not None
    assert changed.releases[key("default/web")].where == f"git+{URL}?path=apps/web/again.yaml:1"


async def test_a_change_wakes_only_the_release_that_it_concerns(
    repository: FluxRepository,
) -> None:
    for name in ("one", "two", "three"):
        repository.flux(name, f"./{name}", "wait: true")
        repository.release(f"{name}/release.yaml", name)
    before = await repository.read()
    repository.release("two/release.yaml", "two", "timeout: 1m")
    after = await repository.poll()
    assert after is not None
    assert changed_releases(before, after) == {key("default/two"): "its declaration changed"}


async def test_releases_of_a_failed_or_suspended_kustomization_are_never_taken_for_removed(
    repository: FluxRepository, tmp_path: Path
) -> None:
    """Not by the next process either, which knows nothing of before."""
    repository.flux("web", "./apps/web")
    repository.release("apps/web/release.yaml", "web")
    first = await repository.read()
    place = first.releases[key("default/web")].file.declared_in
    (repository.root / "apps/web/release.yaml").unlink()
    (repository.root / "apps/web/keep.yaml").write_text("")
    repository.flux("web", "./apps/web", "suspend: true")
    later = Declarations(
        clock=repository.clock,
        git=repository.git,
        artifacts=repository.artifacts,
        default_namespace="default",
        random=lambda: 1.0,
        builder=repository.builder,
    )
    later.add_directory(str(repository.root / "clusters/prod"))
    await later.read()
    assert place not in later.locations
    assert place.partition("#")[0] in later.locations


# What Flux would not have.


async def test_a_directory_without_kustomization_is_built_without_what_is_ignored(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web")
    repository.release("apps/web/release.yaml", "web")
    repository.release("apps/web/cloudbuild.yaml", "ci")
    repository.release("apps/web/tests/release.yaml", "test")
    declared = await repository.read()
    assert (keys(declared), declared.errors) == ({"default/web", "default/test"}, ())
    repository.write("apps/.sourceignore", "tests/\n")
    declared = await repository.poll()
    assert declared is not None
    assert keys(declared) == {"default/web", "default/ci"}  # its own rules count, not Flux's
    repository.write("apps/.sourceignore", "tests/\ncloudbuild.yaml\n")
    declared = await repository.poll()
    assert declared is not None
    assert keys(declared) == {"default/web"}
    (repository.root / "apps/.sourceignore").unlink()
    declared = await repository.poll()
    assert declared is not None
    assert keys(declared) == {"default/web", "default/test"}


async def test_a_kustomization_that_names_what_is_ignored_is_told_so(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web")
    repository.kustomization("apps/web", "resources:\n  - release.yaml\n  - old.yaml\n")
    repository.release("apps/web/release.yaml", "web")
    repository.release("apps/web/old.yaml", "old")
    repository.write("apps/.sourceignore", "old.yaml\n")
    declared = await repository.read()
    assert problems(declared) == [
        "apps/web/kustomization.yaml:5: resources[1]: `old.yaml` is ignored: Flux leaves it out "
        "(see .sourceignore, and `ignore` of the GitRepository)"
    ]
    assert not declared.complete


async def test_the_own_repositorys_ignore_has_the_last_word(repository: FluxRepository) -> None:
    repository.write(
        "clusters/prod/source.yaml",
        f"""
        apiVersion: source.toolkit.fluxcd.io/v1
        kind: GitRepository
        metadata:
          name: flux-system
          namespace: flux-system
        spec:
          interval: 1m
          url: {URL}
          ref:
            branch: main
          ignore: |
            /*
            !/apps/web
        """,
    )
    repository.flux("web", "./apps")
    repository.release("apps/web/release.yaml", "web")
    repository.release("apps/other/release.yaml", "other")
    repository.write("apps/web/.sourceignore", "release.yaml\n")
    declared = await repository.read()
    assert (keys(declared), problems(declared)) == ({"default/web"}, [])


async def test_a_path_of_which_nothing_is_left_is_an_error_and_no_removal(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web")
    repository.release("apps/web/release.yaml", "web")
    repository.write(".sourceignore", "/apps/\n")
    declared = await repository.read()
    assert problems(declared) == [
        "clusters/prod/web.yaml:9: spec.path: there is no directory `apps/web`"
    ]
    assert not declared.complete


async def test_bad_ignore_rules_are_an_error_of_the_kustomizations_they_concern(
    repository: FluxRepository,
) -> None:
    repository.flux("web", "./apps/web")
    repository.release("apps/web/release.yaml", "web")
    repository.flux("shop", "./apps/shop")
    repository.release("apps/shop/release.yaml", "shop")
    repository.write("apps/web/.sourceignore", "a\\\n")
    declared = await repository.read()
    assert keys(declared) == {"default/shop"}
    assert len(problems(declared)) == 1
    assert "apps/web/.sourceignore: a pattern cannot be read" in problems(declared)[0]
