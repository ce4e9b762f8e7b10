import io
import tarfile
from pathlib import Path

import pytest
import yaml

from devcluster.charts import Package, package
from devcluster.errors import DevclusterError


def _contents(packed: Package) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed.data)) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}


def test_the_same_chart_has_the_same_digest_whenever_it_is_packaged(charts: Path) -> None:
    assert package(charts / "web").digest == package(charts / "web").digest
    # A gzip header and a tar header hold the time, which two calls in one second have in common.
    data = package(charts / "web").data
    assert data[4:8] == bytes(4)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {entry.mtime for entry in archive} == {0}
    assert package(charts / "web").digest != package(charts / "web", version="1.0.1").digest


def test_a_package_is_called_by_the_version_that_it_was_given(charts: Path) -> None:
    packed = package(charts / "config", version="2.0.0-rc.1+build.5", app_version="9")
    assert packed.filename == "config-2.0.0-rc.1+build.5.tgz"
    inside = yaml.safe_load(_contents(packed)["config/Chart.yaml"])
    assert (inside["version"], inside["appVersion"]) == ("2.0.0-rc.1+build.5", "9")


def test_other_default_values_replace_the_charts_own(charts: Path) -> None:
    packed = package(charts / "config", values={"data": {"a": "b"}})
    assert yaml.safe_load(_contents(packed)["config/values.yaml"]) == {"data": {"a": "b"}}


def test_a_dependency_that_lies_beside_the_chart_is_put_inside(charts: Path) -> None:
    assert "with-dependency/charts/config-1.0.0.tgz" in _contents(
        package(charts / "with-dependency")
    )


def test_a_dependency_from_elsewhere_is_refused_by_name(tmp_path: Path) -> None:
    needs = {"name": "far", "version": "1", "repository": "https://charts.example.test"}
    fields = {"name": "near", "version": "1.0.0", "dependencies": [needs]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(fields))
    with pytest.raises(DevclusterError, match="dependency far is not beside it"):
        package(tmp_path)


def test_every_chart_of_ours_says_why_it_is_there(charts: Path) -> None:
    folders = [path.parent for path in charts.glob("*/Chart.yaml")]
    assert len(folders) == 12
    for folder in folders:
        assert (folder / "Chart.yaml").read_text().startswith("# "), folder.name
        assert not (folder / "charts").exists(), f"{folder.name} has built dependencies"
