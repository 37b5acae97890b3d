"""`make saving`: what checkpoints cost, as a share of the training between two of them at 10,000 steps.

Three runs: DQN on CartPole-v1 as it comes, DQN on CartPole-v1 with a full replay of a million transitions, and DQN on
84x84 uint8 images with a full replay of 100,000. Training and saving are timed by turns in one process: some hundred
steps, from whose speed the time of a period follows, and then a save after a period's worth of new transitions. The
first save, which writes the whole replay, is shown beside; a process makes it once.

A dense network stands for the image one: it is faster than a convolutional one, so the share of saving is larger.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from rltrain.config.application import compose
from rltrain.config.schema import AUTO_SAVE_STEPS, RunConfig
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.jobs.build import build, build_evaluator
from rltrain.jobs.checkpointer import RunCheckpointer
from rltrain.loggers.logger import MultiLogger
from rltrain.storage.run_folder import RunFolder
from rltrain.training.loop import Loop
from rltrain.training.member import Output
from rltrain.training.stopping import StopSignal

ALLOWED = 0.05
ROUNDS = 3
CASES = {
    "CartPole-v1, as it comes": ["env=CartPole-v1"],
    "CartPole-v1, a million transitions": ["env=CartPole-v1", "algo.buffer_size=1_000_000"],
    "images 84x84, 100,000 transitions": ["env=SavingImages-v0", "algo.buffer_size=100_000", "algo.batch_size=32"],
}
# One vector step at a time: where an agent makes blocks of them, the request to stop is looked at after each block.
COMMON = [
    "device=cpu", "eval.period=null", "stop_at_return=null", "total_steps=10_000_000", "env.vectorization=sync",
]  # fmt: skip


class Images(gymnasium.Env[np.ndarray, np.int64]):
    """Random frames; an episode has 200 steps."""

    observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self._frames = self.np_random.integers(0, 256, (8, 84, 84), np.uint8)
        self._step = 0
        return self._frames[0], {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        return self._frames[self._step % 8], 0.0, False, self._step == 200, {}


gymnasium.register("SavingImages-v0", lambda **_: Images())


def fill(agent: OffPolicyAgent, count: int, generator: np.random.Generator) -> None:
    """`count` random transitions, in pieces that fit into memory twice."""
    arrays = agent.replay.state_dict()
    while count:
        rows = min(count, 10_000)
        columns = []
        for name in ("obs", "action", "reward", "next_obs", "discount"):
            shape = (rows, *arrays[name].shape[1:])
            if arrays[name].dtype == torch.uint8:
                columns.append(generator.integers(0, 256, shape, np.uint8))
            elif arrays[name].dtype == torch.int64:
                columns.append(generator.integers(0, 2, shape))
            else:
                columns.append(generator.random(shape, np.float32))
        agent.replay.add(*columns)
        count -= rows


class Stopwatch(StopSignal):
    """Lets a loop run for some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def measure(config: RunConfig, folder: Path, steps: int) -> tuple[float, float, float]:
    """Seconds of a period's training, of the first save and of a later one."""
    period = AUTO_SAVE_STEPS
    generator = np.random.default_rng(0)
    with build(config) as parts, RunFolder(folder) as run:
        stop, agent = Stopwatch(), parts.agent
        assert isinstance(agent, OffPolicyAgent)
        evaluator, logger = build_evaluator([config], 1, dict), MultiLogger([])
        keeper = RunCheckpointer(config, run, parts, evaluator, logger)
        loop = Loop([config], parts.envs, agent, evaluator, [Output(logger, keeper)], parts.device, stop)
        [member] = loop.members
        size = config.algo.buffer_size if config.algo.name == "dqn" else 0
        if size > 50_000:
            fill(agent, size, generator)
        stop.looks = 1_100
        loop.run()  # random actions and the compiler are behind it; saves, which writes all
        begin = time.perf_counter()
        RunCheckpointer(config, run, parts, evaluator, logger).save(member.step, member.state_dict())
        first = time.perf_counter() - begin
        trainings, saves = [], []
        for _ in range(ROUNDS):
            stop.looks, begin = steps, time.perf_counter()
            loop._steps_on_host(steps)
            trainings.append((time.perf_counter() - begin) / steps * period)
            fill(agent, period, generator)
            begin_save = time.perf_counter()
            member.save()
            saves.append(time.perf_counter() - begin_save)
            keeper.prune()
        evaluator.close()
    return statistics.median(trainings), first, statistics.median(saves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="environment steps that are timed per round")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--folder", help="where the run folders are made, and removed (a temporary folder)")
    options = parser.parse_args()
    print(f"{'':<36} {'a period':>10} {'first save':>11} {'a save':>8} {'share':>7}")
    for name, overrides in CASES.items():
        if options.only not in name:
            continue
        config, _ = compose([*overrides, *COMMON])
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            training, first, save = measure(config, folder, options.steps)
        finally:
            shutil.rmtree(folder)
        verdict = "" if save <= ALLOWED * training else f"  more than {ALLOWED:.0%}"
        share = f"{save / training:>7.1%}{verdict}"
        print(f"{name:<36} {training:>8.2f} s {first:>9.2f} s {save:>6.3f} s {share}", flush=True)


if __name__ == "__main__":
    main()
