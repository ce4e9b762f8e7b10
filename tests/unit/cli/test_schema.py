from __future__ import annotations

import json

import pytest

from helmops.cli.app import status_of
from helmops.model.declarations import json_schemas

Capture = pytest.CaptureFixture[str]


def test_all_schemas_by_kind(capsys: Capture) -> None:
    assert status_of(["schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(json_schemas())


@pytest.mark.parametrize("kind", ["HelmRelease", "helmrelease", "HELMRELEASE"])
def test_one_schema_however_its_kind_is_written(capsys: Capture, kind: str) -> None:
    assert status_of(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps(json_schemas()["HelmRelease"])
    )


def test_a_kind_that_is_not_read_is_a_mistake_of_usage(capsys: Capture) -> None:
    assert status_of(["schema", "Deployment"]) == 2
    told = capsys.readouterr().err
    assert "there is no kind Deployment" in told
    assert "HelmRelease" in told
