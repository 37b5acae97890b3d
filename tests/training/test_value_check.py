"""Values of first states against the discounted returns that followed, and what is said of an agent's networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils import seeding
from small_runs import dqn_config, env_config, run_config
from torch import nn
from torch.nn import functional as F

from rltrain.config.schema import PrioritizedConfig
from rltrain.engine.diagnostics import distance, dormant_share
from rltrain.experience.prioritized import PrioritizedReplay
from rltrain.experience.uniform import UniformReplay
from rltrain.networks.flat import FlatNetwork
from rltrain.seeding import derive_seed
from rltrain.training.evaluator import CONFIRM_KEY_OFFSET, REPORT_KEY, Evaluator
from rltrain.training.value_check import ValueCheck, beyond_bounds
from rltrain.types import ActionSpec, Episode, ObservationSpec, Transition

COUNTER = env_config("probe_envs:Counter-v0")  # rewards 1 to 5; the first episode of each lane ends, the second is cut
GAMMAS = np.array([0.9, 0.5])


class Oracle:
    """V(s) = s / 100, and a count of the states that it is shown."""

    gammas = GAMMAS

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        return np.zeros(len(obs), np.int64)

    def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
        return obs[:, 0].astype(np.float64) / 100

    def diagnostics(self, obs: np.ndarray, member: int = 0) -> dict[str, float]:
        return {"states": float(len(obs)), "first": float(obs[0, 0])}


def expected(seed: int, gamma: float, key: int, clip: float = np.inf) -> tuple[float, float]:
    values, returns = [], []
    for episode in range(6):  # of three lanes
        rng, _ = seeding.np_random(derive_seed(seed, "evaluation", key, episode))
        start = 1000 * int(rng.integers(1, 10_000))
        got = sum(gamma**t * min(t + 1, clip) for t in range(5))
        values.append(start / 100)
        returns.append(got + (gamma**5 * (start + 5) / 100 if episode >= 3 else 0.0))
    return float(np.mean(values)), float(np.mean(returns))


@pytest.mark.parametrize("clip", [None, 2.0])
def test_they_are_those_of_every_episode_and_member(clip: float | None) -> None:
    evaluator = Evaluator(replace(COUNTER, reward_clip=clip), [3, 4], 6, num_envs=3, period=100, total_steps=[1000] * 2)
    found = evaluator.evaluate_members(Oracle(), 6, {0: 500, 1: 500})
    assert found is not None
    for member, seed in enumerate((3, 4)):
        value, got = expected(seed, GAMMAS[member], 500, clip or np.inf)
        diagnostics = found[member].diagnostics
        assert diagnostics["diagnostics/value"] == pytest.approx(value)
        assert diagnostics["diagnostics/discounted_return"] == pytest.approx(got)
        assert diagnostics["states"] == 2 * 3  # those of the first and the ninth step, of ten
        assert found[member].mean == 15.0


@pytest.mark.parametrize("num_envs", [1, 3])
def test_they_are_those_of_the_episodes_that_count_also_where_the_evaluation_cuts_them(num_envs: int) -> None:
    class Constant(Oracle):
        gammas = np.array([0.999])

        def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
            return np.full(len(obs), 700.0)

    straggler = env_config("probe_envs:Straggler-v0")  # one reward per step; one episode in five never ends
    evaluator = Evaluator(straggler, 0, 100, num_envs=num_envs, period=1_000, total_steps=14_000)
    found = evaluator.evaluate(Constant(), 10, 4_000)
    assert found is not None and 0 < found.cut < len(found.returns) < 10
    lengths = np.array(found.returns)
    got = (1 - 0.999**lengths) / (1 - 0.999) + np.where(lengths == found.cut_at, 0.999**lengths * 700.0, 0.0)
    assert found.diagnostics["diagnostics/discounted_return"] == pytest.approx(got.mean())


def test_a_lost_life_ends_what_is_compared_where_learning_takes_it_for_an_end() -> None:
    """Two environments; the first loses a life with its second step, and its game is over with the fourth."""
    oracle = Oracle()
    oracle.gammas = np.array([0.5])
    check = ValueCheck(oracle, [0], 2)
    both, lost = np.ones(2, bool), np.array([True, False])
    obs = np.array([[100.0], [200.0]])
    check.begin(obs, np.arange(2), both)
    for step in range(1, 5):
        over, ended = lost & (step in (2, 4)), [Episode(0, 0, 4.0, 4)] if step == 4 else []
        none = np.zeros(2, bool)
        made = Transition(obs, np.zeros(2), np.ones(2), obs + 1, over, none, both)
        obs = obs + 1
        check.step(made, obs, ended, both)
    told = check.diagnostics(0, 1)
    assert told["diagnostics/value"] == pytest.approx((1.00 + 1.02) / 2)
    assert told["diagnostics/discounted_return"] == pytest.approx(1.5)
    assert check.diagnostics(0, 0).keys() == {"states", "first"}, "none of its episodes counts"
    check.cut(obs, [1])
    assert check.diagnostics(0, 2)["diagnostics/discounted_return"] == pytest.approx(
        (1.5 + 1.5 + 1.875 + 2.04 / 16) / 3
    )


def test_one_member_alone_has_the_same() -> None:
    together = Evaluator(COUNTER, [3, 4], 6, num_envs=3, period=100).evaluate_members(Oracle(), 6, {1: 500})
    assert together is not None and list(together) == [1]
    assert together[1].diagnostics["diagnostics/value"] == pytest.approx(expected(4, 0.5, 500)[0])


@pytest.mark.parametrize("key", [REPORT_KEY, CONFIRM_KEY_OFFSET + 500])
def test_a_reported_result_is_not_looked_into(key: int) -> None:
    found = Evaluator(COUNTER, [3, 4], 6, num_envs=3, period=100).evaluate_members(Oracle(), 6, {0: key, 1: key})
    assert found is not None and not found[0].diagnostics


def test_what_is_not_finite_is_not_told() -> None:
    class Lost(Oracle):
        def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
            return np.full(len(obs), np.nan)

    found = Evaluator(COUNTER, [3, 4], 6, num_envs=3, period=100).evaluate_members(Lost(), 6, {0: 500})
    assert found is not None and set(found[0].diagnostics) == {"states", "first"}


def test_dormant_units_are_those_that_hardly_answer() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(50, 8)).astype(np.float32)
    dense[:, 2] = 0.0
    dense[:, 5] *= 0.01  # below 0.025 of the mean
    dense[:, 6] *= 0.5
    planes = rng.normal(size=(50, 4, 3, 3)).astype(np.float32)
    planes[:, 1] = 0.0
    assert dormant_share([torch.from_numpy(dense)]) == pytest.approx(2 / 8)
    assert dormant_share([torch.from_numpy(dense), torch.from_numpy(planes)]) == pytest.approx(3 / 12)
    assert dormant_share([torch.zeros(5, 3)]) == 1.0


def test_activations_are_those_of_the_parameters_that_are_given() -> None:
    torch.manual_seed(0)
    network = FlatNetwork(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.device("cpu"))
    other, obs = torch.randn_like(network.params), torch.randn(7, 3)
    weight, bias = other[:15].view(5, 3), other[15:20]
    (found,) = network.activations(other, obs)
    torch.testing.assert_close(found, F.relu(obs @ weight.T + bias))
    assert network.activations(other, obs)[0].shape == (7, 5)  # nothing is left of the first look


def test_the_distance_is_relative_to_the_online_network() -> None:
    params = torch.tensor([3.0, 4.0])
    assert distance(params, params) == 0.0
    assert distance(params, torch.tensor([3.0, 3.0])) == pytest.approx(0.2)


def replays(kind: type[UniformReplay], *config: Any) -> UniformReplay:
    """A replay of 8 rows with two members, of which the second has seen 13 transitions and has the first of three."""
    spaces = ObservationSpec("box", (1,), "float32"), ActionSpec("discrete", (), 2)
    replay = kind(*config, 8, *spaces, torch.device("cpu"), 2)
    for number in range(13):
        column = np.full(1, number, np.float32)
        for member in (0, 1) if number < 3 else (1,):
            obs = column[:, None]
            replay.add(obs, np.zeros(1, np.int64), column, obs, column, members=np.array([member]))
    return replay


def test_the_age_is_that_of_what_is_sampled() -> None:
    replay = replays(UniformReplay)
    assert replay.diagnostics(0) == {"diagnostics/replay_age": 1.0}
    assert replay.diagnostics(1) == {"diagnostics/replay_age": 3.5}
    replay = replays(PrioritizedReplay, PrioritizedConfig(alpha=1.0, beta=0.4, beta_steps=10, eps=0.0))
    assert replay.diagnostics(1) == {"diagnostics/replay_age": 3.5, "diagnostics/priority_share": 1.0}
    # Row 4 has transition 12, the newest; row 5 has transition 5, the oldest.
    rows, errors = torch.tensor([[0, 1], [4, 5]]), torch.tensor([[1.0, 1.0], [7.0, 1.0]])
    replay.feedback(replay.memory, torch.arange(8).expand(2, 8), {"error": torch.zeros(2, 8)})
    replay.feedback(replay.memory, rows, {"error": errors})
    found = replay.diagnostics(1)
    assert found["diagnostics/replay_age"] == pytest.approx((7 * 0 + 1 * 7) / 8)
    assert found["diagnostics/priority_share"] == pytest.approx(8**2 / (8 * (7**2 + 1)))


@pytest.mark.parametrize(
    ("v_min", "v_max", "got", "said"),
    [
        (0.0, 100.0, -99.0, "less than algo.v_min=0"),
        (0.0, 10.0, 60.0, "more than algo.v_max=10"),
        (0.0, 100.0, 100.5, ""),  # the average of cut episodes, which go on with a value, may be a little above
        (None, 20.0, 31.0, "more than algo.v_max=20"),
        (None, 20.0, -1e6, ""),
        (None, None, 1e6, ""),
    ],
)
def test_returns_beyond_what_can_be_learned(v_min: float | None, v_max: float | None, got: float, said: str) -> None:
    config = run_config(dqn_config(v_min=v_min, v_max=v_max))
    found = beyond_bounds(config, {"diagnostics/discounted_return": got})
    assert (said in found) if said else not found
    assert not beyond_bounds(config, {})
