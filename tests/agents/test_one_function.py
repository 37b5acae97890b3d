"""The guard under everything fast: one update function, however it is run, computes the same numbers.

M runs of one member each, with plain autograd, are the reference. `vmap` over the members and the compiled function
must agree with it in float64, although the members differ in learning rate, clipping, discount and entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from small_runs import pqn_config, run_config
from torch import Tensor
from torch.utils._pytree import tree_map

from rltrain.agents import ALGORITHMS
from rltrain.agents.ppo import PPO
from rltrain.agents.pqn import PQN
from rltrain.agents.reinforce import Reinforce
from rltrain.compute import ahead
from rltrain.config.schema import (
    AnyNetworkConfig,
    C51Config,
    CNNConfig,
    CriticConfig,
    DQNConfig,
    DuelingConfig,
    IQNConfig,
    NetworkConfig,
    OptimizerConfig,
    PPOConfig,
    PQNConfig,
    QNetworkConfig,
    QRDQNConfig,
    ReinforceConfig,
    StateActionConfig,
    ValueConfig,
)
from rltrain.engine.algorithm import Build, State
from rltrain.experience import Batch, WeightedBatch
from rltrain.experience.episodes import EpisodeBatch
from rltrain.experience.rollout import Minibatch, Rollout
from rltrain.maths.optimizers import eager_gradient, functional_gradient
from rltrain.types import ActionSpec, ObservationSpec

MEMBERS, UPDATES = 3, 10
OBSERVATION = ObservationSpec("box", (4,), "float32")
IMAGE = ObservationSpec("box", (5, 6, 2), "uint8")
NETWORK = NetworkConfig("mlp", (8, 8), "tanh", 1.0)
SMALL_CNN = CNNConfig("cnn", (3, 4), (2, 3), (1, 2), (8,), False, "auto", "tanh", 1.0)
CPU = torch.device("cpu")
Variant = Callable[[Any, Any, Any], Any]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def stack(trees: list[Any]) -> Any:
    return tree_map(lambda *leaves: torch.stack(leaves), trees[0], *trees[1:])


def run(update: Variant, state: Any, batches: list[Any], hyperparameters: Any) -> Any:
    metrics = None
    for batch in batches:
        state, metrics, *_ = update(state, batch, hyperparameters)
        state = tree_map(torch.Tensor.contiguous, state)  # as in memory that stays: a program knows no other strides
    return state, metrics


def by_program(update: Variant) -> Variant:
    """`update` as a program of rltrain's, on memory that stays."""
    kept: list[Any] = []

    def call(*args: Any) -> Any:
        if not kept:
            memory, results = tree_map(torch.clone, args), tree_map(torch.clone, update(*args))

            def procedure(args: Any, results: Any) -> None:
                tree_map(Tensor.copy_, results, update(*args))

            kept.extend((memory, results, ahead.program(procedure, (memory, results))))
        memory, results, run = kept
        tree_map(Tensor.copy_, memory, args)
        run()
        return tree_map(torch.clone, results)

    return call


def assert_members_agree(
    make: Callable[[Any], Variant], states: list[Any], data: list[list[Any]], hyper: list[Any]
) -> None:
    reference = [run(make(eager_gradient), s, d, h) for s, d, h in zip(states, data, hyper, strict=True)]
    population = torch.vmap(make(functional_gradient))
    batches = [stack([data[m][k] for m in range(MEMBERS)]) for k in range(UPDATES)]
    together = run(population, stack(states), batches, stack(hyper))
    torch.testing.assert_close(together, stack(reference), rtol=1e-9, atol=1e-11)
    first, second = (flat_params(state) for state, _ in reference[:2])
    assert not torch.allclose(first, second, atol=1e-4), "the members' hyperparameters must matter"


def flat_params(state: Any) -> Tensor:
    params: Tensor = next(iter(state.networks.values()))
    return params


def observations(observation: ObservationSpec, *lead: int) -> Tensor:
    if observation.dtype == "float32":
        return torch.randn(*lead, *observation.shape)
    return torch.randint(0, 256, (*lead, *observation.shape), dtype=torch.uint8)


