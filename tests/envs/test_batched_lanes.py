"""`env.vectorization=batched` against the same environments one by one: every number, ending, state and refusal."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import pytest

from rltrain.config.schema import EnvConfig
from rltrain.envs.batched import BATCHED_ENVS, history, lanes
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.probe import probe
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RequestError, RunFailed
from rltrain.seeding import derive_seed

IDS = [id for id in BATCHED_ENVS if "/" not in id or (id.endswith("1") and find_spec("minatar") is not None)]


def make(
    id: str, num_envs: int, vectorization: Any = "batched", *, steps: int | None = None, **kwargs: Any
) -> VectorEnv:
    config = EnvConfig(id, kwargs, steps, None, vectorization, None)
    return make_vector_env(config, num_envs, lambda env, number: derive_seed(0, "environment", env, number))


def act(envs: VectorEnv, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Odd lanes of CartPole balance, for episodes of different lengths; all others act at random."""
    if envs.action_spec.kind == "box":
        return rng.normal(size=(envs.num_envs, *envs.action_spec.shape)).astype(np.float32)
    action = rng.integers(0, envs.action_spec.n, envs.num_envs)
    if envs.id.startswith("CartPole"):
        action[1::2] = obs[1::2] @ [0.1, 0.5, 10.0, 2.0] > 0
    return action


def same_step(a: Any, b: Any, rows: np.ndarray) -> None:
    for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "active"):
        first, second = getattr(a[0], name), getattr(b[0], name)
        assert first.dtype == second.dtype, name
        assert first[rows].tobytes() == second[rows].tobytes(), name
    assert a[0].reward.dtype == np.float32
    assert a[1].tobytes() == b[1].tobytes()
    assert a[2] == b[2]


@pytest.mark.parametrize("id", IDS)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_batched_lanes_give_the_numbers_of_single_environments(id: str) -> None:
    envs, alone = make(id, 5, steps=60), make(id, 5, "sync", steps=60)
    obs = envs.reset()
    assert obs.tobytes() == alone.reset().tobytes() and obs.dtype == envs.observation_spec.dtype
    rng = np.random.default_rng(1)
    terminated = truncated = 0
    for step in range(250):
        active = None if step % 3 else rng.random(5) < 0.7
        action = act(envs, obs, rng)
        rows = np.ones(5, bool) if active is None else active
        if active is not None:
            action[~active] = np.nan if action.dtype == np.float32 else 10**12  # nobody may read it
        done = envs.step(action, active)
        same_step(done, alone.step(action, active), rows)
        obs = done[1]
        assert np.isfinite(done[0].reward).all() and not (done[0].terminated | done[0].truncated)[~rows].any()
        terminated += done[0].terminated.sum()
        truncated += done[0].truncated.sum()
    assert truncated >= 5 or id == "MinAtar/Breakout-v1"
    assert terminated >= 10 or not id.startswith("CartPole")
    for name, array in alone.state_dict().items():
        ours = envs.state_dict()[name]
        assert ours.dtype == array.dtype and ours.shape == array.shape
        assert np.array_equal(ours, array), name


def test_an_episode_may_end_and_be_cut_in_the_same_step() -> None:
    kept = []
    for limit in range(8, 14):
        envs, alone = make("CartPole-v1", 8, steps=limit), make("CartPole-v1", 8, "sync", steps=limit)
        envs.reset(), alone.reset()
        for _ in range(limit):
            a, b = (e.step(np.ones(8, np.int64)) for e in (envs, alone))
            same_step(a, b, np.ones(8, bool))
            kept.append(a[0].terminated & a[0].truncated)
    assert np.any(kept)


def test_returned_arrays_are_never_written_again() -> None:
    envs = make("CartPole-v1", 4)
    arrays = [envs.reset()]
    copies: list[np.ndarray] = []
    rng = np.random.default_rng(0)
    for k in range(80):
        t, obs, _ = envs.step(rng.integers(0, 2, 4), None if k % 2 else rng.random(4) < 0.5)
        arrays += [obs, t.obs, t.reward, t.next_obs, t.terminated, t.truncated, t.active]
        if k == 39:
            copies = [a.copy() for a in arrays]
    assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=False))


