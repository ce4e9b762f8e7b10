"""A chart repository over HTTP: an index.yaml and the packages that it lists."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from devcluster.charts import Package, package
from devcluster.closing import Closing
from devcluster.loopback import Answer, LoopbackServer, Request

# Charts are as old as they are, whenever a test runs.
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


class ChartRepository(Closing):
    """A repository of charts packaged from the folders in `charts`, with the server's faults.

    A `live` one publishes all charts by itself, and again whenever somebody asks for the index:
    edit a chart, give it a new version, and it is there. Further options are LoopbackServer's:
    user, password, token, tls, client_ca, etags, compress.
    """

    def __init__(
        self,
        charts: Path,
        *,
        prefix: str = "",
        as_json: bool = False,
        live: bool = False,
        **server: Any,
    ) -> None:
        self._live = live
        self._charts = charts
        self._prefix = prefix
        self._as_json = as_json
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        self._packages: dict[str, bytes] = {}
        self.server = LoopbackServer(self._respond, **server)

    @property
    def url(self) -> str:
        """What a HelmRepository's spec.url has to be."""
        return f"{self.server.url}{self._prefix}"

    def publish(
        self,
        chart: str,
        version: str = "1.0.0",
        *,
        created: datetime | None = None,
        absolute_url: bool = False,
        **changes: Any,
    ) -> Package:
        """Package the folder `chart` as `version` and list it; one that is there is replaced.

        `changes` are those of `charts.package`: app_version, values, metadata. Without `created`,
        each further version is a day younger than the one before.
        """
        packed = package(self._charts / chart, version=version, **changes)
        when = created or _FIRST + timedelta(days=len(self._entries))
        location = f"charts/{packed.filename}"
        self._packages[f"/{location}"] = packed.data
        self._entries[packed.name, packed.version] = {
            **packed.metadata,
            "created": when.isoformat().replace("+00:00", "Z"),
            "digest": packed.digest,
            "urls": [f"{self.url}/{location}" if absolute_url else location],
        }
        return packed

    def publish_all(self) -> None:
        """Publish every chart as the version that its Chart.yaml names; what is listed stays."""
        for folder in sorted(self._charts.iterdir()):
            if (folder / "Chart.yaml").exists():
                packed = package(folder)
                listed = self._entries.get((packed.name, packed.version), {})
                if listed.get("digest") != packed.digest:
                    self.publish(folder.name, packed.version)

    def withdraw(self, chart: str, version: str) -> None:
        """Take a version from the index and its package away, as a repository that prunes does."""
        entry = self._entries.pop((chart, version))
        del self._packages["/" + entry["urls"][0].removeprefix(f"{self.url}/")]

    def list_wrong_digest(self, chart: str, version: str) -> None:
        """Let the index name a digest that the package has not."""
        self._entries[chart, version]["digest"] = "0" * 64

    def list_entry(self, chart: str, version: str, **fields: Any) -> None:
        """Change or add fields of an entry, sensible or not, whether or not there is a package."""
        entry = self._entries.setdefault((chart, version), {"name": chart, "version": version})
        entry.update(fields)

    def index(self) -> dict[str, Any]:
        """The fields of index.yaml; of each chart the version published last comes first."""
        entries: dict[str, list[Mapping[str, Any]]] = {}
        for (chart, _), entry in reversed(self._entries.items()):
            entries.setdefault(chart, []).append(entry)
        return {"apiVersion": "v1", "generated": "2026-01-01T00:00:00Z", "entries": entries}

    def close(self) -> None:
        self.server.close()

    def _respond(self, request: Request) -> Answer:
        path = request.path.removeprefix(self._prefix)
        if path == "/index.yaml":
            if self._live:
                self.publish_all()
            index = self.index()
            text = json.dumps(index) if self._as_json else yaml.safe_dump(index, sort_keys=False)
            return Answer(200, text.encode(), {"Content-Type": "text/yaml"})
        if path in self._packages:
            return Answer(200, self._packages[path], {"Content-Type": "application/gzip"})
        return Answer(404, b"no such chart\n", {"Content-Type": "text/plain"})
