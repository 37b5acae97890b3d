"""Deep Q-networks. Mnih et al. 2015 (algorithm 1); double Q-learning, van Hasselt et al. 2016; n-step returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.agents.agent import AgentContext, StateDict, mean_metrics, with_prefix, without_prefix
from rltrain.compiling import compiled
from rltrain.config.schema import DQNConfig
from rltrain.losses.value import double_q_next_value, q_learning_next_value, select_action_values, td_loss, td_target
from rltrain.networks import make_network
from rltrain.networks.flat import Apply
from rltrain.optimizers import (
    Gradient,
    OptimizerState,
    clip_gradient,
    eager_gradient,
    functional_gradient,
    init_optimizer,
    optimizer_step,
)
from rltrain.replay import Batch, UniformReplay
from rltrain.replay.n_step import NStepWindow
from rltrain.schedules import make_schedule
from rltrain.seeding import RandomBlock, derive_seed, make_generator
from rltrain.target_update import TargetUpdate
from rltrain.types import Episode, Transition


class DQNState(NamedTuple):
    """What one gradient step reads; it writes all but the target."""

    params: Tensor  # [P], theta
    target_params: Tensor  # [P], theta^-
    optimizer: OptimizerState


Hyperparameters = dict[str, Tensor]
"""`lr` [], and `max_grad_norm` [], `max_grad_value` [] where gradients are clipped."""
Update = Callable[[DQNState, Batch, Hyperparameters], tuple[DQNState, dict[str, Tensor]]]


def make_update(config: DQNConfig, q_network: Apply, gradient: Gradient = eager_gradient) -> Update:
    """One gradient step of one member, as a pure function of tensors: what is vmapped, compiled or captured.

    y = r + discount * max_a Q(s', a; theta^-), or with `double` Q(s', argmax_a Q(s', a; theta); theta^-), and the step
    descends the mean over the batch of loss(Q(s, a; theta), y), y held fixed.
    """

    def loss_fn(params: Tensor, target_params: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        q_value = select_action_values(q_network(params, batch.obs), batch.action)  # [B]
        with torch.no_grad():
            target_q_next = q_network(target_params, batch.next_obs)  # [B, A]
            if config.double:
                next_value = double_q_next_value(q_network(params, batch.next_obs), target_q_next)  # [B]
            else:
                next_value = q_learning_next_value(target_q_next)  # [B]
            target = td_target(batch.reward, batch.discount, next_value)  # [B]
        loss = td_loss(config.loss, q_value, target).mean()
        return loss, {"train/td_loss": loss.detach(), "train/q_value": q_value.detach().mean()}

    def update(state: DQNState, batch: Batch, hyperparameters: Hyperparameters) -> tuple[DQNState, dict[str, Tensor]]:
        grad, metrics = gradient(lambda params: loss_fn(params, state.target_params, batch), state.params)  # [P]
        grad, grad_norm = clip_gradient(
            grad, hyperparameters.get("max_grad_norm"), hyperparameters.get("max_grad_value")
        )
        params, optimizer = optimizer_step(config.optimizer, state.params, grad, state.optimizer, hyperparameters["lr"])
        return state._replace(params=params, optimizer=optimizer), {**metrics, "train/grad_norm": grad_norm}

    return update


def make_hyperparameters(config: DQNConfig, device: torch.device) -> Hyperparameters:
    values = {
        "lr": config.optimizer.lr,
        "max_grad_norm": config.max_grad_norm,
        "max_grad_value": config.max_grad_value,
    }
    return {name: torch.tensor(value, device=device) for name, value in values.items() if value is not None}


class GreedyQ:
    """The policy that takes argmax_a Q(s, a; theta)."""

    def __init__(self, context: AgentContext) -> None:
        run = context.config
        self._device = context.device
        self._num_actions = context.action.n
        init_seed = derive_seed(run.seed, "network")
        self.q_network = make_network(run.network, context.observation, self._num_actions, init_seed, self._device)

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            q_values = self.q_network(torch.from_numpy(obs).to(self._device))  # [N, A]
            # The one wait for the device per step: the environments need the actions.
            action: np.ndarray = q_values.argmax(-1).cpu().numpy()
        return action

    def load_network(self, network: Mapping[str, Tensor]) -> None:
        self.q_network.load_state_dict(without_prefix("q_network", network))


class DQN(GreedyQ):
    """The agent: acts epsilon-greedily, keeps transitions, and makes gradient steps when they are due.

    At environment step s, floor((s - learning_starts) / train_period) * gradient_steps gradient steps have been made,
    whatever the number of environments.
    """

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        run, device = context.config, context.device
        config = cast(DQNConfig, run.algo)
        assert run.exploration is not None
        assert run.target_update is not None
        self._config = config
        self.active = np.ones(run.num_envs, dtype=bool)
        self._target_params = self.q_network.params.clone()  # [P], theta^-
        self._optimizer = init_optimizer(config.optimizer, self.q_network.params)
        self._hyperparameters = make_hyperparameters(config, device)
        self._update = make_update(config, self.q_network.apply)
        if context.compile_update:
            self._update = compiled(make_update(config, self.q_network.apply, functional_gradient), self._update)
        self._target_update = TargetUpdate(run.target_update)
        self._epsilon = make_schedule(run.exploration)
        self.replay = UniformReplay(config.buffer_size, context.observation, context.action, device)
        self._window = NStepWindow(config.n_step, config.gamma, run.num_envs, context.observation, context.action)
        self._exploration_draws = RandomBlock(make_generator(run.seed, "exploration"))
        self._replay_draws = RandomBlock(make_generator(run.seed, "replay"), block_size=64 * config.batch_size)
        self.env_steps = self.episodes = self.gradient_steps = 0
        self._target_seen = (0, 0)  # environment steps and episodes at which the target's schedule was last asked

    @property
    def num_parameters(self) -> dict[str, int]:
        return {"q_network": self.q_network.params.numel()}

    @property
    def replay_bytes(self) -> int:
        return self.replay.nbytes

    @property
    def epsilon(self) -> float:
        """The probability that the next action is drawn uniformly."""
        return self._epsilon(self.env_steps, self.episodes)

    def act(self, obs: np.ndarray) -> np.ndarray:
        draws = self._exploration_draws.take(2 * len(obs)).reshape(2, -1)  # [2, N]
        explore = draws[0] < self.epsilon  # [N]
        random_action: np.ndarray = (draws[1] * self._num_actions).astype(np.int64)  # [N]
        if explore.all():
            return random_action
        return np.where(explore, random_action, self.act_greedy(obs))

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self.env_steps += len(transition.reward)
        self.episodes += len(episodes)
        for columns in self._window.push(transition):
            self.replay.add(*columns)

    def update(self) -> dict[str, Tensor]:
        config = self._config
        phases = max(0, self.env_steps - config.learning_starts) // config.train_period
        due = phases * config.gradient_steps - self.gradient_steps
        steps = [self._gradient_step() for _ in range(due)]
        self._target_update.after_env_steps(
            self._target_params,
            self.q_network.params,
            (self._target_seen[0], self.env_steps),
            (self._target_seen[1], self.episodes),
        )
        self._target_seen = (self.env_steps, self.episodes)
        return mean_metrics(steps)

    def _gradient_step(self) -> dict[str, Tensor]:
        batch = self.replay.sample(self._replay_draws.take(self._config.batch_size))
        state = DQNState(self.q_network.params, self._target_params, self._optimizer)
        with torch.no_grad():
            new_state, metrics = self._update(state, batch, self._hyperparameters)
            self.q_network.params.copy_(new_state.params)
        self._optimizer = new_state.optimizer
        self.gradient_steps += 1
        self._target_update.after_gradient_step(self._target_params, self.q_network.params, self.gradient_steps)
        return metrics

    def scalars(self) -> dict[str, float]:
        return {
            "train/epsilon": self.epsilon,
            "train/learning_rate": self._config.optimizer.lr,
            "train/gradient_steps": float(self.gradient_steps),
        }

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._window.forget(envs)

    def state_dict(self) -> StateDict:
        return {
            "network": {
                **with_prefix("q_network", self.q_network.state_dict()),
                **with_prefix("target_network", self.q_network.state_dict(self._target_params)),
            },
            "optimizer": dict(self._optimizer),
            "replay": {
                **with_prefix("replay", self.replay.state_dict()),
                **with_prefix("n_step", self._window.state_dict()),
            },
            "state": {
                "env_steps": self.env_steps,
                "episodes": self.episodes,
                "gradient_steps": self.gradient_steps,
                "target_seen": list(self._target_seen),
                "exploration_draws": self._exploration_draws.state_dict(),
                "replay_draws": self._replay_draws.state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        self.q_network.load_state_dict(without_prefix("q_network", state["network"]))
        self._target_params.copy_(self.q_network.flatten(without_prefix("target_network", state["network"])))
        self._optimizer = {name: tensor.to(self._device) for name, tensor in state["optimizer"].items()}
        self.replay.load_state_dict(without_prefix("replay", state["replay"]))
        self._window.load_state_dict(without_prefix("n_step", state["replay"]))
        plain = state["state"]
        self.env_steps, self.episodes = plain["env_steps"], plain["episodes"]
        self.gradient_steps = plain["gradient_steps"]
        self._target_seen = (plain["target_seen"][0], plain["target_seen"][1])
        self._exploration_draws.load_state_dict(plain["exploration_draws"])
        self._replay_draws.load_state_dict(plain["replay_draws"])

    def load_network(self, network: Mapping[str, Tensor]) -> None:
        super().load_network(network)
        self._target_params.copy_(self.q_network.params)
