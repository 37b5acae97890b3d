"""Tasks as jobs of Slurm, submitted through submitit."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rltrain.cluster.runner import Runner
from rltrain.cluster.scheduler import Look
from rltrain.config.launchers import SlurmConfig
from rltrain.errors import RequestError
from rltrain.storage.task_folder import TASKS, last_line

_LARGEST_ARRAY = 1000  # Slurm's own default of MaxArraySize is 1001
_REQUEUES = 10_000  # each time a task has saved, and goes on
_ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)
_RUNNING = frozenset(["RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"])


class SlurmScheduler:
    """Slurm, as it is seen from one of its login nodes."""

    requeues = True

    def __init__(self, config: SlurmConfig, sweep: Path) -> None:
        self._config = config
        # Of this command alone: submitit unpickles what lies there, and a sweep's folder may come from anywhere.
        self._folder = sweep / TASKS / f"submitit-{uuid.uuid4().hex[:8]}"
        self._name = f"rltrain-{sweep.name}"

    def submit(self, runners: Sequence[Runner]) -> list[str]:
        from submitit import SlurmExecutor

        executor = SlurmExecutor(self._folder, max_num_timeout=_REQUEUES)
        ids: list[str] = []
        for start in range(0, len(runners), _LARGEST_ARRAY):
            executor.update_parameters(**self._parameters())
            try:
                submitted = executor.submit_array(runners[start : start + _LARGEST_ARRAY])
            except Exception as error:
                if ids:  # those of the arrays before are taken back: the sweep is submitted whole or not at all
                    subprocess.run(["scancel", *sorted(_arrays(ids))], capture_output=True, check=False)
                raise RequestError(f"hydra/launcher=slurm: sbatch refused: {_reason(error)}") from error
            ids += [job.job_id for job in submitted]
        return ids

    def look(self, ids: Collection[str]) -> dict[str, Look]:
        command = ["squeue", "--array", "--noheader", "--states=all", "--format=%i|%T|%N", f"--user={os.getuid()}"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return {}
        found: dict[str, Look] = {}
        for line in answer.stdout.splitlines():
            id, _, rest = line.strip().partition("|")
            state, _, node = rest.partition("|")
            if state in _ENDED:
                said = last_line(self._folder / f"{id}_0_log.out")
                found[id] = Look(
                    "cancelled" if state == "CANCELLED" else "ended", f"{state}: {said}" if said else state
                )
            else:
                found[id] = Look("running", node) if state in _RUNNING else Look("queued")
        return {id: found.get(id, Look("ended")) for id in ids}  # Slurm forgets what ended minutes ago

    def leave(self, ids: Collection[str], again: str) -> str:
        return (
            f"the tasks go on in Slurm; `{again}` waits for them, `scancel {' '.join(sorted(_arrays(ids)))}` ends them"
        )

    def _parameters(self) -> dict[str, Any]:
        config = self._config
        chosen = {
            "partition": config.partition,
            "account": config.account,
            "qos": config.qos,
            "constraint": config.constraint,
            "gpus_per_node": config.gpus_per_node or None,
            "mem": None if config.mem_gb is None else f"{round(config.mem_gb * 1024)}MB",
            "setup": list(config.setup) or None,
        }
        return {
            **{key: value for key, value in chosen.items() if value is not None},
            "job_name": self._name,
            "time": config.timeout_min,
            "cpus_per_task": config.cpus_per_task,
            "array_parallelism": config.array_parallelism,
            "signal_delay_s": config.signal_delay_s,
            "stderr_to_stdout": True,
            "wckey": None,
            "additional_parameters": {"requeue": True, **config.additional_parameters},
            "srun_args": [f"--cpus-per-task={config.cpus_per_task}"],  # which srun no longer takes from sbatch
        }


def _arrays(ids: Collection[str]) -> set[str]:
    return {id.partition("_")[0] for id in ids}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "error:" in line] or str(error).splitlines()
    return lines[0].strip() if lines else type(error).__name__
