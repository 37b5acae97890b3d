"""Cards: what the program must know of an algorithm without importing it, by the dataclass of its keys.

A subclass of such a dataclass has the card of its nearest parent; a plug-in may add a card of its own to `CARDS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin

from rltrain.config.schema import (
    ALGO_CONFIGS,
    PER_MEMBER,
    PQNConfig,
    QLearningConfig,
    QNetworkConfig,
    ReinforceConfig,
    RolloutConfig,
    RunConfig,
    hints_of,
)

if TYPE_CHECKING:
    from rltrain.types import ActionSpec, ObservationSpec

_LONGEST_EPISODE = 1024  # a guess, in steps: nobody knows it beforehand
EPISODE_STEPS = 100
"""An episode's length is not known beforehand; where it is needed it is taken for this."""


class Card:
    """One algorithm, or a family. These values are those of an agent of which nothing is known."""

    in_engine: ClassVar[bool] = False
    """Whether the engine runs it: in blocks, compiled and captured."""
    in_populations: ClassVar[bool] = False
    """Whether jobs that differ in the numbers marked PER_MEMBER train as one program."""
    ended_cost: ClassVar[bool] = False
    """Whether, on a CPU, an update costs as much for the members of a population that have ended."""
    on_cpu: ClassVar[bool] = False
    """Whether it computes on the CPU whatever the device: it has tables only."""
    discrete_observations: ClassVar[bool] = False
    discrete_actions: ClassVar[bool] = False

    def experience_bytes(self, algo: Any, num_envs: int, observation: ObservationSpec, action: ActionSpec) -> int:
        """Bytes of memory that one member's experience takes, estimated."""
        return _LONGEST_EPISODE * (_bytes_of(observation) + 16)

    def smallest(self, algo: Any) -> Any:
        """The keys `algo` with as little experience as possible: for an agent that learns nothing."""
        return algo

    def learning_starts(self, algo: Any) -> int:
        """The environment steps before the first gradient step, as far as the config says."""
        return 0

    def updates_per_step(self, algo: Any, num_envs: int) -> float:
        """Gradient steps per environment step; 0 where the config does not say."""
        return 0.0

    def samples_per_update(self, algo: Any, num_envs: int) -> int:
        """Transitions, or steps, that one gradient step learns from; 0 where the config does not say."""
        return 0

    def carried(self, algo: Any) -> tuple[str, ...]:
        """The sections of a checkpoint that `init_from` gives to the agent's `load_network`, together."""
        return ("network",)

    def passes(self, algo: Any) -> int:
        """How often a gradient is taken through each step of an episode, where updates learn from whole episodes."""
        return 0


class _ReplayCard(Card):
    in_engine = in_populations = ended_cost = discrete_actions = True

    def experience_bytes(
        self, algo: QNetworkConfig, num_envs: int, observation: ObservationSpec, action: ActionSpec
    ) -> int:
        if (stack := observation.stack) is None:
            return algo.buffer_size * (2 * _bytes_of(observation) + 16)
        frame = _bytes_of(observation) // stack.size
        return stack.kept(observation, algo.buffer_size) * (frame + 8) + algo.buffer_size * (8 * stack.size + 16)

    def smallest(self, algo: QNetworkConfig) -> QNetworkConfig:
        return replace(algo, buffer_size=1)

    def learning_starts(self, algo: QNetworkConfig) -> int:
        return algo.learning_starts

    def updates_per_step(self, algo: QNetworkConfig, num_envs: int) -> float:
        return algo.gradient_steps / algo.train_period

    def samples_per_update(self, algo: QNetworkConfig, num_envs: int) -> int:
        return algo.batch_size


class _EpisodesCard(Card):
    in_engine = in_populations = True

    def experience_bytes(
        self, algo: ReinforceConfig, num_envs: int, observation: ObservationSpec, action: ActionSpec
    ) -> int:
        return algo.episodes_per_update * super().experience_bytes(algo, num_envs, observation, action)

    def samples_per_update(self, algo: ReinforceConfig, num_envs: int) -> int:
        return algo.episodes_per_update * EPISODE_STEPS

    def passes(self, algo: ReinforceConfig) -> int:
        return 1 + (algo.value.steps if algo.baseline == "value" else 0)


