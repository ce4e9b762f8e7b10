"""What somebody changed by hand, read from Helm's storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from helmops.errors import ObjectNotFound, UsageError

if TYPE_CHECKING:
    from helmops.model.releases import DeclarationKey
    from helmops.service.settings import Settings


async def absorbing_values(settings: Settings, key: DeclarationKey) -> str:
    """YAML to be merged into a declaration's `spec.values`, with what is not about values in
    comments above it. Holds what was changed by hand, secret or not.

    Raises ObjectNotFound for a release that is not known, UsageError where the newest revision is
    helmops' own, ClusterError, HelmError.
    """
    from helmops.cluster.api import Api
    from helmops.cluster.records import SecretRecords
    from helmops.helm.storage import HelmStorage
    from helmops.resolve.values_patch import values_patch

    async with await Api.connect(
        kubeconfig=settings.kubeconfig or None, context=settings.context or None, light=True
    ) as api:
        found = await SecretRecords(api, namespaces=settings.watch_namespaces).load_all()
        record = next((r for r in found if r.key == key), None)
        if record is None or record.head is None:
            raise ObjectNotFound(
                f"there is no release {key}", next_step="helmops get releases -A lists all"
            )
        storage = HelmStorage(api)
        stored = (await storage.read(record.release)).revisions
        head, known = stored[-1] if stored else None, record.head
        if head is None or known.is_of(head):
            raise UsageError(
                f"the newest revision of {key} was made by helmops: there is nothing to absorb"
            )
        ours = next((r for r in stored if known.is_of(r)), None)
        before = await storage.values(record.release, ours.number) if ours else {}
        after = await storage.values(record.release, head.number)
    patch = values_patch(before, after)
    said = [
        f"# revision {head.number} ({head.chart_name}@{head.chart_version}) against revision"
        f" {known.revision} ({known.versioned_chart})"
    ]
    if ours is None:
        said.append(f"# revision {known.revision} is not stored any more: these are all values")
    if (head.chart_name, head.chart_version) != (known.chart_name, known.chart_version):
        said.append(f"# chart.spec: chart {head.chart_name}, version {head.chart_version}")
    said += [f"# to be removed: {'.'.join(path)}" for path in patch.removed]
    if not patch.merged:
        said.append("# nothing is to be added to the values")
        return "\n".join(said) + "\n"
    text = yaml.safe_dump(dict(patch.merged), sort_keys=False, allow_unicode=True)
    return "\n".join(said) + "\n" + str(text)
