"""A real Prometheus on loopback: found on PATH, or unpacked from Debian's package.

The package is only unpacked into the cache, not installed: nothing is started, no root is needed.
"""

import base64
import json
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devcluster import debian, processes
from devcluster.certificates import KeyPair
from devcluster.closing import Closing
from devcluster.errors import StartFailed
from devcluster.loopback import Answer, LoopbackServer, Request

Say = Callable[[str], None]

_START_SECONDS = 30
#: What bcrypt makes of PASSWORD: Prometheus keeps no passwords, and Python has no bcrypt.
USER, PASSWORD = "grafana", "correct horse"
_HASH = "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"


def find(say: Say) -> Path:
    """The program. Raises ToolMissing where it can neither be found nor fetched."""
    return debian.find("prometheus", "prometheus", say)


class Prometheus(Closing):
    """A Prometheus of one's own, which reads `samples` several times a second.

    With `tls` it speaks HTTPS, with `login` it asks for USER and PASSWORD.
    """

    def __init__(
        self, program: Path, folder: Path, *, tls: KeyPair | None = None, login: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._samples: dict[str, float] = {}
        self._target = LoopbackServer(self._exposed)
        self.port = _free_port()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._log = folder / "prometheus.log"
        (folder / "prometheus.yml").write_text(json.dumps(self._configuration()))
        (folder / "web.yml").write_text(json.dumps(_web(tls, login=login)))
        self._process = processes.start(
            [
                str(program),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--web.config.file={folder / 'web.yml'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=1h",
                "--log.level=warn",
            ],
            log=self._log,
        )
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def set(self, series: str, value: float) -> None:
        """A sample from now on, as `errors_total{job="web"}`; returns when it can be asked for."""
        self._samples[series] = value
        self._wait(f"{series} is {value}", lambda: self._value(series) == value)

    def close(self) -> None:
        processes.stop([self._process], grace=5)
        self._target.close()

    def _exposed(self, request: Request) -> Answer:
        lines = "".join(f"{series} {value}\n" for series, value in self._samples.items())
        return Answer(body=lines.encode(), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _configuration(self) -> dict[str, Any]:
        """YAML by way of JSON."""
        job = {
            "job_name": "tests",
            "honor_labels": True,
            "static_configs": [{"targets": [f"127.0.0.1:{self._target.port}"]}],
        }
        return {"global": {"scrape_interval": "200ms"}, "scrape_configs": [job]}

    def _await(self) -> None:
        self._wait("it answers", lambda: self._ask("/-/ready") is not None)

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not done():
            if not self._process.alive() or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-2000:]
                raise StartFailed(f"waited in vain for prometheus until {what}:\n{log}")
            time.sleep(0.05)

    def _value(self, series: str) -> float | None:
        query = urllib.parse.urlencode({"query": series})
        answer = self._ask(f"/api/v1/query?{query}")
        found = json.loads(answer)["data"]["result"] if answer else []
        return float(found[0]["value"][1]) if found else None

    def _ask(self, path: str) -> bytes | None:
        """Only we ask it without looking at its certificate."""
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Basic {login}"}
        )
        trusting = ssl._create_unverified_context()  # noqa: S323
        try:
            with urllib.request.urlopen(request, timeout=5, context=trusting) as answer:
                return bytes(answer.read())
        except OSError:
            return None


def _web(tls: KeyPair | None, *, login: bool) -> Mapping[str, Any]:
    settings: dict[str, Any] = {}
    if tls:
        files = {"cert_file": str(tls.certificate), "key_file": str(tls.key)}
        settings["tls_server_config"] = files
    if login:
        settings["basic_auth_users"] = {USER: _HASH}
    return settings


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