@pytest.mark.parametrize("id", IDS)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_a_restored_environment_continues_bit_for_bit(id: str) -> None:
    envs, other = make(id, 4, steps=50), make(id, 4, steps=50)
    obs, rng = envs.reset(), np.random.default_rng(2)
    for _ in range(130):
        obs = envs.step(act(envs, obs, rng), rng.random(4) < 0.8)[1]
    state = {name: array.copy() for name, array in envs.state_dict().items()}
    assert len(set(state["episode_length"].tolist())) > 1
    restored, exact = other.load_state_dict(state)
    assert exact
    assert restored.tobytes() == obs.tobytes()
    for _ in range(70):
        action = act(envs, obs, rng)
        done = envs.step(action)
        same_step(done, other.step(action), np.ones(4, bool))
        obs = done[1]
    for name, array in other.state_dict().items():
        assert np.array_equal(array, envs.state_dict()[name]), name


@pytest.mark.parametrize("id", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
def test_either_vectorization_restores_the_other_s_state(id: str) -> None:
    envs, single, back = make(id, 3), make(id, 3, "sync"), make(id, 3)
    obs, rng = envs.reset(), np.random.default_rng(5)
    for _ in range(45):
        obs = envs.step(act(envs, obs, rng), rng.random(3) < 0.7)[1]
    restored, exact = single.load_state_dict(envs.state_dict())
    assert exact and restored.tobytes() == obs.tobytes()
    restored, exact = back.load_state_dict(single.state_dict())
    assert exact and restored.tobytes() == obs.tobytes()


def test_only_the_episode_that_differs_is_abandoned() -> None:
    envs, other, alone = make("CartPole-v1", 5), make("CartPole-v1", 5), make("CartPole-v1", 5, "sync")
    envs.reset()
    for _ in range(5):
        envs.step(np.array([0, 1, 0, 1, 1]))
    state = envs.state_dict()
    state["episode_return"][1] += 1e-9
    state["obs"][2, 3] += 1e-6
    state["episode_length"][3] -= 1
    found = [each.load_state_dict(state) for each in (other, alone)]
    assert found[0][1] is found[1][1] is False
    assert found[0][0].tobytes() == found[1][0].tobytes()
    assert other.state_dict()["episode"].tolist() == [0, 1, 1, 1, 0]
    for name, array in alone.state_dict().items():
        assert np.array_equal(array, other.state_dict()[name]), name


def test_a_replay_that_ends_the_episode_is_abandoned() -> None:
    envs, short = make("MountainCar-v0", 2, steps=50), make("MountainCar-v0", 2, steps=10)
    envs.reset()
    for _ in range(10):
        envs.step(np.array([0, 2]), np.array([True, _ % 2 == 0]))
    assert not short.load_state_dict(envs.state_dict())[1]
    assert short.state_dict()["episode"].tolist() == [1, 0]


def test_a_replay_that_terminates_is_abandoned() -> None:
    envs, other = make("CartPole-v1", 2, steps=400), make("CartPole-v1", 2, steps=400)
    envs.reset()
    for k in range(5):
        obs = envs.step(np.array([1, k % 2]))[1]
    state = envs.state_dict()
    at_end = {"actions": np.concatenate([np.ones(40, np.int64), state["actions"][5:]])}
    at_end["action_count"] = at_end["episode_length"] = np.array([40, 5])
    at_end["episode_return"] = np.array([40.0, 5.0])
    lane = make("CartPole-v1", 1, steps=400)
    lane.reset()
    state_after = np.stack([*lane._group._env.start_state(np.random.Generator(np.random.PCG64(lane._group._seed[0])))])
    for _ in range(40):  # past the end of its episode
        state_after = lane._group._env.step(np, state_after[:, None], np.ones(1))[0][:, 0]
    at_end["obs"] = np.stack([state_after.astype(np.float32), obs[1]])
    assert not other.load_state_dict({**state, **at_end})[1]
    assert other.state_dict()["episode"].tolist() == [1, 0]


def test_the_first_observation_is_gymnasium_s() -> None:
    """Gymnasium rounds Acrobot's in another way than those after steps."""
    env = gymnasium.make("Acrobot-v1")
    for lane, obs in enumerate(make("Acrobot-v1", 2_000).reset()):
        assert np.array_equal(obs, env.reset(seed=derive_seed(0, "environment", lane, 0))[0])


def test_an_idle_lane_shows_what_it_showed() -> None:
    envs = make("Acrobot-v1", 2_000)
    obs = envs.reset()
    after = envs.step(np.zeros(2_000, np.int64), np.arange(2_000) == 0)[1]
    assert after[1:].tobytes() == obs[1:].tobytes()


def test_an_episode_with_too_many_actions_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_RECORDED_ACTIONS", 4)
    envs, other = make("Pendulum-v1", 2), make("Pendulum-v1", 2)
    envs.reset()
    for active in ([True, True], [True, True], [True, True], [True, True], [True, False], [True, False]):
        envs.step(np.ones((2, 1)), np.array(active))
    state = envs.state_dict()
    assert state["action_count"].tolist() == [-1, 4]
    assert not other.load_state_dict(state)[1]
    assert other.state_dict()["episode"].tolist() == [1, 0]


def test_the_history_grows_with_the_longest_episode() -> None:
    envs, other = make("Pendulum-v1", 2, steps=2_000), make("Pendulum-v1", 2, steps=2_000)
    envs.reset()
    rng = np.random.default_rng(0)
    for k in range(1_100):
        envs.step(rng.normal(size=(2, 1)), np.array([True, k % 2 == 0]))
    obs, exact = other.load_state_dict(envs.state_dict())
    assert exact
    assert np.array_equal(obs, envs.state_dict()["obs"])


def test_a_replay_that_takes_too_long_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    envs, other = make("MountainCar-v0", 2), make("MountainCar-v0", 2)
    envs.reset()
    for active in ([True, True], [True, False]):
        envs.step(np.ones(2, np.int64), np.array(active))
    monkeypatch.setattr(lanes, "MAX_REPLAY_SECONDS", -1.0)
    assert not other.load_state_dict(envs.state_dict())[1]
    assert other.state_dict()["episode"].tolist() == [1, 0]


class Drift:
    """A twin for CartPole's spaces whose numbers go wrong in lane 1 at its third step."""

    what = "obs"

    def start_state(self, rng: np.random.Generator) -> np.ndarray:
        return np.full(4, np.nan if self.what == "start" else 0.0)

    def step(self, xp: Any, state: Any, action: Any) -> Any:
        wrong = (state[0] == 2) & (xp.arange(state.shape[1]) == 1)
        if self.what == "raises":
            raise ValueError("the left wheel\ncame off")
        after = xp.where(wrong, np.inf, state + 1) if self.what == "obs" else state + 1
        reward = xp.where(wrong, {"reward": np.nan, "large": 1e39}.get(self.what, 1.0), 1.0)
        return after, reward[:2] if self.what == "shape" else reward, state[0] > 5

    def observe(self, xp: Any, state: Any) -> Any:
        return state[:2] if self.what == "obs shape" else state


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("obs", r"environment 1 failed in step 3 of the episode with seed SEED: observation is not finite: \[inf inf"),
        ("reward", "environment 1 failed in step 3 of the episode with seed SEED: reward nan is not a finite float32"),
        ("large", "environment 1 failed in step 3 of the episode with seed SEED: reward inf is not a finite float32"),
        ("start", r"environment 0 failed in the reset of .*: observation is not finite: \[nan"),
        ("raises", "its batched twin failed: ValueError: the left wheel came off"),
        ("shape", r"its batched twin gave reward of shape \(2,\), not \(3,\)"),
        ("obs shape", r"its batched twin gave obs of shape \(2, 3\), not \(4, 3\)"),
    ],
)
def test_a_fault_names_environment_index_and_step(monkeypatch: pytest.MonkeyPatch, what: str, text: str) -> None:
    monkeypatch.setitem(BATCHED_ENVS, "CartPole-v1", Drift)
    monkeypatch.setattr(Drift, "what", what)
    envs = make("CartPole-v1", 3)

    def play() -> None:
        envs.reset()
        for _ in range(3):
            envs.step(np.zeros(3, np.int64))

    with pytest.raises(RunFailed, match=text.replace("SEED", str(derive_seed(0, "environment", 1, 0)))) as caught:
        play()
    assert str(caught.value).startswith("CartPole-v1: ")
    assert "\n" not in str(caught.value)
    envs.close()
    envs.close()