def dqn_case(
    config: QNetworkConfig,
    network: AnyNetworkConfig = NETWORK,
    observation: ObservationSpec = OBSERVATION,
    weighted: bool = False,
) -> tuple[Callable[[Any], Variant], list[Any], list[list[Any]], list[Any]]:
    algorithms = [
        ALGORITHMS[config.name](Build(run_config(config, network=network, seed=seed), observation, DISCRETE, CPU))
        for seed in range(MEMBERS)
    ]
    states = []
    for algorithm in algorithms:
        params = algorithm.networks["q_network"].params
        target = params + 0.1 * torch.randn_like(params)
        states.append(State({"q_network": params, "target_network": target}, algorithm.init_optimizer()))

    def batch() -> Batch | WeightedBatch:
        obs, next_obs = observations(observation, 2, 16)
        discount = 0.99 * torch.randint(0, 2, (16,)).double()
        found = Batch(obs, torch.randint(0, 3, (16,)), torch.randn(16), next_obs, discount)
        return WeightedBatch(*found, torch.rand(16)) if weighted else found

    data = [[batch() for _ in range(UPDATES)] for _ in range(MEMBERS)]
    hyper = [
        {"lr": torch.tensor(lr), "max_grad_norm": torch.tensor(norm), "max_grad_value": torch.tensor(value)}
        for lr, norm, value in [(1e-2, 0.1, 1e9), (3e-3, 1e9, 0.01), (1e-3, 0.5, 0.05)]
    ]
    for knobs in hyper:
        draws: Any = algorithms[0].learning_draws
        knobs |= {name: (torch.randn if d.kind == "normal" else torch.rand)(d.shape) for name, d in draws.items()}
    return lambda gradient: partial(algorithms[0].learn, gradient=gradient), states, data, hyper


def reinforce_case(
    config: ReinforceConfig,
    action: ActionSpec,
    network: AnyNetworkConfig = NETWORK,
    observation: ObservationSpec = OBSERVATION,
) -> tuple[Callable[[Any], Variant], list[Any], list[list[Any]], list[Any]]:
    algorithms = [
        Reinforce(Build(run_config(config, network=network, seed=seed), observation, action, CPU))
        for seed in range(MEMBERS)
    ]
    states = [State({name: n.params for name, n in a.networks.items()}, a.init_optimizer()) for a in algorithms]

    def rollout() -> EpisodeBatch:
        length = torch.randint(1, 9, (4,))
        mask = (torch.arange(8) < length[:, None]).double()
        last = (torch.arange(8) == length[:, None] - 1).double()
        actions: Tensor = (
            torch.randint(0, action.n, (4, 8)) if action.kind == "discrete" else torch.randn(4, 8, *action.shape)
        )
        truncated = torch.randint(0, 2, (4,)).double()
        obs, final_obs = observations(observation, 4, 8), observations(observation, 4)
        return EpisodeBatch(obs, actions, torch.randn(4, 8) * mask, mask, last, final_obs, truncated)

    data = [[rollout() for _ in range(UPDATES)] for _ in range(MEMBERS)]
    hyper = [
        {name: torch.tensor(number) for name, number in zip(names, numbers, strict=True)}
        for names in [("lr", "gamma", "entropy_coef", "value_lr", "max_grad_norm")]
        for numbers in [(1e-2, 0.9, 0.0, 1e-2, 0.1), (3e-3, 0.99, 0.01, 1e-3, 1e9), (1e-3, 1.0, 0.1, 5e-3, 0.5)]
    ]
    return lambda gradient: partial(algorithms[0].learn, gradient=gradient), states, data, hyper


def rollout_case(
    config: PPOConfig | PQNConfig,
    action: ActionSpec,
    network: AnyNetworkConfig = NETWORK,
    observation: ObservationSpec = OBSERVATION,
) -> tuple[Callable[[Any], Variant], list[Any], list[list[Any]], list[Any]]:
    """Each batch is a rollout; the update prepares it and makes a gradient step from every other step of it."""
    make: Callable[[Build], PPO | PQN] = PPO if isinstance(config, PPOConfig) else PQN
    algorithms = [
        make(Build(run_config(config, network=network, seed=seed), observation, action, CPU)) for seed in range(MEMBERS)
    ]
    states = [State({name: n.params for name, n in a.networks.items()}, a.init_optimizer()) for a in algorithms]

    def rollout() -> Rollout:
        taken = torch.randint(0, action.n, (8, 4)) if action.kind == "discrete" else torch.randn(8, 4, *action.shape)
        terminated, cut = torch.rand(2, 8, 4) < 0.2
        obs, next_obs = observations(observation, 8, 4), observations(observation, 8, 4)
        return Rollout(obs, taken, torch.randn(8, 4), next_obs, terminated, terminated | cut)

    def update(state: State, steps: Rollout, knobs: Any, gradient: Any) -> Any:
        columns, metrics = algorithms[0].prepare(state, steps, knobs)
        state, found, _ = algorithms[0].learn(state, minibatch(steps, columns, 0), knobs, gradient)
        state, found, _ = algorithms[0].learn(state, minibatch(steps, columns, 1), knobs, gradient)
        return state, {**metrics, **found}

    def minibatch(steps: Rollout, columns: dict[str, Tensor], first: int) -> Minibatch:
        obs, action = (x.flatten(0, 1)[first::2] for x in (steps.obs, steps.action))
        return Minibatch(obs, action, {name: x.flatten()[first::2] for name, x in columns.items()})

    data = [[rollout() for _ in range(UPDATES)] for _ in range(MEMBERS)]
    numbers = {
        "lr": (1e-2, 3e-3, 1e-3), "gamma": (0.9, 0.99, 1.0), "gae_lambda": (0.0, 0.95, 1.0),
        "q_lambda": (0.0, 0.65, 1.0), "clip": (0.01, 0.2, 0.1), "entropy_coef": (0.0, 0.01, 0.1),
        "value_coef": (0.5, 1.0, 0.1), "max_grad_norm": (0.1, 1e9, 0.5),
    }  # fmt: skip
    hyper = [{name: torch.tensor(numbers[name][m]) for name in algorithms[0].knobs} for m in range(MEMBERS)]
    return lambda gradient: partial(update, gradient=gradient), states, data, hyper


