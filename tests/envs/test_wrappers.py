"""`env.wrappers` beside naive implementations: all that was seen is kept, and every number is computed from scratch."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from halves import often
from small_runs import env_config

from rltrain.config.wrappers import WRAPPER_CONFIGS
from rltrain.envs.atari import LIFE_LOST
from rltrain.envs.lanes import Lanes
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.vector import VectorEnv
from rltrain.envs.wrappers import WRAPPERS, WrapperContext, make_wrappers
from rltrain.envs.wrappers.computed import computes_in_torch
from rltrain.envs.wrappers.simple import ScaleReward
from rltrain.errors import CheckpointError, RequestError
from rltrain.maths.images import image_of
from rltrain.seeding import derive_seed
from rltrain.types import ObservationSpec


def wrapper(name: str, **arguments: Any) -> Any:
    return WRAPPER_CONFIGS[name](name, **arguments)


def make(id: str, num_envs: int, *wrappers: str | Any, limit: int | None = None, members: int = 1, frozen: bool = False,
         vectorization: str = "sync", seeds: tuple[int, ...] = (0, 1), **kwargs: Any) -> VectorEnv:  # fmt: skip
    """Member m has the seed seeds[m]."""
    listed = tuple(wrapper(w) if isinstance(w, str) else w for w in wrappers)
    config = replace(env_config(id, **kwargs), max_episode_steps=limit, wrappers=listed, vectorization=vectorization)
    each = num_envs // members

    def seed(env: int, number: int) -> int:
        return derive_seed(seeds[env // each], "environment", env % each, number)

    return make_vector_env(config, num_envs, seed, members, frozen)


def drive(envs: VectorEnv, steps: int, idle: float = 0.3, seed: int = 0) -> Any:
    """Steps with random actions and idle environments; yields (active, transition, obs, episodes)."""
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        if envs.action_spec.kind == "discrete":
            action = generator.integers(0, envs.action_spec.n, envs.num_envs)
        else:
            action = generator.normal(size=(envs.num_envs, *envs.action_spec.shape)).astype(np.float32)
        active = generator.random(envs.num_envs) >= idle
        yield active, *envs.step(action, active)


def test_the_registry_has_a_config_for_each() -> None:
    assert WRAPPERS.keys() == WRAPPER_CONFIGS.keys()


FORMULAS = [name for name, wrapper in WRAPPERS.items() if computes_in_torch(wrapper)]


def test_all_but_those_that_stack_or_play_a_game_are_formulas() -> None:
    assert set(WRAPPERS) - set(FORMULAS) == {"atari", "frame_stack"}


@pytest.mark.parametrize(("num_envs", "members"), often(product((1, 2, 5), (1, 3)), [(2, 3), (5, 1)]))
@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_the_same_in_torch_bit_for_bit(name: str, num_envs: int, members: int) -> None:
    """What it gives, and what it keeps, with lanes that idle and lanes that begin. Sums over more than a few
    environments are made in another order."""
    rtol = 1e-6 if name.startswith("normalize") and num_envs > 2 else 0.0
    spec = ObservationSpec("box", (4,), "float32", 0, np.full(4, -2.0), np.full(4, 3.0))
    context = WrapperContext("id", num_envs, members, 100, frozen=False)
    made = make_wrappers([wrapper(name)], spec, context)
    rng, lanes = np.random.default_rng(0), num_envs * members
    kept = {key: array.copy() for key, array in made.kept().items()}
    tensors = {key: torch.from_numpy(array.copy()) for key, array in kept.items()}
    for _ in range(60):
        obs, reward = (rng.normal(1.0, 2.0, (lanes, *shape)).astype(np.float32) for shape in ((4,), ()))
        active, ended = (rng.random(lanes) < share for share in (0.7, 0.2))
        for what, x, mask in (("rewarded", reward, active), ("stepped", obs, active), ("begun", obs, ended)):
            found, kept = getattr(made, what)(np, kept, x, mask)
            there, tensors = getattr(made, what)(torch, tensors, torch.from_numpy(x), torch.from_numpy(mask))
            for array, tensor in ((found, there), *((kept[key], tensors[key]) for key in kept)):
                assert str(tensor.dtype) == f"torch.{array.dtype}"
                np.testing.assert_allclose(tensor.numpy(), array, rtol=rtol, atol=rtol)
    assert kept.keys() == made.kept().keys()


def test_a_subclass_is_not_computed_in_the_program_unless_it_says_so() -> None:
    class Doubled(ScaleReward):
        def reward(self, reward: np.ndarray, lanes: np.ndarray) -> np.ndarray:
            return 2 * super().reward(reward, lanes)

    assert computes_in_torch(ScaleReward) and not computes_in_torch(Doubled)


def test_observations_are_normalised_over_all_that_was_seen_by_all_environments() -> None:
    envs, bare = make("probe_envs:Walk-v0", 3, "normalize_observation"), make("probe_envs:Walk-v0", 3)
    shown, raw = envs.reset(), bare.reset()
    seen = [*raw.astype(np.float64)]

    def normal(x: np.ndarray) -> np.ndarray:
        return (x - np.mean(seen, 0)) / np.std(seen, 0)

    np.testing.assert_allclose(shown, normal(raw), rtol=1e-4, atol=1e-6)
    ended = 0
    for (active, step, obs, episodes), (_, bare_step, bare_obs, _) in zip(
        drive(envs, 150), drive(bare, 150), strict=True
    ):
        before, shown = shown, obs
        assert np.array_equal(step.obs, before)  # as it was shown then, not normalised again
        seen += [*bare_step.next_obs[active].astype(np.float64)]
        np.testing.assert_allclose(step.next_obs[active], normal(bare_step.next_obs)[active], rtol=1e-3, atol=1e-5)
        begun = [episode.env for episode in episodes]
        going = active & ~np.isin(np.arange(3), begun)
        assert np.array_equal(obs[going], step.next_obs[going])
        assert np.array_equal(obs[~active], before[~active])
        seen += [*bare_obs[begun].astype(np.float64)]
        np.testing.assert_allclose(obs[begun], normal(bare_obs)[begun], rtol=1e-3, atol=1e-5)
        ended += len(begun)
    assert ended > 3
    assert envs.statistics()["statistics.normalize_observation.count"].tolist() == [len(seen)]


def test_what_does_not_vary_is_only_centred() -> None:
    envs = make("probe_envs:FixedLength-v0", 2, "normalize_observation", "normalize_reward")
    assert envs.reset().tolist() == [[0.0], [0.0]]
    envs = make("probe_envs:Bandit-v0", 1, "normalize_reward")
    envs.reset()
    for _ in range(4):  # one-step episodes of a constant reward: no deviation to divide by
        assert envs.step(np.ones(1, np.int64))[0].reward.tolist() == [1.0]


@pytest.mark.parametrize("clip", [None, 0.8])
def test_rewards_are_scaled_by_the_deviation_of_the_discounted_return(clip: float | None) -> None:
    bare = make("probe_envs:Walk-v0", 3)
    envs = make("probe_envs:Walk-v0", 3, wrapper("normalize_reward", gamma=0.9))
    envs.reward_clip = clip
    envs.reset(), bare.reset()
    sums, seen = np.zeros(3), []
    for (active, step, _, episodes), (_, plain, _, plain_episodes) in zip(
        drive(envs, 120), drive(bare, 120), strict=True
    ):
        sums[active] = 0.9 * sums[active] + plain.reward[active]
        seen += [*sums[active]]
        expected = plain.reward / np.std(seen) if len(seen) > 1 else plain.reward
        expected = expected if clip is None else np.clip(expected, -clip, clip)
        np.testing.assert_allclose(step.reward[active], expected[active], rtol=1e-4)
        sums[(step.terminated | step.truncated) & active] = 0.0
        assert episodes == plain_episodes  # returns are the environment's own


def test_scaled_rewards_train_and_unscaled_ones_are_reported() -> None:
    envs = make("probe_envs:FixedLength-v0", 2, wrapper("scale_reward", factor=0.5))
    envs.reset()
    for _ in range(7):
        transition, _, episodes = envs.step(np.zeros(2, np.int64))
        assert transition.reward.tolist() == [1.5, 1.5]
    assert [episode.episode_return for episode in episodes] == [21.0, 21.0]


def test_an_evaluation_compares_values_with_rewards_in_the_units_of_learning() -> None:
    training = make("probe_envs:Walk-v0", 2, "normalize_reward")
    training.reset()
    for _ in drive(training, 50):
        pass
    given = training.statistics()
    bare, frozen = make("probe_envs:Walk-v0", 3), make("probe_envs:Walk-v0", 3, "normalize_reward", frozen=True)
    frozen.load_statistics(given)
    frozen.reset(), bare.reset()
    m2, count = (given[f"statistics.normalize_reward.{key}"][0] for key in ("m2", "count"))
    for (active, step, _, episodes), (_, plain, _, plain_episodes) in zip(
        drive(frozen, 30), drive(bare, 30), strict=True
    ):
        np.testing.assert_allclose(step.reward[active], plain.reward[active] / np.sqrt(m2 / count), rtol=1e-5)
        assert episodes == plain_episodes
    assert abs(m2 / count - 1) > 0.1, "otherwise unscaled rewards would do as well"


@pytest.mark.parametrize("padding", ["reset", "zero"])
def test_a_stack_holds_the_last_observations_of_its_episode_only(padding: str) -> None:
    envs = make("probe_envs:Counter-v0", 3, wrapper("frame_stack", size=3, padding=padding), length=5)
    assert envs.observation_spec.shape == (3, 1)
    obs = envs.reset()
    history = [[row[-1, 0]] for row in obs]

    def expected(lane: int) -> list[float]:
        fill = history[lane][0] if padding == "reset" else 0.0
        return ([fill] * 3 + history[lane])[-3:]

    for active, step, obs, episodes in drive(envs, 60):
        for lane in np.flatnonzero(active):
            history[lane].append(history[lane][-1] + 1)
            assert step.next_obs[lane, :, 0].tolist() == expected(lane)
        for episode in episodes:
            history[episode.env] = [obs[episode.env, -1, 0]]
        assert [row[:, 0].tolist() for row in obs] == [expected(lane) for lane in range(3)]


@pytest.mark.parametrize(
    ("id", "spec"),
    [("Images-v0", ((3, 4, 8), "uint8")), ("Chain-v0", ((4, 11), "float32")), ("Votes-v0", ((4, 9), "float32"))],
)
def test_stacks_of_images_states_and_parts(id: str, spec: tuple[Any, str]) -> None:
    envs, bare = make(f"probe_envs:{id}", 2, "frame_stack"), make(f"probe_envs:{id}", 2)
    obs, first = envs.reset(), bare.reset()
    assert (envs.observation_spec.shape, envs.observation_spec.dtype) == spec
    assert (obs.shape[1:], str(obs.dtype)) == spec
    if id == "Images-v0":
        obs = envs.step(np.zeros(2, np.int64))[1]
        assert np.unique(obs[..., :6]).tolist() == [200] and np.unique(obs[..., 6:]).tolist() == [201]
    if id == "Chain-v0":
        assert obs.tolist() == [[np.eye(11)[first[0]].tolist()] * 4] * 2


@pytest.mark.parametrize(
    ("frame", "size", "shown", "axis"),
    [
        ((10, 12, 4), 4, (10, 12, 16), 2), ((7, 7, 20), 2, (7, 7, 40), 2), ((20, 7, 7), 2, (40, 7, 7), 0),
        ((3, 16, 20), 6, (18, 16, 20), 0), ((10, 10, 10), 4, (10, 10, 40), 2), ((84, 84), 4, (4, 84, 84), 0),
        ((3, 20), 16, (16, 3, 20), 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", ["", "normalize_observation", "rescale_observation", "frame_stack"])
def test_the_frames_of_images_are_the_channels_of_a_convolution(
    frame: tuple[int, ...], size: int, shown: tuple[int, ...], axis: int, after: str
) -> None:
    """Whatever the stacked shape looks like."""
    bounds = np.zeros(frame), np.ones(frame)
    context, spec = WrapperContext("id", 1, 1, None, frozen=False), ObservationSpec("box", frame, "float32", 0, *bounds)
    stack = wrapper("frame_stack", size=size)
    first = [wrapper(after)] if after == "rescale_observation" else []
    last = [wrapper(after, **({"size": 3} if after == "frame_stack" else {}))] if after and not first else []
    spec = make_wrappers([*first, stack, *last], spec, context).spec
    channels = shown[axis] * (3 if after == "frame_stack" else 1)
    assert spec.shape == (*shown[:axis], channels, *shown[axis + 1 :])
    image = image_of(spec)
    assert (image.channels, image.channel_axis) == (channels, axis)
    assert image_of(spec, "last" if axis else "first") == image
    with pytest.raises(RequestError, match=r"network\.channel_axis=\w+: frame_stack made"):
        image_of(spec, "first" if axis else "last")


@pytest.mark.parametrize("id", ["FixedLength-v0", "Chain-v0"])
def test_the_time_that_is_left_goes_from_one_to_zero(id: str) -> None:
    """Cut after 4 steps: 0 is what the successor of the last step shows, 1 the first of an episode."""
    envs = make(f"probe_envs:{id}", 2, "time_aware", limit=4)
    obs = envs.reset()
    assert envs.observation_spec.shape == ({"FixedLength-v0": 2, "Chain-v0": 12}[id],)
    time = np.zeros(2)
    for active, step, obs, episodes in drive(envs, 40, idle=0.2):
        time[active] += 1
        assert step.next_obs[active, -1].tolist() == (1 - time[active] / 4).tolist()
        assert np.array_equal(step.truncated[active], (time == 4)[active]) or id == "Chain-v0"
        time[[episode.env for episode in episodes]] = 0
        assert obs[:, -1].tolist() == (1 - time / 4).tolist()


@pytest.mark.parametrize("vectorization", ["sync", "batched"])
def test_the_bounds_of_an_observation_become_those_of_the_wrapper(vectorization: str) -> None:
    scale = wrapper("rescale_observation", low=0.0, high=10.0)
    envs, bare = (make("MountainCar-v0", 2, *w, vectorization=vectorization) for w in ((scale,), ()))
    envs.reset(), bare.reset()
    for (active, step, obs, _), (_, raw, raw_obs, _) in zip(drive(envs, 30), drive(bare, 30), strict=True):
        for shown, plain in ((obs, raw_obs), (step.next_obs[active], raw.next_obs[active])):
            assert shown.dtype == np.float32
            position, speed = plain.astype(np.float64).T  # within -1.2..0.6 and -0.07..0.07
            assert shown[:, 0] == pytest.approx((position + 1.2) / 1.8 * 10, abs=1e-5)
            assert shown[:, 1] == pytest.approx((speed + 0.07) / 0.14 * 10, abs=1e-5)


def test_clipping_gives_bounds_that_can_be_rescaled() -> None:
    clip = wrapper("clip_observation", low=-2.0, high=2.0)
    envs, clipped = make("CartPole-v1", 2, clip, "rescale_observation"), make("CartPole-v1", 2, clip)
    high = np.array([2.0, 2.0, 24 * np.pi / 180, 2.0])  # the angle's own bound is the smaller one
    assert envs.reset() == pytest.approx(clipped.reset() / high, rel=1e-5)


def test_wrappers_apply_in_the_order_in_which_they_are_listed() -> None:
    clip = wrapper("clip_observation", low=-0.01, high=0.01)
    inner = make("CartPole-v1", 1, clip, "normalize_observation", wrapper("frame_stack", size=2))
    outer = make("CartPole-v1", 1, "normalize_observation", wrapper("frame_stack", size=2), clip)
    for envs, largest in ((inner, 0.5), (outer, 0.011)):
        obs = envs.reset()
        for _, _, obs, _ in drive(envs, 20, idle=0.0):
            assert (abs(obs).max() <= largest) == (envs is outer)
        assert obs.shape == (1, 2, 4)
    count = inner.statistics()["statistics.normalize_observation.count"]
    assert count[0] >= 21  # single frames, before they are stacked
    assert inner.statistics()["statistics.normalize_observation.mean"].shape == (1, 4)


ALL = ("time_aware", "normalize_observation", wrapper("frame_stack", size=3), "normalize_reward", "scale_reward")


def assert_same(a: Any, b: Any) -> None:
    (active, one, obs_a, done_a), (_, other, obs_b, done_b) = a, b
    assert obs_a.tobytes() == obs_b.tobytes() and done_a == done_b
    for name in ("obs", "reward", "next_obs", "terminated", "truncated"):
        assert getattr(one, name)[active].tobytes() == getattr(other, name)[active].tobytes(), name


@pytest.mark.parametrize(
    ("id", "num_envs", "vectorization"),
    [("probe_envs:Walk-v0", 1, "sync"), ("probe_envs:Walk-v0", 3, "sync"), ("probe_envs:Walk-v0", 3, "async"),
     ("CartPole-v1", 3, "batched")],
)  # fmt: skip
def test_what_is_restored_continues_bit_for_bit(id: str, num_envs: int, vectorization: str) -> None:
    envs, other = (make(id, num_envs, *ALL, limit=30, vectorization=v) for v in (vectorization, vectorization))
    try:
        envs.reset()
        for _ in drive(envs, 47):
            pass
        state = {name: array.copy() for name, array in envs.state_dict().items()}
        obs, exact = other.load_state_dict(state)
        assert exact and obs.tobytes() == envs._obs.tobytes()
        assert {k: v.tobytes() for k, v in other.state_dict().items()} == {k: v.tobytes() for k, v in state.items()}
        for a, b in zip(drive(envs, 80, seed=1), drive(other, 80, seed=1), strict=True):
            assert_same(a, b)
    finally:
        envs.close(), other.close()


def test_workers_and_batches_give_the_numbers_of_one_process() -> None:
    for id, vectorization in (("probe_envs:Walk-v0", "async"), ("CartPole-v1", "batched")):
        envs, alone = (make(id, 3, *ALL, limit=30, vectorization=v) for v in (vectorization, "sync"))
        try:
            assert np.array_equal(envs.reset(), alone.reset())
            for a, b in zip(drive(envs, 60), drive(alone, 60), strict=True):
                assert_same(a, b)
        finally:
            envs.close()


def test_members_have_statistics_of_their_own() -> None:
    both = make("probe_envs:Walk-v0", 4, *ALL, limit=30, members=2)
    alone = [make("probe_envs:Walk-v0", 2, *ALL, limit=30, seeds=(seed,)) for seed in (0, 1)]
    parts = [slice(0, 2), slice(2, 4)]
    obs = both.reset()
    for envs, part in zip(alone, parts, strict=True):
        assert envs.reset().tobytes() == obs[part].tobytes()
    generator = np.random.default_rng(0)
    for _ in range(80):
        action, active = generator.normal(size=(4, 1)).astype(np.float32), generator.random(4) < 0.7
        transition, obs, _ = both.step(action, active)
        for envs, part in zip(alone, parts, strict=True):
            own, own_obs, _ = envs.step(action[part], active[part])
            assert own_obs.tobytes() == obs[part].tobytes()
            assert own.reward[active[part]].tobytes() == transition.reward[part][active[part]].tobytes()
    for envs, part in zip(alone, parts, strict=True):
        own = envs.state_dict()
        assert {k: v.tobytes() for k, v in both.state_dict(part).items()} == {k: v.tobytes() for k, v in own.items()}


def test_frozen_statistics_are_used_and_stay_as_they_are() -> None:
    training, evaluation = (
        make("probe_envs:Walk-v0", 2, *ALL, limit=30),
        make("probe_envs:Walk-v0", 3, *ALL, limit=30, frozen=True),
    )
    bare = make("probe_envs:Walk-v0", 3, "time_aware", limit=30)
    training.reset()
    for _ in drive(training, 50):
        pass
    given = training.statistics()
    evaluation.load_statistics(given)
    shown, raw = evaluation.reset(), bare.reset()
    for _ in range(3):
        for _ in drive(evaluation, 20):
            pass
        shown = evaluation.reset()
        mean, m2, count = (given[f"statistics.normalize_observation.{key}"][0] for key in ("mean", "m2", "count"))
        np.testing.assert_allclose(shown[:, -1], (raw - mean) / np.sqrt(m2 / count), rtol=1e-4)
        assert {k: v.tobytes() for k, v in evaluation.statistics().items()} == {
            k: v.tobytes() for k, v in given.items()
        }
    assert training.statistics().keys() == given.keys()


def test_an_abandoned_episode_leaves_nothing_in_what_follows() -> None:
    envs, other = (make("probe_envs:Unrepeatable-v0", 2, "frame_stack", "normalize_reward") for _ in range(2))
    envs.reset()
    for _ in drive(envs, 9, idle=0.0):
        pass
    obs, exact = other.load_state_dict(envs.state_dict())
    assert not exact
    assert (obs == obs[:, -1:]).all()  # four times the first observation of the new episode
    assert other.state_dict()["memory.normalize_reward.discounted"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("id", "wrappers", "text"),
    [
        ("FixedLength-v0", ["time_aware"], "time_aware needs a time limit, .* env.max_episode_steps=N sets one"),
        ("Images-v0", ["time_aware"], r"time_aware appends a number to a vector, .* uint8 of shape \(3, 4, 2\)"),
        (
            "Chain-v0",
            ["normalize_observation"],
            "normalize_observation has nothing to do: Discrete .* are one-hot",
        ),
        ("Images-v0", ["clip_observation"], "clip_observation has nothing to clip"),
        ("Images-v0", ["rescale_observation"], "rescale_observation has nothing to do: .* uint8 .* as 0 to 1"),
        ("Chain-v0", ["rescale_observation"], "rescale_observation has nothing to do: Discrete"),
        ("Chain-v0", ["frame_stack", "rescale_observation"], r"none are known of .* \(4, 11\); .* list it first"),
        ("Walk-v0", ["rescale_observation"], r"of number \[0\] are -inf and inf; normalize_observation needs none"),
        ("Chain-v0", ["frame_stack", "time_aware"], r"float32 of shape \(4, 11\)"),
    ],
)
def test_a_wrapper_that_does_not_fit_is_refused_in_one_line(id: str, wrappers: list[str], text: str) -> None:
    limit = None if wrappers == ["time_aware"] and id == "FixedLength-v0" else 10
    with pytest.raises(RequestError, match=text) as caught:
        make(f"probe_envs:{id}", 2, *wrappers, limit=limit)
    assert "\n" not in str(caught.value) and "env.wrappers" in str(caught.value)


def test_a_strangers_statistics_are_looked_at() -> None:
    envs = make("probe_envs:Walk-v0", 2, *ALL, limit=30)
    envs.reset()
    state = envs.state_dict()
    mean, count = (f"statistics.normalize_observation.{name}" for name in ("mean", "count"))
    for changes, text in (
        ({mean: state[mean][:, :1]}, "expected float64"),
        ({mean: state[mean].astype(np.float32)}, "float32"),
        ({mean: state[mean] * np.nan}, "no run can have written"),
        ({count: -state[count]}, "no run can have written"),
        ({"memory.frame_stack.frames": np.zeros(3)}, "frames"),
        ({"wrapped_obs": state["wrapped_obs"][:1]}, "wrapped_obs"),
        ({count: [1.0]}, "missing"),
    ):
        with pytest.raises(CheckpointError, match=text):
            envs.load_state_dict({**state, **changes})
    with pytest.raises(CheckpointError, match="missing"):
        make("probe_envs:Walk-v0", 1, "normalize_observation", frozen=True).load_statistics({})


def test_atari_is_for_atari_games_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="atari is for games of the Arcade Learning Environment, not CartPole-v1"):
        make("CartPole-v1", 1, "atari")
    pytest.importorskip("ale_py")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RequestError, match=r"needs OpenCV, .*pip install 'rltrain\[atari\]'"):
        make("ALE/Breakout-v5", 1, "atari")


class Game(gymnasium.Env[Any, Any]):
    """Three lives, of which one is lost after every 4 steps of reward 1; counts the steps of its episode."""

    tells_life_loss = True

    observation_space = gymnasium.spaces.Box(0, 100, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t == 12, False, {LIFE_LOST: self.t % 4 == 0}


def test_a_lost_life_ends_what_is_learned_and_not_the_episode() -> None:
    lanes = Lanes([Game() for _ in range(2)], 0, "Game")
    lanes.reset([0, 0])
    for step in range(1, 25):
        done = lanes.step(np.zeros(2, np.int64), None, [0, 0])
        t = (step - 1) % 12 + 1
        assert done.terminated.tolist() == [t % 4 == 0] * 2
        assert done.next_obs.tolist() == [[t]] * 2  # the game went on, it was not begun anew
        assert [(f.episode_return, f.length) for f in done.finished] == ([(12.0, 12)] * 2 if t == 12 else [])


@pytest.mark.parametrize("limit", [8, 10])
def test_a_life_lost_in_the_step_of_the_time_limit_is_an_end(limit: int) -> None:
    lanes = Lanes([gymnasium.wrappers.TimeLimit(Game(), limit)], 0, "Game")
    lanes.reset([0])
    for step in range(1, 2 * limit + 1):
        done = lanes.step(np.zeros(1, np.int64), None, [0])
        t = (step - 1) % limit + 1
        assert (done.terminated.tolist(), done.truncated.tolist()) == ([t % 4 == 0], [t == limit])
        assert [f.length for f in done.finished] == [limit] * (t == limit)


def test_a_game_that_skips_frames_itself_is_refused() -> None:
    pytest.importorskip("ale_py")
    with pytest.raises(RequestError, match=r"frameskip=4: .* must be 1"):
        make("ALE/Breakout-v5", 1, "atari", frameskip=4)