def test_the_twin_of_a_discrete_environment_counts_as_its_space_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted:
        """probe_envs:Shifted-v0: the action's remainder, in a space that starts at -2."""

        def start_state(self, rng: np.random.Generator) -> np.ndarray:
            return np.array(1)

        def step(self, xp: Any, state: Any, action: Any) -> Any:
            return (action - 7) % 4 - 2, 1.0 * action, state != state

        def observe(self, xp: Any, state: Any) -> Any:
            return state

    monkeypatch.setitem(BATCHED_ENVS, "Shifted-v0", Shifted)
    envs = make("probe_envs:Shifted-v0", 3)
    assert envs.reset().tolist() == [3, 3, 3]
    transition, obs, _ = envs.step(np.array([0, 1, 2]))
    assert obs.dtype == np.int64
    assert obs.tolist() == [2, 3, 0]
    assert transition.reward.tolist() == [5.0, 6.0, 7.0]


@pytest.mark.parametrize("bad", [-1, 2])
@pytest.mark.parametrize("num_envs", [2, 40])
def test_an_action_outside_its_space_stops_the_run(bad: int, num_envs: int) -> None:
    envs = make("CartPole-v1", num_envs)
    envs.reset()
    action = np.zeros(num_envs, np.int64)
    action[1] = bad
    with pytest.raises(RunFailed, match=r"outside 0\.\.1"):
        envs.step(action)
    envs.step(action, np.arange(num_envs) != 1)


