"""What must be true when a case is over, whatever was done to helmops in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.bench import Bench, ready, verdict
from tests.e2e.helmops_process import NeverCame, until


class Kind(StrEnum):
    """What can be wrong at the end."""

    STUCK = "stuck"
    WRONG_TARGET = "wrong target"
    LOST = "lost revision"
    TWICE = "done twice"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, for a person."""

    kind: Kind
    message: str


def judge(bench: Bench) -> list[Problem]:
    """Let the next pass finish, and look at what there is then. Empty: all is well."""
    next_pass = bench.helmops.reconcile(status=None)
    problems = []
    if next_pass.status != (0 if bench.expected.is_ready else 1):
        said = next_pass.text.strip()[-600:]
        problems.append(Problem(Kind.STUCK, f"the next pass ended with {next_pass.status}: {said}"))
    problems += _stuck(bench)
    problems += _targets(bench)
    problems += _lost(bench)
    problems += _twice(bench)
    return problems


def _stuck(bench: Bench) -> Iterator[Problem]:
    """No lock, no note of something under way, no program left behind."""
    for number, stored in bench.stored().items():
        if stored.status.startswith("pending") or stored.status == "uninstalling":
            yield Problem(Kind.STUCK, f"revision {number} is {stored.status}")
    record = bench.record()
    if record is not None and record["in_flight"] is not None:
        yield Problem(Kind.STUCK, f"the record says that {record['in_flight']} is under way")
    if record is not None and ready(record) is not bench.expected.is_ready:
        yield Problem(Kind.STUCK, f"Ready is {ready(record)}")
    try:
        until("no program is left", lambda: not bench.processes(), seconds=30)
    except NeverCame:
        yield Problem(Kind.STUCK, f"these still run: {bench.processes()}")


def _targets(bench: Bench) -> Iterator[Problem]:
    """What runs is what was declared and came up, or what had been seen healthy."""
    content, expected = bench.content(), bench.expected.content
    if content != expected:
        yield Problem(Kind.WRONG_TARGET, f"{content} runs, not {expected}")
    stored, record = bench.stored(), bench.record()
    if record is None or not stored:
        return
    good = {each.content for each in bench.healthy.values()}
    for each in record["history"]:
        revision = stored.get(each["revision"])
        if each["origin"] == "rollback" and revision is not None and revision.content not in good:
            yield Problem(
                Kind.WRONG_TARGET,
                f"revision {each['revision']} restores what was not seen healthy",
            )


def _lost(bench: Bench) -> Iterator[Problem]:
    """Every revision that was seen healthy is there as it was; storage and record agree."""
    stored, record = bench.stored(), bench.record()
    if bench.expected.revisions == {}:
        if record is not None:
            yield Problem(Kind.LOST, "the record outlives its release")
        return
    for number, healthy in bench.healthy.items():
        if number not in stored:
            yield Problem(Kind.LOST, f"revision {number}, seen healthy, is gone")
        elif stored[number].content != healthy.content:
            yield Problem(Kind.LOST, f"revision {number}, seen healthy, is another now")
    if not stored:
        yield Problem(Kind.LOST, "there is no revision at all")
        return
    if list(stored) != list(range(1, max(stored) + 1)):
        yield Problem(Kind.LOST, f"the revisions are {list(stored)}")
    deployed = [number for number, each in stored.items() if each.status == "deployed"]
    if deployed != [max(stored)] and bench.expected.content is not None:
        yield Problem(Kind.LOST, f"the revisions {deployed} are deployed, of {max(stored)}")
    if record is None:
        yield Problem(Kind.LOST, "there is no record")
        return
    known = {each["revision"]: each for each in record["history"]}
    if max(known, default=0) != max(stored):
        yield Problem(Kind.LOST, f"the record knows {sorted(known)} of {list(stored)}")
    elif bench.expected.content is not None and verdict(known[max(known)]) != "healthy":
        yield Problem(Kind.LOST, f"revision {max(known)} counts as {verdict(known[max(known)])}")
    for number, each in known.items():
        if number in stored and each["status"] != stored[number].status:
            said = f"{each['status']} in the record, {stored[number].status} in Helm's storage"
            yield Problem(Kind.LOST, f"revision {number} is {said}")


def _twice(bench: Bench) -> Iterator[Problem]:
    """As many revisions and calls of helm as it takes, and another pass changes nothing."""
    operation, expected = bench.phase.operation, bench.expected
    revisions = {number: each.status for number, each in bench.stored().items()}
    if expected.revisions is not None and revisions != expected.revisions:
        yield Problem(Kind.TWICE, f"the revisions are {revisions}, not {expected.revisions}")
    begun = bench.calls(operation)
    if expected.begins is not None and begun > expected.begins:
        yield Problem(Kind.TWICE, f"{operation} began {begun} times, not {expected.begins}")
    before = bench.helmops.everything()
    bench.helmops.reconcile(status=None)
    after = bench.helmops.everything()
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    # The lease is taken by whoever looks whether there is something to do.
    changed = {path for path in changed if "/leases/" not in path}
    if changed:
        yield Problem(Kind.TWICE, f"another pass changes {sorted(changed)}")
