# What a pod of this cluster does next, as one word; each word but "settled" has a stage in stages.yaml.
#
# What it shall be comes from, in this order:
#   1. its annotation helmops.dev/simulate, or the environment variable HELMOPS_SIMULATE of a container:
#      run, hang, complete, fail, crash, crash-later, never-ready, image-pull, missing-image, slow-pull
#   2. an image tagged `broken`: image-pull, one tagged `missing`: missing-image
#   3. restartPolicy Always: run
#   4. else (Jobs, Helm's tests and hooks) its command: `false` or `exit 1` fail, everything else completes.
#      What stands behind `||` is how a script says "fail if", so it does not count.
# The annotation may be changed on a running pod; the pod follows.

def asked:
  .metadata.annotations["helmops.dev/simulate"]
  // first(.spec.containers[].env[]? | select(.name == "HELMOPS_SIMULATE") | .value)
  // null;

def command_fails:
  (.command // []) + (.args // []) | join(" ") | gsub("[|][|][^;&]*"; "")
  | test("(^|[\\s;&/])false([\\s;&]|$)|exit +[1-9]");

def wanted:
  (if asked == "hang" then "run" else asked end)
  // if any(.spec.containers[]; (.image // "") | endswith(":broken")) then "image-pull"
     elif any(.spec.containers[]; (.image // "") | endswith(":missing")) then "missing-image"
     elif .spec.restartPolicy == "Always" then "run"
     elif any(.spec.containers[]; command_fails) then "fail"
     else "complete" end;

def waiting_for: [.status.containerStatuses[]?.state.waiting.reason // empty];

def seen:
  if .status.phase == "Succeeded" or .status.phase == "Failed" then "ended"
  elif any(waiting_for[]; . == "CrashLoopBackOff") then "crash"
  elif any(waiting_for[]; . == "ImagePullBackOff") then "image-pull"
  elif any(waiting_for[]; . == "ErrImagePull") then "missing-image"
  elif any(waiting_for[]; . == "ContainerCreating") then "slow-pull"
  elif any(.status.conditions[]?; .type == "Ready" and .status == "True") then "run"
  elif any(.status.containerStatuses[]?; .state.running != null) then "never-ready"
  else "new" end;

if .metadata.deletionTimestamp then "delete"
elif seen == "ended" then "settled"
elif wanted == "crash-later" then {"new": "run", "run": "crash-later", "crash": "settled"}[seen] // "run"
elif wanted == "slow-pull" then {"new": "slow-pull", "run": "settled"}[seen] // "run"
elif wanted == seen then "settled"
else wanted end