@pytest.mark.parametrize(
    ("id", "kwargs", "text"),
    [
        (
            "FrozenLake-v1",
            {},
            "FrozenLake-v1 has no batched twin; use sync or async; those that have one: Acrobot-v1, ",
        ),
        ("CartPole-v1", {"render_mode": "rgb_array"}, "env.kwargs.render_mode: the batched twin of CartPole-v1 takes "),
        ("Acrobot-v1", {"render_mode": "rgb_array"}, "the batched twin of Acrobot-v1 takes no kwargs; use env.vector"),
        ("CartPole-v1", {"gravity": 1}, "unexpected keyword argument 'gravity'"),
    ],
)
def test_what_has_no_twin_is_refused_in_one_line(id: str, kwargs: dict[str, Any], text: str) -> None:
    for build in (lambda: make(id, 2, **kwargs), lambda: probe(EnvConfig(id, kwargs, None, None, "batched", None))):
        with pytest.raises(RequestError, match=text) as caught:
            build()
        assert "\n" not in str(caught.value)


def test_kwargs_reach_the_twin() -> None:
    for id, kwargs in (("CartPole-v1", {"sutton_barto_reward": True}), ("Pendulum-v1", {"g": 1.6})):
        envs, alone = make(id, 3, **kwargs), make(id, 3, "sync", **kwargs)
        envs.reset(), alone.reset()
        for _ in range(30):
            action = np.ones(3, np.int64) if id == "CartPole-v1" else np.ones((3, 1), np.float32)
            same_step(envs.step(action), alone.step(action), np.ones(3, bool))
