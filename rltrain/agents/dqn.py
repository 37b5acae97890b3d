"""Deep Q-networks. Mnih et al. 2015 (algorithm 1); double Q-learning, van Hasselt et al. 2016; n-step returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import DQNConfig, QNetworkConfig
from rltrain.engine.algorithm import DURATION, Build, Draw, Learned, Noise, State
from rltrain.engine.cadence import UpdatesPerStep
from rltrain.experience import Batch, WeightedBatch
from rltrain.maths.optimizers import Gradient, clip_gradient, init_optimizer, optimizer_step
from rltrain.maths.persistence import zeta_quantile
from rltrain.maths.schedules import Schedule, always, make_schedule
from rltrain.maths.value import double_q_next_value, q_learning_next_value, select_action_values, td_loss, td_target
from rltrain.networks.flat import FlatNetwork

Transitions = Batch | WeightedBatch


class Losses(NamedTuple):
    """Of each sample of a batch."""

    loss: Tensor  # [B]
    q_value: Tensor  # [B], Q(s, a)
    error: Tensor  # [B], what prioritized replay goes by


class DQN:
    """y = r + discount * max_a Q(s', a; theta^-), or with `double` Q(s', argmax_a Q(s', a; theta); theta^-), and a step
    descends the mean over the batch of loss(Q(s, a; theta), y), y held fixed. Acts epsilon-greedily."""

    acts = "q_network"
    learns: tuple[str, ...] = ("q_network",)
    noise: Noise = Noise("exploration", "uniform", 2)
    metrics: tuple[str, ...] = ("train/td_loss", "train/q_value", "train/grad_norm")
    networks: Mapping[str, FlatNetwork]
    follows: Mapping[str, str]
    cadence: UpdatesPerStep
    schedules: Mapping[str, Schedule]
    knobs: Mapping[str, float]
    acting_draws: Mapping[str, Draw]

    def __init__(self, build: Build) -> None:
        self.num_actions = build.action.n
        self.config = config = cast(QNetworkConfig, build.config.algo)
        network = build.network(self.num_actions * self.outputs_per_action)
        self.networks = {"q_network": network}
        self.follows = {"target_network": "q_network"}
        self.apply = network.apply
        self.acting_draws = {"explore": Draw(torch.bool), "random_action": Draw(torch.int64)}
        self.cadence = UpdatesPerStep(config.learning_starts, config.train_period, config.gradient_steps)
        exploration = build.config.exploration
        self.schedules = {} if exploration is None else {"epsilon": make_schedule(exploration)}
        if exploration is not None and exploration.duration is not None:
            self.noise = Noise("exploration", "uniform", 3)
            self.schedules = {**self.schedules, DURATION: always(exploration.duration)}
        optional = {"max_grad_norm": config.max_grad_norm, "max_grad_value": config.max_grad_value}
        self.knobs = {
            "lr": config.optimizer.lr,
            **{name: bound for name, bound in optional.items() if bound is not None},
        }

    @property
    def outputs_per_action(self) -> int:
        return 1

    def q_values(self, xp: Any, output: Any) -> Any:
        """The network's output [..., outputs] -> Q(s, a) [..., A]."""
        return output

    def draw(self, noise: np.ndarray, scheduled: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        uniform = noise.reshape(*noise.shape[:2], self.noise.size, -1)  # [steps, M, 2 or 3, N]
        drawn = {
            "explore": uniform[:, :, 0] < scheduled["epsilon"],
            "random_action": (uniform[:, :, 1] * self.num_actions).astype(np.int64),
        }
        if DURATION in scheduled:
            exponents = scheduled[DURATION][0, :, 0]  # [M]
            of_members = [zeta_quantile(uniform[:, m, 2], float(mu)) for m, mu in enumerate(exponents)]
            drawn[DURATION] = np.stack(of_members, axis=1)
        return drawn

    def choose_blindly(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray | None:
        return drawn["random_action"] if drawn["explore"].all() else None

    def choose(self, xp: Any, output: Any, drawn: Mapping[str, Any]) -> Any:
        return xp.where(drawn["explore"], drawn["random_action"], self.q_values(xp, output).argmax(-1))

    def greedy(self, output: Tensor) -> Tensor:
        return cast(Tensor, self.q_values(torch, output).argmax(-1))

    def init_optimizer(self) -> dict[str, Tensor]:
        return init_optimizer(self.config.optimizer, self.networks["q_network"].params)

    def losses(self, params: Tensor, target_params: Tensor, batch: Transitions) -> Losses:
        q_value = select_action_values(self.apply(params, batch.obs), batch.action)  # [B]
        with torch.no_grad():
            target_q_next = self.apply(target_params, batch.next_obs)  # [B, A]
            if self.config.double:
                next_value = double_q_next_value(self.apply(params, batch.next_obs), target_q_next)  # [B]
            else:
                next_value = q_learning_next_value(target_q_next)  # [B]
            target = td_target(batch.reward, batch.discount, next_value)  # [B]
        loss = td_loss(cast(DQNConfig, self.config).loss, q_value, target)
        return Losses(loss, q_value, loss if batch.weight is None else q_value - target)

    def learn(self, state: State, batch: Transitions, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            losses = self.losses(params, state.networks["target_network"], batch)
            loss = (losses.loss if batch.weight is None else batch.weight * losses.loss).mean()
            error = {} if batch.weight is None else {"error": losses.error.detach()}
            return loss, {"train/td_loss": loss.detach(), "train/q_value": losses.q_value.detach().mean(), **error}

        grad, found = gradient(loss_fn, state.networks["q_network"])  # [P]
        feedback = {} if batch.weight is None else {"error": found.pop("error")}
        grad, grad_norm = clip_gradient(grad, knobs.get("max_grad_norm"), knobs.get("max_grad_value"))
        params, optimizer = optimizer_step(
            self.config.optimizer, state.networks["q_network"], grad, state.optimizer, knobs["lr"]
        )
        new = State({**state.networks, "q_network": params}, optimizer)
        return Learned(new, {**found, "train/grad_norm": grad_norm}, feedback)
