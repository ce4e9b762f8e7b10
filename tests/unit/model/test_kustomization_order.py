from __future__ import annotations

from typing import Any

from helmops.model.declarations import KustomizationSpec
from helmops.model.declared import BuiltBy
from helmops.model.kustomization_order import FirstWait, first_waits
from helmops.model.releases import DeclarationKey


def key(name: str) -> DeclarationKey:
    return DeclarationKey("flux", name)


def spec(*depends_on: str, **more: Any) -> KustomizationSpec:
    return KustomizationSpec.model_validate(
        {
            "interval": "1h",
            "prune": True,
            "sourceRef": {"kind": "GitRepository", "name": "x"},
            "dependsOn": [{"name": name} for name in depends_on],
            **more,
        }
    )


def by(*names: str) -> BuiltBy:
    return BuiltBy(tuple(key(name) for name in names))


def waits(
    specs: dict[str, KustomizationSpec], releases: dict[str, BuiltBy], *failed: str
) -> dict[str, FirstWait]:
    found = first_waits(
        {key(name): each for name, each in specs.items()},
        {key(name): each for name, each in releases.items()},
        {key(name) for name in failed},
    )
    return {each.name: wait for each, wait in found.items()}


def test_only_one_that_waits_has_releases_to_wait_for() -> None:
    releases = {"db": by("base"), "web": by("apps")}
    assert waits({"base": spec(), "apps": spec("base")}, releases) == {}
    assert waits({"base": spec(wait=True), "apps": spec("base")}, releases) == {
        "web": FirstWait((key("db"),))
    }


def test_health_checks_name_releases_where_nothing_else_is_waited_for() -> None:
    checks = [
        {"kind": "HelmRelease", "name": "db", "namespace": "flux"},
        {"kind": "Deployment", "name": "x"},
    ]
    found = waits(
        {"base": spec(healthChecks=checks), "apps": spec("base")},
        {"db": by("base"), "other": by("base"), "web": by("apps")},
    )
    assert found == {"web": FirstWait((key("db"),))}


def test_what_an_outer_one_depends_on_counts_for_the_inner_ones() -> None:
    found = waits(
        {"base": spec(wait=True), "all": spec("base"), "inner": spec()},
        {"db": by("base"), "web": by("all", "inner")},
    )
    assert found == {"web": FirstWait((key("db"),))}


def test_an_inner_one_is_part_of_a_readiness_by_its_own_rule() -> None:
    specs = {
        "base": spec(wait=True),
        "quick": spec(),
        "slow": spec(wait=True),
        "apps": spec("base"),
    }
    releases = {"a": by("base", "quick"), "b": by("base", "slow"), "web": by("apps")}
    assert waits(specs, releases) == {"web": FirstWait((key("b"),))}


def test_what_is_missing_or_failed_is_named() -> None:
    found = waits({"bad": spec(), "apps": spec("bad", "none")}, {"web": by("apps")}, "bad")
    assert found["web"].missing == (
        "Kustomization flux/bad cannot be built",
        "Kustomization flux/none is not declared",
    )


def test_one_that_depends_on_what_it_is_in_does_not_wait_for_itself() -> None:
    assert waits({"all": spec(wait=True), "in": spec("all")}, {"web": by("all", "in")}) == {}
