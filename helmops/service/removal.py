"""Which releases have no declaration any more, surely. Computational only.

Never because something could not be read: a declaration counts as removed only where everything
that is declared was read to its end, and where nothing else may be its new name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from helmops.model.declarations import Defaults, HelmRelease, HelmReleaseSpec, with_defaults
from helmops.model.declared import DeclarationSet
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey


def is_removed(
    record: Record,
    declared: DeclarationSet,
    known: Mapping[DeclarationKey, Record],
    locations: Collection[str],
) -> bool:
    """Whether the declaration of a release is gone.

    `locations` are the places that were read; what came from elsewhere is not ours to judge.
    `known` has the records of all releases.
    """
    if not declared.complete or declared.knows(record.key) or not record.version:
        return False
    if record.location not in locations:
        return False
    if any(each.resource.release_id == record.release for each in declared.releases.values()):
        return False  # another declaration has the release now
    # One that cannot be used, and was not there before, may be the new name of this one.
    return not any(key not in known or not known[key].version for key in declared.untouched)


def last_spec(record: Record, defaults: Defaults) -> HelmReleaseSpec:
    """The spec that a removed release was declared with last: how to uninstall it."""
    with contextlib.suppress(ValueError):
        return with_defaults(HelmRelease.model_validate(record.manifest).spec, defaults)
    # A record that a later version wrote: nothing but the chart is required, and it is not used.
    reference = {"kind": "OCIRepository", "name": "unknown"}
    spec = HelmReleaseSpec.model_validate({"interval": "1h", "chartRef": reference})
    return with_defaults(spec, defaults)
