"""PQN: Q-learning without replay and target network. Gallici et al. 2024; the returns of Peng & Williams 1996."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from torch import Tensor

from rltrain.agents.epsilon_greedy import EpsilonGreedy
from rltrain.config.schema import CNNConfig, NetworkConfig, PQNConfig
from rltrain.engine.algorithm import Build, Learned, Prepared, State, given
from rltrain.engine.cadence import EveryRollout
from rltrain.experience.rollout import Minibatch, Rollout
from rltrain.maths.optimizers import Gradient, descend, init_optimizer
from rltrain.maths.returns import lambda_return
from rltrain.maths.schedules import Schedule, annealed
from rltrain.maths.value import q_learning_next_value, select_action_values, td_loss


class PQN(EpsilonGreedy):
    """A step descends the mean over a minibatch of (Q(s, a) - G)^2, G the lambda-return of the rollout with max_a Q as
    the value of a state, from the parameters before the first step. Layer norm keeps it from diverging."""

    follows: Mapping[str, str] = {}
    columns: tuple[str, ...] = ("returns",)
    rollout_metrics: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("train/td_loss", "train/q_value", "train/grad_norm")
    limits: Mapping[str, float] = {}

    def __init__(self, build: Build) -> None:
        super().__init__(_normalized(build))
        self.config = config = cast(PQNConfig, build.config.algo)
        self.cadence = EveryRollout(config.rollout_steps, config.epochs, config.minibatches)
        self.knobs: Mapping[str, float] = given(
            lr=config.optimizer.lr, gamma=config.gamma, q_lambda=config.q_lambda, max_grad_norm=config.max_grad_norm
        )
        self.anneals: Mapping[str, Schedule] = annealed(config.anneal_lr, build.config.total_steps, "lr")

    def init_optimizer(self) -> dict[str, Tensor]:
        return init_optimizer(self.config.optimizer, self.networks["q_network"].params)

    def prepare(self, state: State, steps: Rollout, knobs: Mapping[str, Tensor]) -> Prepared:
        next_value = q_learning_next_value(self.apply(state.networks["q_network"], steps.next_obs))  # [T, N]
        discount = knobs["gamma"] * ~steps.terminated
        return Prepared(
            {"returns": lambda_return(steps.reward, discount, next_value, steps.ended, knobs["q_lambda"])}, {}
        )

    def learn(self, state: State, batch: Minibatch, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            q_value = select_action_values(self.apply(params, batch.obs), batch.action)  # [B]
            loss = td_loss("mse", q_value, batch.columns["returns"]).mean()
            return loss, {"train/td_loss": loss.detach(), "train/q_value": q_value.detach().mean()}

        grad, metrics = gradient(loss_fn, state.networks["q_network"])  # [P]
        params, optimizer, grad_norm = descend(
            self.config.optimizer, state.networks["q_network"], grad, state.optimizer, knobs
        )
        return Learned(State({"q_network": params}, optimizer), {**metrics, "train/grad_norm": grad_norm}, {})


def _normalized(build: Build) -> Build:
    """The same with layer norm, unless the config says whether there is any."""
    network = build.config.network
    if not isinstance(network, NetworkConfig | CNNConfig) or network.layer_norm is not None:
        return build
    return replace(build, config=replace(build.config, network=replace(network, layer_norm=True)))