class _RolloutCard(Card):
    in_engine = in_populations = True

    def experience_bytes(
        self, algo: RolloutConfig, num_envs: int, observation: ObservationSpec, action: ActionSpec
    ) -> int:
        return algo.rollout_steps * num_envs * (2 * _bytes_of(observation) + 64)

    def updates_per_step(self, algo: RolloutConfig, num_envs: int) -> float:
        return algo.epochs * algo.minibatches / (algo.rollout_steps * num_envs)

    def samples_per_update(self, algo: RolloutConfig, num_envs: int) -> int:
        return algo.rollout_steps * num_envs // algo.minibatches


class _ActionValueRolloutCard(_RolloutCard):
    discrete_actions = True


class _TableCard(Card):
    in_populations = on_cpu = discrete_observations = discrete_actions = True

    def experience_bytes(
        self, algo: QLearningConfig, num_envs: int, observation: ObservationSpec, action: ActionSpec
    ) -> int:
        return 16 * max(1, observation.n) * max(1, action.n)  # the table, and how often each entry was visited

    def carried(self, algo: QLearningConfig) -> tuple[str, ...]:
        return ("network", "optimizer") if algo.alpha_decay else ("network",)  # the visits, which set the step sizes


CARDS: dict[type, Card] = {
    QNetworkConfig: _ReplayCard(),
    ReinforceConfig: _EpisodesCard(),
    RolloutConfig: _RolloutCard(),
    PQNConfig: _ActionValueRolloutCard(),
    QLearningConfig: _TableCard(),
}


def card_of(algo: Any) -> Card:
    """The card of an algorithm's keys, `RunConfig.algo`."""
    return _card(type(algo)) or Card()


_STEADIER = {  # keys of an algorithm, and what to try where its numbers grow beyond all bounds
    "optimizer": "a smaller algo.optimizer.lr",
    "max_grad_norm": "algo.max_grad_norm=1",
    "alpha": "a smaller algo.alpha",
    "initial_value": "a smaller algo.initial_value",
}


def steadier(algo: Any) -> list[str]:
    """Advice for values that are far too large, of the keys that the algorithm has; a smaller step size comes first."""
    return [advice for key, advice in _STEADIER.items() if hasattr(algo, key)]


def that_take(observation: ObservationSpec, action: ActionSpec) -> list[str]:
    """The names of the algorithms with a card that learn from such observations and actions."""
    found = {name: card for name, cls in sorted(ALGO_CONFIGS.items()) if (card := _card(cls)) is not None}
    return [
        name
        for name, card in found.items()
        if (observation.kind == "discrete" or not card.discrete_observations)
        and (action.kind == "discrete" or not card.discrete_actions)
    ]


def _card(cls: type) -> Card | None:
    return next((CARDS[parent] for parent in cls.__mro__ if parent in CARDS), None)


def per_member_keys(config: RunConfig) -> list[str]:
    """The keys in which members of a population may differ, such as `algo.gamma`: those marked PER_MEMBER."""
    sections = {"algo": config.algo, "target_update": config.target_update, "exploration": config.exploration}
    return [key for name, section in sections.items() for key in _marked(section, name)]


def _marked(section: Any, path: str) -> Iterator[str]:
    if not is_dataclass(section):
        return
    cls: Any = type(section)
    hints = hints_of(cls)
    for field in fields(section):
        key, hint = f"{path}.{field.name}", hints[field.name]
        if get_origin(hint) is Annotated and PER_MEMBER in get_args(hint):
            yield key
        else:
            yield from _marked(getattr(section, field.name), key)


def _bytes_of(observation: ObservationSpec) -> int:
    import numpy as np

    return prod(observation.shape) * np.dtype(observation.dtype).itemsize
