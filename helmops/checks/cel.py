"""The CEL check: an expression over one live object, `object` in the expression."""

from __future__ import annotations

from helmops.checks.runner import Outcome
from helmops.checks.surroundings import Cluster
from helmops.errors import ExpressionError, ObjectNotFound
from helmops.model.declarations import CelCheck
from helmops.model.expression import compile_expression
from helmops.model.health import ObjectRef
from helmops.model.releases import ReleaseId


class CelProbe:
    """One CEL check of one release. Raises ExpressionError for what does not compile."""

    def __init__(self, cluster: Cluster, check: CelCheck, release: ReleaseId) -> None:
        self._cluster = cluster
        self._expression = compile_expression(check.expr, {"object": "dyn"})
        named = check.object
        namespace = named.namespace or release.namespace
        self._ref = ObjectRef(named.api_version, named.kind, named.name, namespace)

    async def __call__(self) -> Outcome:
        """Look once. Raises ClusterError where the object cannot be read.

        An object that is not there, or has not the fields yet that the expression asks for, is a
        failure like any other: it may be there at the next try.
        """
        ref = self._ref
        try:
            live = await self._cluster.get(ref.api_version, ref.kind, ref.name, ref.namespace)
        except ObjectNotFound as error:
            return Outcome(False, error.what)
        if live is None:
            return Outcome(False, f"{ref} does not exist")
        try:
            is_healthy = self._expression.evaluate_bool(object=live)
        except ExpressionError as error:
            return Outcome(False, f"{ref}: {error.what}")
        shown = f"{ref}: `{' '.join(self._expression.text.split())}`"
        return Outcome(is_healthy, f"{shown} is {'true' if is_healthy else 'false'}")
