"""What KWOK plays: nodes that are ready at once, and pods that do what behaviour.jq says of them.

The annotation `helmops.dev/simulate-delay` ("2s") holds a pod back before each step.
"""

import json
from dataclasses import dataclass
from typing import Any

from devcluster.paths import PACKAGE

_NOW = '"{{ Now }}"'
_UNREADY = '"containers with unready status: [{{ range .spec.containers }}{{ .name }} {{ end }}]"'


@dataclass(frozen=True)
class Step:
    """One word of behaviour.jq, and what a pod's status is after it."""

    word: str
    phase: str
    state: str
    """YAML of every container's state."""
    ready: bool = False
    reason: str = "ContainersNotReady"
    """Why the pod is not ready, where it is not."""
    restarts: int = 0
    last_state: str = "{}"
    event: tuple[str, str] | None = None
    """Reason and message of a warning."""
    tells: tuple[str, str] | None = None
    """Reason and message of an event that is no warning."""
    delay: int = 0
    """Milliseconds before the step, where the pod does not say."""


_RUNNING = f"{{running: {{startedAt: {_NOW}}}}}"
_ERROR = f"{{exitCode: 1, reason: Error, startedAt: {_NOW}, finishedAt: {_NOW}}}"
_DONE = f"{{exitCode: 0, reason: Completed, startedAt: {_NOW}, finishedAt: {_NOW}}}"


def _crash(word: str, delay: int) -> Step:
    message = "back-off 2m40s restarting failed container"
    return Step(
        word=word,
        phase="Running",
        state=f"{{waiting: {{reason: CrashLoopBackOff, message: {message}}}}}",
        last_state=f"{{terminated: {_ERROR}}}",
        restarts=5,
        event=("BackOff", "Back-off restarting failed container"),
        delay=delay,
    )


STEPS = (
    Step("run", "Running", _RUNNING, ready=True),
    Step(
        "never-ready",
        "Running",
        _RUNNING,
        event=("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"),
    ),
    _crash("crash", 0),
    _crash("crash-later", 2000),
    Step(
        "image-pull",
        "Pending",
        '{waiting: {reason: ImagePullBackOff, message: "Back-off pulling image {{ .image }}"}}',
        event=("Failed", "Error: ImagePullBackOff"),
    ),
    Step(
        "missing-image",
        "Pending",
        "{waiting: {reason: ErrImagePull, message: 'failed to pull and unpack image "
        '"{{ .image }}": failed to resolve reference "{{ .image }}": {{ .image }}: not found\'}}',
        event=("Failed", "Error: ErrImagePull"),
    ),
    Step(
        "slow-pull",
        "Pending",
        "{waiting: {reason: ContainerCreating}}",
        tells=("Pulling", "Pulling image"),
    ),
    Step("complete", "Succeeded", f"{{terminated: {_DONE}}}", reason="PodCompleted"),
    Step("fail", "Failed", f"{{terminated: {_ERROR}}}", reason="PodFailed"),
)


def config() -> str:
    """The whole KWOK configuration: one JSON document a stage, which is YAML too."""
    next_word = (PACKAGE / "behaviour.jq").read_text()
    stages = [_pod_stage(step, next_word) for step in STEPS]
    stages.append(_stage("Pod", "delete", next_word, "In", "delete", {"next": {"delete": True}}))
    node_ready = '.status.conditions.[] | select(.type == "Ready") | .status'
    node_status = {"next": {"statusTemplate": _NODE_STATUS}}
    stages.append(_stage("Node", "ready", node_ready, "NotIn", "True", node_status))
    return "\n---\n".join(json.dumps(stage) for stage in stages) + "\n"


def _stage(
    kind: str, name: str, key: str, operator: str, value: str, effect: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": f"{kind.lower()}-{name}"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {
                "matchExpressions": [{"key": key, "operator": operator, "values": [value]}]
            },
            **effect,
        },
    }


