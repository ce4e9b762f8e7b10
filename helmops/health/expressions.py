"""`healthCheckExprs`: a declaration's own rules for objects of some kinds, in CEL.

As Flux's RFC 9 has them: observed generation first, then `inProgress`, `failed`, `current`, and an
object of which none is true is in progress. They stand in place of the built-in rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from helmops.errors import ExpressionError
from helmops.health.fields import Object, current, failed, group_of, in_progress, text
from helmops.health.generic import generation_behind
from helmops.model.declarations import HealthCheckExpr
from helmops.model.expression import Expression, compile_expression
from helmops.model.health import Health, HealthStatus


@dataclass(frozen=True, slots=True)
class _Rule:
    in_progress: Expression | None
    failed: Expression | None
    current: Expression

    def assess(self, object_: Object) -> Health:
        if text(object_, "metadata", "deletionTimestamp"):
            return Health(HealthStatus.TERMINATING, "is being deleted")
        if behind := generation_behind(object_):
            return behind
        try:
            if self.in_progress and self.in_progress.evaluate_bool(**object_):
                return in_progress(f"inProgress: {self.in_progress.text}")
            if self.failed and self.failed.evaluate_bool(**object_):
                return failed(f"failed: {self.failed.text}")
            if self.current.evaluate_bool(**object_):
                return current(f"current: {self.current.text}")
        except ExpressionError as error:
            # Before a controller has written its status, most expressions have no value. So this
            # is waited out; when it stays, the timeout tells it.
            return in_progress(error.what)
        return in_progress(f"not yet: {self.current.text}")


class CustomRules:
    """The rules of one declaration. A group is matched whatever the version; an empty `kind` stands
    for the whole group, and a rule for the very kind goes before it. Raises ExpressionError for an
    expression that does not compile, or for two rules for the same kind.
    """

    def __init__(self, expressions: Iterable[HealthCheckExpr]) -> None:
        self._rules: dict[tuple[str, str], _Rule] = {}
        for declared in expressions:
            key = (group_of(declared.api_version), declared.kind)
            if key in self._rules:
                raise ExpressionError(
                    f"two healthCheckExprs are for {declared.kind or 'all kinds'} of {key[0]!r}",
                    next_step="remove one of them",
                    field="spec.healthCheckExprs",
                )
            self._rules[key] = _Rule(
                in_progress=_optional(declared.in_progress),
                failed=_optional(declared.failed),
                current=compile_expression(declared.current),
            )

    def cover(self, object_: Object) -> bool:
        """Whether there is a rule for this object."""
        return self._rule_for(object_) is not None

    def assess(self, object_: Object) -> Health | None:
        """The health by these rules; None where none of them is for this object."""
        rule = self._rule_for(object_)
        return rule.assess(object_) if rule else None

    def _rule_for(self, object_: Object) -> _Rule | None:
        group, kind = group_of(text(object_, "apiVersion")), text(object_, "kind")
        return self._rules.get((group, kind)) or self._rules.get((group, ""))


def _optional(expression: str) -> Expression | None:
    return compile_expression(expression) if expression else None
