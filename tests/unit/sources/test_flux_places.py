from __future__ import annotations

import pytest

from helmops.sources.flux_places import bare_url, shown_beside, shown_in_git


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/team/fleet",
        "https://user:token@GitHub.com/team/fleet.git",
        "ssh://git@github.com/team/fleet.git",
        "ssh://git@github.com:22/team/fleet",
        "git@github.com:team/fleet.git",
    ],
)
def test_urls_of_one_repository_are_the_same(url: str) -> None:
    assert bare_url(url) == "github.com/team/fleet"


def test_files_are_shown_beside_what_people_wrote() -> None:
    assert shown_beside("repo", "", "apps/web.yaml") == "repo/apps/web.yaml"
    assert shown_beside("prod", "clusters/prod", "clusters/prod/a.yaml") == "prod/a.yaml"
    assert shown_beside("r/clusters/prod", "clusters/prod", "apps/a.yaml") == "r/apps/a.yaml"
    assert shown_beside("one.yaml", "one.yaml", "one.yaml") == "one.yaml"


def test_files_in_git_are_shown_with_their_path() -> None:
    label = "git+https://h/r.git?path=clusters/prod"
    assert shown_in_git(label, "clusters/prod", "apps/a.yaml") == (
        "git+https://h/r.git?path=apps/a.yaml"
    )
    assert shown_in_git("git+https://h/r.git", "", "a.yaml") == "git+https://h/r.git/a.yaml"
