import re
from collections import Counter

import yaml

from devcluster import stages
from devcluster.paths import PACKAGE


def _stages() -> list[dict]:
    return list(yaml.safe_load_all(stages.config()))


def test_every_stage_has_a_name_of_its_own() -> None:
    names = Counter(stage["metadata"]["name"] for stage in _stages())
    assert set(names.values()) == {1}
    assert "node-ready" in names


def test_every_word_that_a_pod_can_do_next_has_a_stage() -> None:
    behaviour = (PACKAGE / "behaviour.jq").read_text()
    comment = next(line for line in behaviour.splitlines() if "run, hang" in line)
    asked = set(re.findall(r"[a-z-]+", comment.strip("# "))) - {"hang"}
    words = {
        stage["spec"]["selector"]["matchExpressions"][0]["values"][0]
        for stage in _stages()
        if stage["spec"]["resourceRef"]["kind"] == "Pod"
    }
    assert words == asked | {"delete"}


def test_a_pod_that_is_to_be_held_back_names_for_how_long() -> None:
    for stage in _stages():
        if stage["metadata"]["name"].startswith("pod-") and "delay" in stage["spec"]:
            source = stage["spec"]["delay"]["durationFrom"]["expressionFrom"]
            assert "helmops.dev/simulate-delay" in source
