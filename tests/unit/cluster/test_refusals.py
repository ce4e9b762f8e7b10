from __future__ import annotations

from typing import Any

import pytest

from helmops.cluster.refusals import Target, error_of, read_status
from helmops.cluster.resources import WELL_KNOWN
from helmops.errors import (
    AccessDenied,
    ClusterError,
    ClusterUnreachable,
    ObjectConflict,
    ObjectNotFound,
)

SECRET = Target.of("create", WELL_KNOWN["v1", "Secret"], "apps", "web")
SERVER = "https://cluster"


def status(message: str, **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "message": message, "details": details}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, ClusterError),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, ObjectNotFound),
        (409, ObjectConflict),
        (422, ClusterError),
        (429, ClusterUnreachable),
        (500, ClusterUnreachable),
        (504, ClusterUnreachable),
    ],
)
def test_each_status_is_one_error(code: int, kind: type[ClusterError]) -> None:
    assert type(error_of(code, status("no"), SECRET, SERVER)) is kind


def test_a_denial_names_who_what_where_and_the_rule_that_is_missing() -> None:
    said = (
        'secrets is forbidden: User "system:serviceaccount:helmops:helmops" cannot create '
        'resource "secrets" in API group "" in the namespace "apps"'
    )
    text = str(error_of(403, status(said), SECRET, SERVER))
    assert "system:serviceaccount:helmops:helmops may not create secrets in namespace apps" in text
    assert 'apiGroups [""], resources ["secrets"], verbs ["create"]' in text
    assert "add to a Role bound to system:serviceaccount:helmops:helmops" in text


def test_a_denial_of_something_cluster_wide_asks_for_a_cluster_role() -> None:
    target = Target.of("list", WELL_KNOWN["v1", "Secret"])
    text = str(error_of(403, {}, target, SERVER))
    assert "in the whole cluster" in text
    assert "ClusterRole" in text


def test_a_subresource_is_named_as_rules_name_it() -> None:
    target = Target.of("get", WELL_KNOWN["v1", "Pod"], "apps", "web", "log")
    assert 'resources ["pods/log"]' in str(error_of(403, {}, target, SERVER))


def test_what_an_admission_plugin_forbids_is_in_its_own_words() -> None:
    said = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'
    error = error_of(403, status(said), SECRET, SERVER)
    assert isinstance(error, AccessDenied)
    assert "violates PodSecurity" in str(error)
    assert "add to a Role" not in str(error)


def test_a_namespace_that_goes_away_is_no_question_of_access() -> None:
    causes = [{"reason": "NamespaceTerminating"}]
    error = error_of(403, status("unable to create", causes=causes), SECRET, SERVER)
    assert type(error) is ClusterError
    assert "apps is being deleted" in str(error)


def test_an_exceeded_quota_is_no_question_of_access() -> None:
    error = error_of(403, status('secrets "x" is forbidden: exceeded quota: q'), SECRET, SERVER)
    assert type(error) is ClusterError


def test_a_404_without_a_status_comes_from_somebody_else() -> None:
    error = error_of(404, {}, SECRET, SERVER)
    assert type(error) is ClusterUnreachable


@pytest.mark.parametrize("code", [400, 422])
def test_the_content_of_an_invalid_secret_is_not_repeated(code: int) -> None:
    causes = [{"field": "data[token]", "message": "s3cret"}]
    text = str(error_of(code, status("Invalid value: s3cret", causes=causes), SECRET, SERVER))
    assert "s3cret" not in text
    assert "data[token]" in text


def test_a_long_message_is_cut() -> None:
    assert len(str(error_of(409, status("x" * 10_000), SECRET, SERVER))) < 1000


def test_only_a_status_is_read_as_one() -> None:
    assert read_status(b'{"kind": "Status", "code": 403}')["code"] == 403
    assert read_status(b'{"kind": "Pod"}') == {}
    assert read_status(b"<html>") == {}
    assert read_status(b"[]") == {}
