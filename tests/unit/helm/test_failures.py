"""Helm's texts, as recorded from both helms, become our errors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from helmops import errors
from helmops.errors import HelmCancelled, HelmError, OwnershipConflict
from helmops.helm.failures import LONGEST_SENTENCE, RULES, error_of, first_cause, one_sentence

#: What a person must not be shown: helm's wrapping, Go's types and pointers, log lines.
NOISE = re.compile(
    r"Error: |FAILED|level=|error occurred|goroutine|0x[0-9a-f]{6}|%!|\bKind=|\n|\* "
    r"|server-side apply failed|unable to build kubernetes"
)


@dataclass(frozen=True)
class Sample:
    name: str
    header: dict[str, str]
    stderr: str

    @property
    def error(self) -> HelmError:
        return error_of(
            self.header["command"].split()[1],
            self.stderr,
            exit_status=int(self.header["exit"]),
            where="apps/app",
        )


def _read(path: Path) -> Sample:
    head, _, stderr = path.read_text().partition("\n\n")
    lines = (line.removeprefix("# ") for line in head.splitlines())
    return Sample(path.stem, dict(line.split(": ", 1) for line in lines), stderr)


SAMPLES = [_read(path) for path in sorted((Path(__file__).parent / "samples").glob("*.txt"))]
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


@each_sample
def test_a_recorded_text_becomes_the_error_it_means(sample: Sample) -> None:
    assert type(sample.error).__name__ == sample.header["error"]


@each_sample
def test_a_person_reads_one_sentence_without_noise_and_a_next_step(sample: Sample) -> None:
    error = sample.error
    assert error.what
    assert not NOISE.search(error.what)
    assert len(error.what) <= LONGEST_SENTENCE
    assert error.next_step
    assert error.where == "apps/app"
    assert error.output == sample.stderr


def test_both_helms_are_recorded() -> None:
    helms = {sample.header["helm"][:2] for sample in SAMPLES}
    assert helms == {"v3", "v4"}
    assert len(SAMPLES) > 100


def test_every_error_of_the_table_is_recorded() -> None:
    recorded = {sample.header["error"] for sample in SAMPLES}
    assert {rule.error.__name__ for rule in RULES} <= recorded


def test_helm_3_and_4_agree_on_what_a_failure_is() -> None:
    by_scenario: dict[str, set[str]] = {}
    for sample in SAMPLES:
        scenario = sample.name.rpartition(".")[0]
        by_scenario.setdefault(scenario, set()).add(type(sample.error).__name__)
    assert {scenario for scenario, classes in by_scenario.items() if len(classes) > 1} == set()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wait-runs-out.helm4", "Deployment/apps/app was not ready in time: Available: 0/1"),
        (
            "wait-meets-a-failed-deployment.helm4",
            "Deployment/apps/app failed: Progress deadline exceeded",
        ),
        ("kind-unknown.helm3", "the cluster has no kind Widget in example.test/v1"),
        (
            "install-over-anothers-object.helm4",
            "ConfigMap/shared exists and belongs to the release first",
        ),
        (
            "values-against-schema.helm3",
            "values.schema.json of schema refuses the values: /replicas: got string, want "
            "integer; /tier: value must be one of 'small', 'large'",
        ),
        (
            "template-nil-pointer.helm4",
            "template-error/templates/configmap.yaml:6:69: nil pointer evaluating interface "
            "{}.team in `.Values.owner.team`",
        ),
        ("hook-failed.helm4", "a pre-install hook failed: Job/apps/app-pre-install (failed: 1/1)"),
        (
            "object-forbidden-to-write.helm4",
            "system:serviceaccount:apps:reader may not patch configmaps in the namespace apps",
        ),
        ("upgrade-field-conflict.helm4", "ConfigMap/apps/app: kubectl also manages .data.mode"),
    ],
)
def test_the_sentence_names_what_helm_named(name: str, sentence: str) -> None:
    found = next(sample for sample in SAMPLES if sample.name == name)
    assert found.error.what == sentence


def test_an_unknown_text_is_kept_as_helm_said_it() -> None:
    error = error_of("upgrade", "Error: UPGRADE FAILED: the moon is full\n", exit_status=1)
    assert type(error) is HelmError
    assert error.what == "the moon is full"


def test_a_signal_without_a_word_is_a_cancelled_helm() -> None:
    error = error_of("upgrade", "", exit_status=-9)
    assert type(error) is HelmCancelled
    assert "signal 9" in error.what


def test_a_helm_that_says_nothing_still_makes_a_sentence() -> None:
    assert error_of("test", "\n", exit_status=3).what == "helm ended with status 3 and said nothing"


def test_several_unready_objects_are_counted() -> None:
    line = "resource Deployment/apps/{} not ready. status: InProgress, message: Available: 0/1\n"
    text = "Error: UPGRADE FAILED: " + "".join(line.format(name) for name in "abc")
    error = error_of("upgrade", text + "context deadline exceeded", exit_status=1)
    assert error.what == (
        "Deployment/apps/a was not ready in time: Available: 0/1 (and 2 more objects)"
    )


@pytest.mark.parametrize(
    "cause",
    [
        "resource Job/a/j not ready. status: Unknown, message: \nresource Job/a/k not ready. "
        "status: Failed, message: Job Failed. failed: 1/1",
        "resource Job/a/j not ready. status: Unknown, message: \ncontext deadline exceeded",
    ],
    ids=["one of them failed", "its time was over"],
)
def test_an_unknown_state_is_a_lost_connection_only_where_nothing_else_explains_it(
    cause: str,
) -> None:
    error = error_of("upgrade", f"Error: UPGRADE FAILED: {cause}", exit_status=1)
    assert not isinstance(error, errors.HelmUnreachable)


def test_an_owner_in_another_namespace_is_named_with_it() -> None:
    text = (
        'Error: UPGRADE FAILED: unable to continue with update: ClusterRole "r" in namespace "" '
        "exists and cannot be imported into the current release: invalid ownership metadata; "
        'annotation validation error: key "meta.helm.sh/release-name" must equal "a": current '
        'value is "b"; annotation validation error: key "meta.helm.sh/release-namespace" must '
        'equal "x": current value is "y"'
    )
    error = error_of("upgrade", text, exit_status=1)
    assert isinstance(error, OwnershipConflict)
    assert error.what == "ClusterRole/r exists and belongs to the release y/b"


def test_log_lines_are_not_the_cause() -> None:
    text = 'level=WARN msg="upgrade failed" error="Error: no"\nError: UPGRADE FAILED: yes\n'
    assert first_cause(text) == "yes"


def test_a_long_cause_is_cut() -> None:
    assert len(one_sentence("x" * 10_000)) == LONGEST_SENTENCE


@pytest.mark.parametrize("filler", ["x", " ", "\n", "a.b:1:1 ", "resource ", "Error: ", "* "])
def test_a_megabyte_of_anything_is_read_in_no_time(filler: str) -> None:
    text = filler * (1_000_000 // len(filler))
    assert len(error_of("upgrade", text, exit_status=1).what) <= LONGEST_SENTENCE


def test_every_helm_error_but_ours_can_come_from_helm() -> None:
    ours = {"HelmTimeout", "HelmError", "PostRenderFailed"}
    subclasses = {cls.__name__ for cls in HelmError.__subclasses__()}
    assert subclasses - ours <= {rule.error.__name__ for rule in RULES}
    assert all(hasattr(errors, name) for name in subclasses)
