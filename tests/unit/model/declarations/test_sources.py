from datetime import timedelta

import pytest
from pydantic import ValidationError

from tests.unit.model.manifests import git_repository, helm_repository


def test_a_helm_repository_has_fluxs_defaults() -> None:
    spec = helm_repository().spec
    assert (spec.interval, spec.timeout) == (timedelta(minutes=1), timedelta(minutes=1))
    assert (spec.provider, spec.pass_credentials, spec.suspend) == ("generic", False, False)


def test_a_git_repository_has_fluxs_defaults() -> None:
    spec = git_repository().spec
    assert spec.timeout == timedelta(minutes=1)
    assert (spec.ref.branch, spec.ref.commit) == ("", "")


def test_a_git_repository_may_be_a_file() -> None:
    assert git_repository(url="file:///srv/git/apps.git").spec.url.startswith("file://")


@pytest.mark.parametrize("url", ["git@example.com:apps.git", "/srv/git", "ext::sh -c x", "-u x"])
def test_other_addresses_of_git_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        git_repository(url=url)


def test_a_timeout_of_a_source_may_be_in_hours_and_is_written_in_minutes() -> None:
    manifest = helm_repository(timeout="1h", interval="1h").manifest()
    assert manifest["spec"] == {
        "url": "https://charts.example.com",
        "timeout": "60m0s",
        "interval": "1h0m0s",
    }