def optimizer(name: str = "adam", weight_decay: float = 0.0, amsgrad: bool = False) -> OptimizerConfig:
    return OptimizerConfig(name, 1e-3, 1e-8, weight_decay, amsgrad)  # type: ignore[arg-type]


def distributional_configs() -> list[QNetworkConfig]:
    keys = {field.name: getattr(dqn_config(), field.name) for field in fields(QNetworkConfig) if field.name != "name"}
    return [
        C51Config(**keys, name="c51", atoms=7, v_min=-2.0, v_max=3.0),
        QRDQNConfig(**{**keys, "double": False}, name="qr_dqn", quantiles=5),
        IQNConfig(**keys, name="iqn", quantiles=4, target_quantiles=3, acting_quantiles=5, cosines=6),
    ]


def dqn_config(**changes: Any) -> DQNConfig:
    keys = {
        "name": "dqn", "gamma": 0.99, "n_step": 1, "double": True, "batch_size": 16, "buffer_size": 100,
        "learning_starts": 0, "train_period": 1, "gradient_steps": 1, "loss": "huber", "max_grad_norm": 1.0,
        "max_grad_value": 1.0, "optimizer": optimizer(), "prioritized": None, "anneal_lr": False,
        "v_min": None, "v_max": None, "munchausen": None, "munchausen_temperature": 0.1, "munchausen_clip": -0.2,
    }  # fmt: skip
    return DQNConfig(**{**keys, **changes})


def reinforce_config(**changes: Any) -> ReinforceConfig:
    keys = {
        "name": "reinforce", "gamma": 0.99, "episodes_per_update": 4, "baseline": "value", "normalize_returns": "batch",
        "loss_reduction": "mean", "anneal_lr": False, "entropy_coef": 0.01, "max_grad_norm": 1.0,
        "value": ValueConfig(1e-3, 2, (8,)), "optimizer": optimizer(),
    }  # fmt: skip
    return ReinforceConfig(**{**keys, **changes})


def ppo_config(**changes: Any) -> PPOConfig:
    keys = {
        "name": "ppo", "gamma": 0.9, "gae_lambda": 0.8, "rollout_steps": 8, "epochs": 1, "minibatches": 2, "clip": 0.2,
        "normalize_advantage": True, "entropy_coef": 0.01, "target_kl": None, "anneal_lr": True, "max_grad_norm": 0.5,
        "value": CriticConfig((8,), 0.5, None), "optimizer": optimizer(),
    }  # fmt: skip
    return PPOConfig(**{**keys, **changes})


