"""Stands in for the training run where a test is about the command line; loaded through RLTRAIN_PLUGINS."""

import json
import os
import signal
import sys
import types

from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.terminal.output import say


def train(config, folder, console, info=None):  # type: ignore[no-untyped-def]
    status = "failed" if config.seed in (13, 14) else "completed"
    (folder / "run.json").write_text(json.dumps({"seed": config.seed, "status": status}))
    say(f"trained {config.algo.name} {config.env.id} {config.seed} console={console} tuned={info.tuned}")
    if config.seed == 13:
        raise RunFailed("the environment blew up")
    if config.seed == 14:
        raise ZeroDivisionError("a bug")
    if config.seed == 15:
        raise Interrupted(130)
    if config.seed == 16:
        (folder / "run.json").unlink()
        raise RequestError("what only a run can tell")
    if config.seed == 17:
        os.kill(os.getpid(), signal.SIGINT)
    return float(config.seed)


def dry_run(config, info=None):  # type: ignore[no-untyped-def]
    say(f"looked at {config.algo.name} {config.env.id} {config.seed} tuned={info.tuned}")


module = types.ModuleType("rltrain.jobs.job")
module.train = train  # type: ignore[attr-defined]
module.dry_run = dry_run  # type: ignore[attr-defined]
sys.modules["rltrain.jobs.job"] = module
