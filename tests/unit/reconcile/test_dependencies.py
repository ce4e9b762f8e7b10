from __future__ import annotations

from typing import Any

import pytest

from helmops.errors import ExpressionError
from helmops.model.declared import DeclarationSet
from helmops.model.kustomization_order import FirstWait
from helmops.model.records import Condition, ConditionStatus, Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.reconcile.dependencies import dependencies_of, not_ready
from tests.unit.decide.samples import NOW, snapshot
from tests.unit.reconcile.samples import declare, key, release, repository

DB = key("db")


def declared(*on: dict[str, Any], **db: Any) -> DeclarationSet:
    """`web` depends on what is given, `db` is declared beside it."""
    return declare(repository(), release("web", dependsOn=list(on)), release("db", **db))


def known(
    declarations: DeclarationSet,
    status: ConditionStatus = ConditionStatus.TRUE,
    of: DeclarationKey = DB,
    **other: Any,
) -> dict[DeclarationKey, Record]:
    """The record of a dependency, its declaration as it is now."""
    found = declarations.releases.get(of)
    fields = {
        "declaration_digest": found.digest if found else "",
        "conditions": (Condition("Ready", status, "Progressing", "m", NOW),),
        "manifest": found.manifest if found else {},
        **other,
    }
    return {of: Record(key=of, release=ReleaseId(of.namespace, of.name), **fields)}


def waiting(declarations: DeclarationSet, records: dict[DeclarationKey, Record]) -> tuple[str, ...]:
    return not_ready(declarations.releases[key()], declarations, records)


def test_a_release_without_dependencies_waits_for_nobody() -> None:
    declarations = declare(repository(), release())
    assert dependencies_of(declarations.releases[key()]) == ()
    assert waiting(declarations, {}) == ()


def test_a_dependency_without_a_namespace_is_in_that_of_the_release() -> None:
    declarations = declared({"name": "db"}, {"name": "mq", "namespace": "infra"})
    found = dependencies_of(declarations.releases[key()])
    assert found == (DB, key("mq", "infra"))


def test_a_ready_dependency_is_not_waited_for() -> None:
    declarations = declared({"name": "db"})
    assert waiting(declarations, known(declarations)) == ()


def test_all_that_are_not_ready_are_named_with_why() -> None:
    declarations = declared({"name": "db"}, {"name": "mq"})
    records = known(declarations, ConditionStatus.FALSE)
    assert waiting(declarations, records) == ("apps/db (Progressing)", "apps/mq (not declared)")


def test_one_that_was_never_passed_over_is_not_released_yet() -> None:
    declarations = declared({"name": "db"})
    assert waiting(declarations, {}) == ("apps/db (not released yet)",)


def test_one_whose_declaration_cannot_be_used_counts_as_declared() -> None:
    declarations = declared({"name": "db"})
    broken = DeclarationSet(
        releases={key(): declarations.releases[key()]},
        untouched={DB: ExpressionError("broken")},
    )
    assert waiting(broken, {}) == ("apps/db (not released yet)",)


def test_one_that_no_longer_is_declared_is_taken_by_its_record() -> None:
    """It may be declared to another helmops, whose record it is."""
    declarations = declare(repository(), release(dependsOn=[{"name": "db"}]))
    assert waiting(declarations, known(declarations)) == ()


def test_ready_before_its_declaration_changed_is_not_ready() -> None:
    """Otherwise both would be upgraded at once, in the pass after one commit."""
    before, after = declared({"name": "db"}), declared({"name": "db"}, interval="2h")
    assert waiting(after, known(before)) == ("apps/db (its declaration changed)",)


def test_ready_for_an_earlier_generation_is_not_ready() -> None:
    declarations = declared({"name": "db"})
    records = known(declarations, generation=2, observed_generation=1)
    assert waiting(declarations, records) == ("apps/db (Progressing)",)


def test_without_a_condition_it_is_not_ready() -> None:
    declarations = declared({"name": "db"})
    assert waiting(declarations, known(declarations, conditions=())) == ("apps/db (not ready)",)


# readyExpr


def by(expression: str) -> DeclarationSet:
    return declared({"name": "db", "readyExpr": expression}, values={"schema": 7})