DISCRETE = ActionSpec("discrete", (), n=3)
BOX = ActionSpec("box", (2,))
DQN_CONFIGS = [
    dqn_config(),
    dqn_config(double=False, loss="mse", optimizer=optimizer("adamw", 0.01, amsgrad=True)),
    dqn_config(optimizer=optimizer("rmsprop")),
    dqn_config(munchausen=0.9, double=False),
]
REINFORCE_CASES = [
    (reinforce_config(), DISCRETE),
    (reinforce_config(baseline="mean", normalize_returns="episode", loss_reduction="sum"), DISCRETE),
    (reinforce_config(baseline="none", normalize_returns="none"), BOX),
    (reinforce_config(), BOX),
]
PPO_CASES = [
    (ppo_config(), DISCRETE),
    (ppo_config(normalize_advantage=False, value=CriticConfig((8,), 0.5, 0.01), optimizer=optimizer("rmsprop")), BOX),
]
NETWORK_CASES: dict[str, tuple[AnyNetworkConfig, ObservationSpec]] = {
    "dueling": (DuelingConfig("dueling", (8,), (6,), "tanh", 1.0), OBSERVATION),
    "state_action": (StateActionConfig("state_action", (8, 8), "tanh", 1.0), OBSERVATION),
    "cnn": (SMALL_CNN, IMAGE),
    "noisy": (replace(NETWORK, noisy=True), OBSERVATION),
    "noisy dueling cnn": (replace(SMALL_CNN, dueling=True, noisy=True), IMAGE),
    "dueling cnn": (replace(SMALL_CNN, dueling=True), IMAGE),
}


@pytest.mark.parametrize("config", DQN_CONFIGS)
def test_a_population_of_dqn_equals_its_members(config: DQNConfig) -> None:
    assert_members_agree(*dqn_case(config))


@pytest.mark.parametrize("config", [dqn_config(), *distributional_configs()], ids=lambda config: config.name)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_population_of_each_algorithm_equals_its_members(config: QNetworkConfig, weighted: bool) -> None:
    assert_members_agree(*dqn_case(config, weighted=weighted))


def test_a_population_of_rainbow_equals_its_members() -> None:
    network = DuelingConfig("dueling", (8,), (6,), "tanh", 1.0, noisy=True)
    assert_members_agree(*dqn_case(distributional_configs()[0], network, weighted=True))


@pytest.mark.parametrize(("network", "observation"), NETWORK_CASES.values(), ids=NETWORK_CASES)
def test_a_population_of_each_network_equals_its_members(
    network: AnyNetworkConfig, observation: ObservationSpec
) -> None:
    assert_members_agree(*dqn_case(dqn_config(), network, observation))


def test_a_population_of_convolutional_policies_equals_its_members() -> None:
    assert_members_agree(*reinforce_case(reinforce_config(), DISCRETE, SMALL_CNN, IMAGE))


@pytest.mark.parametrize(("config", "action"), REINFORCE_CASES)
def test_a_population_of_reinforce_equals_its_members(config: ReinforceConfig, action: ActionSpec) -> None:
    assert_members_agree(*reinforce_case(config, action))


@pytest.mark.parametrize(("config", "action"), PPO_CASES)
def test_a_population_of_ppo_equals_its_members(config: PPOConfig, action: ActionSpec) -> None:
    assert_members_agree(*rollout_case(config, action))


@pytest.mark.parametrize("name", ["radam", "rmsprop", "rmsprop_tf"])
def test_a_population_of_pqn_equals_its_members(name: str) -> None:
    assert_members_agree(*rollout_case(pqn_config(optimizer=optimizer(name)), DISCRETE))


def test_a_population_of_convolutional_pqn_equals_its_members() -> None:
    assert_members_agree(*rollout_case(pqn_config(), DISCRETE, SMALL_CNN, IMAGE))


@pytest.mark.slow
@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        lambda: dqn_case(dqn_config()),
        lambda: reinforce_case(*REINFORCE_CASES[0]),
        lambda: rollout_case(*PPO_CASES[0]),
        lambda: rollout_case(pqn_config(optimizer=optimizer("radam")), DISCRETE),
        *(partial(dqn_case, dqn_config(), *case) for case in NETWORK_CASES.values()),
    ],
)
@pytest.mark.parametrize("compiler", [partial(torch.compile, fullgraph=True, dynamic=False), by_program])
def test_the_compiled_update_equals_the_eager_one(
    case: Callable[[], Any], vmapped: bool, compiler: Callable[[Variant], Variant]
) -> None:
    torch._dynamo.reset()  # what earlier cases compiled counts towards the limit at which it gives up
    make, states, data, hyper = case()
    reference = [run(make(eager_gradient), s, d, h) for s, d, h in zip(states, data, hyper, strict=True)]
    with torch.no_grad():
        if vmapped:
            fast = compiler(torch.vmap(make(functional_gradient)))
            batches = [stack([data[m][k] for m in range(MEMBERS)]) for k in range(UPDATES)]
            found = run(fast, stack(states), batches, stack(hyper))
            torch.testing.assert_close(found, stack(reference), rtol=1e-8, atol=1e-10)
        else:
            fast = compiler(make(functional_gradient))
            torch.testing.assert_close(run(fast, states[0], data[0], hyper[0]), reference[0], rtol=1e-8, atol=1e-10)
