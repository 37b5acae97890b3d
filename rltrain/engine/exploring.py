"""Acting as in training, for an evaluation: sampled, epsilon-greedily, or under the noise of a network's layers."""

from __future__ import annotations

import numpy as np

from rltrain.engine.algorithm import DURATION, Algorithm
from rltrain.engine.members import MemberNetworks
from rltrain.maths.persistence import HeldActions
from rltrain.seeding import make_generator


class ExploringPolicy:
    """The network of a single run, and its algorithm's choice, with the schedules of one moment of the training.

    Args:
        acting: the network that acts.
        seed: of the draws, which nothing else takes.
        env_step, episodes: the moment: environment steps and episodes that the training had made.
    """

    def __init__(self, algorithm: Algorithm, acting: MemberNetworks, seed: int, env_step: int, episodes: int) -> None:
        self._algorithm, self._acting = algorithm, acting
        self._generator = make_generator(seed, "evaluation")
        schedules = algorithm.schedules.items()
        self._scheduled = {name: np.full((1, 1, 1), schedule(env_step, episodes)) for name, schedule in schedules}
        self._held: HeldActions | None = None

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        """obs [N, *obs] -> actions [N, *action], of an N that never changes: exploratory ones, under the name
        that the evaluator calls."""
        _, kind, size = self._algorithm.noise
        noise = self._draw(kind, (1, 1, size * len(obs)))
        drawn = {name: draws.reshape(1, len(obs), *draws.shape[3:])
                 for name, draws in self._algorithm.draw(noise, self._scheduled).items()}  # fmt: skip
        if DURATION in drawn:
            self._held = self._held or HeldActions(len(obs))
            self._held.hold(drawn["explore"], drawn["random_action"], drawn.pop(DURATION))
        now = {name: draws[0] for name, draws in drawn.items()}
        action = self._algorithm.choose_blindly(now)
        if action is None:
            size = self._acting.noise_size
            noises = [self._draw("normal", (1, size)).astype(np.float32)] if size else []
            action = self._algorithm.choose(np, self._acting.act(obs, *noises).cpu().numpy(), now)
        return action

    def _draw(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._generator.random(shape) if kind == "uniform" else self._generator.standard_normal(shape)