def _pod_stage(step: Step, next_word: str) -> dict[str, Any]:
    effect: dict[str, Any] = {"next": {"statusTemplate": _pod_status(step)}}
    if step.event:
        reason, message = step.event
        effect["next"]["event"] = {"type": "Warning", "reason": reason, "message": message}
    if step.tells:
        reason, message = step.tells
        effect["next"]["event"] = {"type": "Normal", "reason": reason, "message": message}
    effect["delay"] = {
        "durationMilliseconds": step.delay,
        "durationFrom": {"expressionFrom": '.metadata.annotations["helmops.dev/simulate-delay"]'},
    }
    return _stage("Pod", step.word, next_word, "In", step.word, effect)


def _pod_status(step: Step) -> str:
    ready = str(step.ready)
    why = 'reason: "", message: ""' if step.ready else f"reason: {step.reason}, message: {_UNREADY}"
    return f"""\
phase: {step.phase}
startTime: {{{{ or .status.startTime Now | Quote }}}}
conditions:
- {{type: Initialized, status: "True", lastTransitionTime: {_NOW}}}
- {{type: Ready, status: "{ready}", {why}, lastTransitionTime: {_NOW}}}
- {{type: ContainersReady, status: "{ready}", {why}, lastTransitionTime: {_NOW}}}
{{{{ range .spec.readinessGates }}}}
- {{type: {{{{ .conditionType | Quote }}}}, status: "True", lastTransitionTime: {_NOW}}}
{{{{ end }}}}
containerStatuses:
{{{{ range .spec.containers }}}}
- image: {{{{ .image | Quote }}}}
  imageID: ""
  name: {{{{ .name | Quote }}}}
  ready: {ready.lower()}
  started: {str("running" in step.state).lower()}
  restartCount: {step.restarts}
  state: {step.state}
  lastState: {step.last_state}
{{{{ end }}}}
initContainerStatuses:
{{{{ range .spec.initContainers }}}}
- image: {{{{ .image | Quote }}}}
  imageID: ""
  name: {{{{ .name | Quote }}}}
  ready: true
  restartCount: 0
  {{{{ if eq (or .restartPolicy "") "Always" }}}}
  started: true
  state: {_RUNNING}
  {{{{ else }}}}
  state: {{terminated: {_DONE}}}
  {{{{ end }}}}
{{{{ end }}}}
{{{{ if not .status.podIP }}}}
{{{{ with NodeIPsWith .spec.nodeName }}}}
hostIP: {{{{ index . 0 | Quote }}}}
{{{{ end }}}}
{{{{ with PodIPsWith .spec.nodeName (or .spec.hostNetwork false) (or .metadata.uid "")
  (or .metadata.name "") (or .metadata.namespace "") }}}}
podIP: {{{{ index . 0 | Quote }}}}
podIPs: [{{ip: {{{{ index . 0 | Quote }}}}}}]
{{{{ end }}}}
{{{{ end }}}}
"""


_NODE_STATUS = f"""\
phase: Running
conditions:
{{{{ range NodeConditions }}}}
- type: {{{{ .type | Quote }}}}
  status: {{{{ .status | Quote }}}}
  reason: {{{{ .reason | Quote }}}}
  message: {{{{ .message | Quote }}}}
  lastHeartbeatTime: {_NOW}
  lastTransitionTime: {_NOW}
{{{{ end }}}}
daemonEndpoints: {{kubeletEndpoint: {{Port: {{{{ NodePort }}}}}}}}
addresses:
- {{type: InternalIP, address: {{{{ NodeIP | Quote }}}}}}
- {{type: Hostname, address: {{{{ NodeName | Quote }}}}}}
allocatable: {{cpu: 1k, memory: 1Ti, pods: 1M}}
capacity: {{cpu: 1k, memory: 1Ti, pods: 1M}}
nodeInfo:
  architecture: amd64
  bootID: ""
  containerRuntimeVersion: kwok
  kernelVersion: kwok
  kubeProxyVersion: kwok
  kubeletVersion: kwok
  machineID: ""
  operatingSystem: linux
  osImage: ""
  systemUUID: ""
"""
