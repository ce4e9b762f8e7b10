"""Which version of a chart a declaration means: Helm's choice, then what policy lets through.

The rules, in their order (`IndexFile.Get` of Helm 4.3.1, source-controller 1.9):
1. An absent version is `*`.
2. An entry whose version is the very text asked for is taken.
3. Else the newest that the range matches. Of versions that differ in build metadata only, the one
   created last; what an index says nothing of is older than all it dates.
4. Entries that are no version are passed over, and counted here.

Then `upgrade.allow` keeps back what is too far above the version that is deployed, and quarantine
what failed before, as long as there is another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import takewhile
from typing import NamedTuple

from helmops.errors import ChartNotFound, NoVersionInRange, VersionError
from helmops.model.charts import ChartVersion
from helmops.resolve.constraint import Constraint
from helmops.resolve.version import SortKey, Version

#: What an absent version means.
ANY = "*"


class UpgradeAllow(StrEnum):
    """How far an upgrade may go from what is deployed, by the part of the version that changes."""

    PATCH = "patch"
    MINOR = "minor"
    MAJOR = "major"

    def permits(self, deployed: Version, version: Version) -> bool:
        """Whether going to `version` is no further than allowed. Going down always is."""
        if version <= deployed:
            return True
        locked = {UpgradeAllow.PATCH: 2, UpgradeAllow.MINOR: 1, UpgradeAllow.MAJOR: 0}[self]
        return version.key[:locked] == deployed.key[:locked]


class HeldBack(NamedTuple):
    """A version that would have been chosen, and the rule that kept it back."""

    version: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and why.

    `candidates` are all that the version asked for lets in, newest first, whether held back or
    not. `unreadable` counts entries of the index that are no version. Whether a downgrade may
    happen is decided elsewhere. `barred` is why the selected one is barred itself, there being no
    other; else empty.
    """

    selected: ChartVersion
    reason: str
    held_back: tuple[HeldBack, ...] = ()
    candidates: tuple[ChartVersion, ...] = ()
    is_downgrade: bool = False
    unreadable: int = 0
    barred: str = ""

    @property
    def is_deprecated(self) -> bool:
        """Whether the chart version chosen is marked as deprecated."""
        return self.selected.deprecated


class _Entry(NamedTuple):
    version: Version
    chart: ChartVersion

    def order(self) -> tuple[SortKey, datetime]:
        return self.version.key, self.chart.created or datetime.min.replace(tzinfo=UTC)


def newest_first(versions: Sequence[ChartVersion]) -> tuple[ChartVersion, ...]:
    """The entries that have a version, newest first; ties by when they were created."""
    return tuple(entry.chart for entry in _sorted_entries(versions))


def choose(
    versions: Sequence[ChartVersion],
    wanted: str = "",
    *,
    deployed: str = "",
    allow: UpgradeAllow | str | None = None,
    bar: Callable[[ChartVersion], str] = lambda _: "",
    where: str = "",
) -> Choice:
    """Choose a version of a chart among all entries of its index.

    `wanted` is a version or a range, empty for any. `deployed` is the version that runs now, empty
    for none; `allow` (`patch`, `minor`, `major`, None for no limit) counts from it. `bar` says why
    a version is not to be chosen while there is another, empty for all that may be. `where` names
    the source in errors.

    Raises ChartNotFound when there is no entry, NoVersionInRange when none fits or all that fit
    are held back, ConstraintError for text that is neither a version nor a range, VersionError
    when `deployed` is no version.
    """
    if not versions:
        raise ChartNotFound("there is no version of the chart", where=where)
    constraint = Constraint.parse(wanted or ANY)
    current = Version.parse(deployed) if deployed else None
    entries = _sorted_entries(versions)
    fitting = _fitting(entries, wanted, constraint)
    if not fitting:
        raise _nothing_fits(versions[0].name, constraint, entries, len(versions), where)

    held_back: tuple[HeldBack, ...] = ()
    permitted = fitting
    if current is not None and allow is not None:
        limit = UpgradeAllow(allow)
        permitted = [e for e in fitting if limit.permits(current, e.version)]
        held_back = tuple(
            HeldBack(e.chart.version, f"upgrade.allow is {limit}, and {deployed} is deployed")
            for e in fitting
            if not limit.permits(current, e.version)
        )
    if not permitted:
        raise NoVersionInRange(
            f"every version of {versions[0].name} in {str(constraint)!r} is held back: "
            f"{held_back[0].version} held back: {held_back[0].why}",
            where=where,
            next_step="widen the policy's upgrade.allow, or ask for a version nearer to it",
        )
    free = next((e for e in permitted if not bar(e.chart)), None)
    chosen = free or permitted[0]
    if free is not None:
        newer = takewhile(lambda e: e is not free, permitted)
        held_back += tuple(HeldBack(e.chart.version, bar(e.chart)) for e in newer)
    return Choice(
        selected=chosen.chart,
        reason=_reason(chosen, wanted, held_back),
        held_back=held_back,
        candidates=tuple(entry.chart for entry in fitting),
        is_downgrade=current is not None and chosen.version < current,
        unreadable=len(versions) - len(entries),
        barred="" if free else bar(chosen.chart),
    )


def _sorted_entries(versions: Sequence[ChartVersion]) -> list[_Entry]:
    entries: list[_Entry] = []
    for chart in versions:
        try:
            entries.append(_Entry(Version.parse(chart.version), chart))
        except VersionError:
            continue
    entries.sort(key=_Entry.order, reverse=True)
    return entries


def _fitting(entries: list[_Entry], wanted: str, constraint: Constraint) -> list[_Entry]:
    exact = [entry for entry in entries if wanted and entry.chart.version == wanted]
    if exact:
        return exact[:1]
    return [entry for entry in entries if constraint.matches(entry.version)]


def _reason(chosen: _Entry, wanted: str, held_back: tuple[HeldBack, ...]) -> str:
    version = chosen.chart.version
    if version == wanted:
        reason = f"{version} is the version asked for"
    elif held_back:
        reason = f"{version} is the newest in {wanted or ANY!r} that policy lets through"
        reason += f"; {held_back[0].version} held back: {held_back[0].why}"
    elif wanted in ("", ANY):
        reason = f"{version} is the newest release"
    else:
        reason = f"{version} is the newest in {wanted!r}"
    if chosen.chart.deprecated:
        reason += "; the chart is deprecated"
    return reason


def _nothing_fits(
    chart: str, constraint: Constraint, entries: list[_Entry], total: int, where: str
) -> NoVersionInRange:
    if not entries:
        return NoVersionInRange(
            f"none of the {total} versions of {chart} can be read as a version", where=where
        )
    prereleases = [
        entry.chart.version
        for entry in entries
        if constraint.matches(entry.version, include_prereleases=True)
    ]
    what = f"no version of {chart} is in {str(constraint)!r}"
    if prereleases:
        return NoVersionInRange(
            f"{what}, only prereleases are: {', '.join(prereleases[:3])}",
            where=where,
            next_step="a range takes prereleases when it names one, as >=1.2.0-0 does",
        )
    shown = [entry for entry in entries if entry.version.prerelease is None] or entries
    lowest = constraint.lowest
    below = next((e.chart.version for e in shown if e.version < lowest), None)
    above = next((e.chart.version for e in reversed(shown) if e.version >= lowest), None)
    nearest = [
        f"the nearest {side} is {version}"
        for side, version in (("below", below), ("above", above))
        if version is not None
    ]
    return NoVersionInRange(f"{what}; {', '.join(nearest)}", where=where)
