"""Slurm: one batch script that starts Ray on all nodes of the allocation by `ray symmetric-run`, runs the job, and stops Ray.

A job that is requeued, by Slurm or by itself shortly before its time is up, goes on where it ended: submitting again resumes.
"""

from __future__ import annotations

import shlex

from wsss_ray.deploy.manifests.request import Request

_SCRIPT = r"""#!/usr/bin/env bash
@ABOUT@
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=@CPUS@
@GPUS@#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

python=@PYTHON@
PATH="$(dirname "$(command -v "$python")"):$PATH"  # where `ray` lies too
export PATH

# Ray's files stay on each node's own disk, in a folder of this job; the path is short because sockets lie below it.
export RAY_TMPDIR="/tmp/wsss-ray-$SLURM_JOB_ID"
# The token lies in the home folder, which the nodes share, readable by nobody else.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.wsss-ray/token-$SLURM_JOB_ID"
export RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

trap 'rm -rf "$RAY_AUTH_TOKEN_PATH" "$RAY_TMPDIR"' EXIT
# Time is nearly up: back into the queue.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

mkdir -p "$RAY_TMPDIR" "$HOME/.wsss-ray"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")
cat > "$RAY_TMPDIR/job.yaml" <<'WSSS_RAY_JOB'
@JOB@WSSS_RAY_JOB

# This script runs on the first node, which becomes Ray's head. Set HEAD_ADDRESS where the first address is the wrong network's.
head="${HEAD_ADDRESS:-$(hostname -I | cut -d ' ' -f 1)}"
port=$((20000 + SLURM_JOB_ID % 6000 * 2))

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then  # the Ray of the run before, where Slurm does not end what a step started
  srun --ntasks-per-node=1 ray stop --force > /dev/null 2>&1 || true
fi

srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus=@NUM_GPUS@ -- \
  @SUBMIT@ &
step=$!

# `wait` ends at a signal too: wait until the step itself has ended.
status=0
while kill -0 "$step" 2> /dev/null; do
  if wait "$step"; then status=0; else status=$?; fi
done
srun --ntasks-per-node=1 rm -rf "$RAY_TMPDIR" || true
exit "$status"
"""


def slurm(request: Request, *, python: str = "python") -> str:
    """The batch script; `python` is the interpreter that has this package, on every node."""
    machines = request.machines
    values = {
        "ABOUT": "\n".join(f"# {line}" for line in request.about("Slurm script").splitlines()),
        "NAME": request.name,
        "NODES": str(machines.fewest) if machines.fewest == machines.most else f"{machines.fewest}-{machines.most}",
        "CPUS": str(machines.cpus),
        "GPUS": f"#SBATCH --gpus-per-node={machines.gpus}\n" if machines.gpus else "",
        "NUM_GPUS": str(machines.gpus),
        "PYTHON": shlex.quote(python),
        "SUBMIT": request.submit('"$RAY_TMPDIR/job.yaml"', python='"$python"'),
    }
    script = _SCRIPT
    for name, value in values.items():
        script = script.replace(f"@{name}@", value)
    return script.replace("@JOB@", request.text)