@pytest.mark.parametrize("status", list(ConditionStatus))
def test_an_expression_replaces_the_look_at_ready(status: ConditionStatus) -> None:
    declarations = by("dep.spec.values.schema >= 7")
    assert waiting(declarations, known(declarations, status)) == ()


def test_an_expression_that_is_false_is_waited_for() -> None:
    declarations = by("dep.spec.values.schema >= 8")
    assert waiting(declarations, known(declarations)) == ("apps/db (readyExpr is false)",)


def test_it_sees_the_release_itself_and_the_status_of_the_other() -> None:
    declarations = by(
        'self.metadata.name == "web" && '
        'dep.status.conditions.exists(c, c.type == "Ready" && c.status == "True")'
    )
    assert waiting(declarations, known(declarations)) == ()
    assert waiting(declarations, known(declarations, ConditionStatus.FALSE))


def test_what_cannot_be_evaluated_yet_is_waited_for_and_said() -> None:
    declarations = by("dep.spec.values.later > 1")
    (found,) = waiting(declarations, known(declarations))
    assert found.startswith("apps/db (readyExpr: ")


def test_an_expression_says_nothing_of_a_declaration_that_changed() -> None:
    before, after = by("true"), declared({"name": "db", "readyExpr": "true"}, interval="2h")
    assert waiting(after, known(before)) == ("apps/db (its declaration changed)",)


def test_one_whose_declaration_was_never_acted_on_is_asked_all_the_same() -> None:
    """A record without a digest: no pass got as far, so nothing can have changed since."""
    declarations = declared({"name": "db"})
    assert waiting(declarations, known(declarations, declaration_digest="")) == ()
    records = known(declarations, ConditionStatus.FALSE, declaration_digest="")
    assert waiting(declarations, records) == ("apps/db (Progressing)",)


def test_an_expression_that_does_not_compile_is_an_error_of_the_declaration() -> None:
    declarations = by("dep.spec.(")
    with pytest.raises(ExpressionError):
        waiting(declarations, known(declarations))


def test_a_release_in_another_namespace_is_another_one() -> None:
    declarations = declared({"name": "db", "namespace": "infra"})
    assert waiting(declarations, known(declarations)) == ("infra/db (not declared)",)
    assert waiting(declarations, known(declarations, of=key("db", "infra"))) == ()


# What the Kustomizations of a release wait for


MISSING = "Kustomization flux-system/infra is not declared"


def ordered(*on: dict[str, Any]) -> DeclarationSet:
    """`web` waits for `db` and a Kustomization, before it is installed for the first time."""
    declarations = declared(*on)
    vars(declarations)["first_waits"] = {key(): FirstWait((DB,), (MISSING,))}  # as it is kept
    return declarations


def test_a_first_install_waits_for_what_its_kustomizations_depend_on() -> None:
    declarations = ordered()
    assert waiting(declarations, {}) == (MISSING, "apps/db (not released yet)")
    records = known(declarations, ConditionStatus.FALSE)
    assert waiting(declarations, records) == (MISSING, "apps/db (Progressing)")
    assert waiting(declarations, known(declarations, conditions=())) == (
        MISSING,
        "apps/db (not released yet)",
    )
    assert waiting(declarations, known(declarations)) == (MISSING,)
    assert waiting(declarations, known(declarations, generation=2, observed_generation=1)) == (
        MISSING,
        "apps/db (Progressing)",
    )


def test_its_own_dependencies_come_before_those_of_its_kustomizations() -> None:
    assert waiting(ordered({"name": "mq"}), {}) == (
        "apps/mq (not declared)",
        MISSING,
        "apps/db (not released yet)",
    )


def test_a_release_that_was_tried_and_never_installed_still_waits() -> None:
    declarations = ordered()
    assert waiting(declarations, known(declarations, of=key()))[0] == MISSING


def test_once_it_is_installed_its_kustomizations_hold_nothing_back() -> None:
    declarations = ordered()
    records = known(declarations, of=key(), history=(snapshot(),))
    assert waiting(declarations, records) == ()
    declarations = ordered({"name": "mq"})
    assert waiting(declarations, known(declarations, of=key(), history=(snapshot(),))) == (
        "apps/mq (not declared)",
    )


def test_others_without_such_kustomizations_wait_for_nothing() -> None:
    declarations = ordered()
    assert not_ready(declarations.releases[DB], declarations, {}) == ()
