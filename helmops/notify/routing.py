"""Which Alerts want to know of an event. Decides only; sends nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from helmops.errors import ExpressionError
from helmops.model.declarations.notification import Alert, EventSource
from helmops.model.events import Event, Severity
from helmops.model.expression import compile_expression

log = logging.getLogger(__name__)

#: CEL's `matches` is RE2, the language of Flux's patterns, and never backtracks.
_MATCHES = "message.matches(pattern)"
_TYPES = {"message": "string", "pattern": "string"}


def wanted_by(alert: Alert, event: Event, labels: Mapping[str, str]) -> bool:
    """Whether the Alert asks for this event of a HelmRelease with these labels.

    As Flux has it: `eventSeverity: info` takes everything; one inclusion must match the message
    where there are any, and no exclusion may; a pattern that is none matches nothing.
    """
    spec = alert.spec
    if spec.suspend:
        return False
    if spec.event_severity == "error" and event.severity is not Severity.ERROR:
        return False
    if not any(_is_about(source, alert, event, labels) for source in spec.event_sources):
        return False
    if spec.inclusion_list and not _any_matches(spec.inclusion_list, event.message, alert):
        return False
    return not _any_matches(spec.exclusion_list, event.message, alert)


def _is_about(source: EventSource, alert: Alert, event: Event, labels: Mapping[str, str]) -> bool:
    if source.kind != "HelmRelease":
        return False
    if (source.namespace or alert.metadata.namespace) != event.key.namespace:
        return False
    if source.name != "*":
        return source.name == event.key.name
    return source.match_labels.items() <= labels.items()


def _any_matches(patterns: Iterable[str], message: str, alert: Alert) -> bool:
    matches = compile_expression(_MATCHES, _TYPES)
    for pattern in patterns:
        try:
            if matches.evaluate_bool(message=message, pattern=pattern):
                return True
        except ExpressionError as error:
            log.error(
                "a pattern of an Alert cannot be used: %s",
                error,
                extra={"action": "notify", "alert": str(alert.key)},
            )
    return False
