"""Secret values: where they are read is where they are hidden."""

from __future__ import annotations

from helmops.model.releases import DeclarationKey
from helmops.reconcile.secrets import DeclaredSecrets
from helmops.service.logs import Redactor
from tests.fakes.references import FakeReferences


async def test_texts_of_secrets_that_were_read_from_the_cluster_are_hidden_in_logs() -> None:
    redactor = Redactor()
    references = FakeReferences()
    references.put_secret("apps", "login", password="correct horse")
    secrets = DeclaredSecrets(references, hide=redactor.add)

    await secrets.secret(DeclarationKey("apps", "login"))

    assert redactor.text("helm said: correct horse") == "helm said: [hidden]"
