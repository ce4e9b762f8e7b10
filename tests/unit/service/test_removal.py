from __future__ import annotations

from dataclasses import replace

import pytest

from helmops.errors import DeclarationError
from helmops.model.declaration_set import DeclarationSet, read_declarations
from helmops.model.declarations import Defaults
from helmops.model.declared import SourceFile
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.service.removal import is_removed, last_spec

APP = DeclarationKey("apps", "app")
RECORD = Record(key=APP, release=ReleaseId("apps", "app"), version="1", location="/declarations")
HERE = ("/declarations",)


def declared(*names: str, release_name: str = "") -> DeclarationSet:
    text = "".join(
        "---\napiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\n"
        f"metadata: {{name: {name}, namespace: apps}}\n"
        f"spec: {{interval: 1h{release_name and f', releaseName: {release_name}'}, chart: "
        "{spec: {chart: a, sourceRef: {kind: HelmRepository, name: b}}}}\n"
        for name in names
    )
    return read_declarations([SourceFile("a.yaml", text)])


def test_what_nothing_declares_any_more_is_removed() -> None:
    assert is_removed(RECORD, declared("other"), {APP: RECORD}, HERE)


def test_what_is_declared_is_not() -> None:
    assert not is_removed(RECORD, declared("app"), {APP: RECORD}, HERE)


def test_nothing_is_removed_while_something_could_not_be_read() -> None:
    half = replace(declared("other"), complete=False)
    assert not is_removed(RECORD, half, {APP: RECORD}, HERE)


def test_a_declaration_from_elsewhere_is_not_ours_to_judge() -> None:
    assert not is_removed(RECORD, declared("other"), {APP: RECORD}, ("/elsewhere",))


def test_a_release_that_was_never_seen_leaves_nothing_to_remove() -> None:
    assert not is_removed(RECORD.evolve(version=""), declared("other"), {APP: RECORD}, HERE)


def test_another_declaration_may_have_the_release_now() -> None:
    assert not is_removed(RECORD, declared("new", release_name="app"), {APP: RECORD}, HERE)


@pytest.mark.parametrize(("version", "expected"), [("", False), ("7", True)])
def test_a_new_declaration_that_cannot_be_used_may_be_the_new_name(
    version: str, expected: bool
) -> None:
    other = DeclarationKey("apps", "other")
    error = DeclarationError("wrong", where="a.yaml:1", next_step="mend it")
    refused = replace(declared("third"), untouched={other: error})
    known = {APP: RECORD, other: RECORD.evolve(key=other, version=version)}
    assert is_removed(RECORD, refused, known, HERE) is expected


def test_the_last_spec_says_how_to_uninstall() -> None:
    manifest = declared("app").releases[APP].manifest
    manifest = {**manifest, "spec": {**manifest["spec"], "uninstall": {"keepHistory": True}}}
    assert last_spec(RECORD.evolve(manifest=manifest), Defaults.SAFE).uninstall.keep_history


def test_a_manifest_of_another_version_of_helmops_is_uninstalled_by_default() -> None:
    spec = last_spec(RECORD.evolve(manifest={"spec": {"of": "tomorrow"}}), Defaults.SAFE)
    assert not spec.uninstall.keep_history
