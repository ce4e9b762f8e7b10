"""A notification with its secrets in a real cluster, verified by somebody else's HMAC."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

from helmops.cluster.api import Api
from helmops.cluster.references import ClusterReferences
from helmops.http import Http
from helmops.model.records import Record
from helmops.model.releases import DeclarationKey, ReleaseId
from helmops.notify.webhooks import WebhookNotifier
from tests.fakes.alerts import alert, event, provider
from tests.fakes.web_server import Answer, web_server


async def test_a_signed_event_arrives_with_what_the_clusters_secret_says(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    token = "s3cret-of-the-hook"
    record = Record(DeclarationKey("apps", "web"), ReleaseId("apps", "web"))
    hook = provider(type="generic-hmac", secretRef={"name": "hook"})
    place = hook.metadata.model_copy(update={"namespace": namespace})
    with web_server() as server:
        server.routes["/hook"] = Answer(202)
        async with await Api.connect(kubeconfig=str(kubeconfig)) as api, Http() as http:
            data = {"address": f"{server.url}/hook", "token": token}
            await api.create(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "hook", "namespace": namespace},
                    "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
                }
            )
            notifier = WebhookNotifier(
                http,
                alerts=lambda: [alert()],
                provider=lambda key: hook.model_copy(update={"metadata": place}),
                read_secret=ClusterReferences(api).secret,
            )
            await notifier.send(event("Helm upgrade failed"), record)
            await notifier.drain(20)
    (asked,) = server.asked
    (tmp_path / "body").write_bytes(asked.body)
    told = subprocess.run(  # noqa: ASYNC221
        ["openssl", "dgst", "-sha256", "-hmac", token, tmp_path / "body"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert asked.headers["x-signature"] == f"sha256={told.stdout.split()[-1]}"
    assert token.encode() not in asked.body
