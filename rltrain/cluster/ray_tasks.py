"""Tasks as tasks of Ray's core."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Sequence
from typing import Any

from rltrain.cluster.runner import Runner
from rltrain.cluster.scheduler import Look
from rltrain.config.launchers import RayConfig
from rltrain.errors import RequestError, one_line

_SECONDS_TO_SAVE = 60.0


class RayScheduler:
    """A Ray cluster. Its tasks belong to this process: when it ends they are stopped, and save.

    Raises:
        RequestError: there is none at the address.
    """

    requeues = False

    def __init__(self, config: RayConfig) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray: Any = ray
        self._config = config
        self._refs: dict[str, Any] = {}
        self._ended: dict[str, Look] = {}
        if ray.is_initialized():
            return
        try:
            ray.init(address=config.address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"hydra.launcher.address={config.address}: no Ray cluster answers: {one_line(error, 200)}\n"
                "`ray start --head` begins one, and hydra.launcher.address=local one for this sweep"
            ) from error

    def submit(self, runners: Sequence[Runner]) -> list[str]:
        config = self._config
        memory = {} if config.memory_gb is None else {"memory": round(config.memory_gb * 2**30)}
        resources = {str(name): float(amount) for name, amount in config.resources.items()}
        run = self._ray.remote(_run).options(
            num_cpus=config.num_cpus, num_gpus=config.num_gpus, resources=resources, max_retries=0, **memory
        )
        refs = {f"{len(self._refs) + place}": run.remote(runner) for place, runner in enumerate(runners)}
        self._refs |= refs
        return list(refs)

    def look(self, ids: Collection[str]) -> dict[str, Look]:
        waiting = {self._refs[id]: id for id in ids if id in self._refs and id not in self._ended}
        if waiting:
            ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            for ref in ready:
                self._ended[waiting[ref]] = self._end(ref)
        # An id of an earlier command is of a task that ended with it.
        live = {id: Look("queued") for id in waiting.values()}
        return {id: self._ended.get(id, live.get(id, Look("ended"))) for id in ids}

    def leave(self, ids: Collection[str], again: str) -> str:
        refs = [self._refs[id] for id in ids if id in self._refs and id not in self._ended]
        for ref in refs:
            self._ray.cancel(ref)
        deadline = time.monotonic() + _SECONDS_TO_SAVE
        while refs and time.monotonic() < deadline:
            _, refs = self._ray.wait(refs, num_returns=len(refs), timeout=1.0)
        self._ray.shutdown()
        return f"the tasks were stopped and have saved; `{again}` finishes the sweep"

    def _end(self, ref: Any) -> Look:
        try:
            self._ray.get(ref)
        except Exception as error:  # Ray's words for a worker, a node or memory that is gone
            return Look("ended", one_line(error, 200))
        return Look("ended")


def _run(runner: Runner) -> int:
    return runner()
