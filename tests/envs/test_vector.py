import numpy as np
import pytest

from rltrain.config.schema import EnvConfig
from rltrain.envs import lanes
from rltrain.envs.choice import random_actions
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.vector import VectorEnv
from rltrain.errors import CheckpointError, RequestError, RunFailed
from rltrain.seeding import derive_seed


def make(id: str, num_envs: int = 1, *, seed: int = 0, clip: float | None = None, steps: int | None = None, **kwargs):
    config = EnvConfig(id, kwargs, steps, clip, "sync", None)
    return make_vector_env(config, num_envs, lambda env, number: derive_seed(seed, "environment", env, number))


def actions(envs: VectorEnv, generator: np.random.Generator) -> np.ndarray:
    return random_actions(envs.action_spec, envs.num_envs, generator)


def test_next_obs_is_the_true_successor_and_no_reset_step_is_stored():
    envs = make("probe_envs:Counter-v0", 3, length=5)
    obs = envs.reset()
    for step in range(1, 31):
        before = obs.copy()
        transition, obs, episodes = envs.step(np.zeros(3, np.int64))
        assert np.array_equal(transition.obs, before)
        assert np.array_equal(transition.next_obs, before + 1)  # also where the episode ends
        t = (step - 1) % 5 + 1
        assert np.array_equal(transition.reward, np.full(3, t))
        ended = t == 5
        odd = (step - 1) // 5 % 2 == 0
        assert transition.terminated.tolist() == [ended and odd] * 3
        assert transition.truncated.tolist() == [ended and not odd] * 3
        assert (obs % 1000 == (0 if ended else t)).all()
        assert [(e.env, e.number, e.episode_return, e.length) for e in episodes] == (
            [(i, step // 5 - 1, 15.0, 5) for i in range(3)] if ended else []
        )


def test_returned_arrays_are_never_written_again():
    envs = make("probe_envs:Counter-v0", 2, length=3)
    kept, copies = [], []
    arrays = [envs.reset()]
    for _ in range(8):
        transition, obs, _ = envs.step(np.array([0, 1]))
        arrays += [obs, transition.obs, transition.reward, transition.next_obs, transition.terminated]
    kept, copies = arrays, [a.copy() for a in arrays]
    for k in range(8):
        envs.step(np.array([0, 1]), np.array([k % 2 == 0, True]))
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_idle_environments_are_not_touched():
    envs, alone = make("probe_envs:Walk-v0", 3), make("probe_envs:Walk-v0", 3)
    obs, obs_alone = envs.reset(), alone.reset()
    generator = np.random.default_rng(0)
    returns: dict[int, list[float]] = {0: [], 1: [], 2: []}
    expected: dict[int, list[float]] = {0: [], 1: [], 2: []}
    queue: list[list[np.ndarray]] = [[], [], []]
    for _ in range(400):
        active = generator.random(3) < 0.5
        action = actions(envs, generator)
        action[~active] = np.nan  # nobody may read it
        transition, after, episodes = envs.step(action, active)
        assert np.array_equal(after[~active], obs[~active])
        assert np.array_equal(transition.active, active)
        obs = after
        for i in np.flatnonzero(active):
            queue[i].append(action[i])
        for e in episodes:
            returns[e.env].append(e.episode_return)
    for k in range(max(map(len, queue))):
        active = np.array([k < len(q) for q in queue])
        action = np.stack([q[k] if k < len(q) else np.zeros(1) for q in queue])
        _, obs_alone, episodes = alone.step(action, active)
        for e in episodes:
            expected[e.env].append(e.episode_return)
    assert returns == expected
    assert sum(map(len, returns.values())) > 10
    assert np.array_equal(obs, obs_alone)


def test_first_observations_are_distinct_over_environments_episodes_and_seeds():
    seen = []
    for seed in range(4):
        envs = make("CartPole-v1", 4, seed=seed, steps=1)
        seen += [row.tobytes() for row in envs.reset()]
        for _ in range(3):
            _, obs, _ = envs.step(np.zeros(4, np.int64))
            seen += [row.tobytes() for row in obs]
    assert len(set(seen)) == len(seen) == 64


def test_every_episode_is_that_of_its_own_seed():
    import gymnasium

    envs = make("CartPole-v1", 2, seed=5)
    firsts = {(i, 0): row.copy() for i, row in enumerate(envs.reset())}
    for _ in range(60):
        _, obs, episodes = envs.step(np.ones(2, np.int64))
        firsts |= {(e.env, e.number + 1): obs[e.env].copy() for e in episodes}
    assert len(firsts) > 8
    env = gymnasium.make("CartPole-v1")
    for (i, number), first in firsts.items():
        assert np.array_equal(first, env.reset(seed=derive_seed(5, "environment", i, number))[0])


def test_same_numbers_as_gymnasium_alone():
    import gymnasium

    envs, env = make("Pendulum-v1", steps=20), gymnasium.make("Pendulum-v1", max_episode_steps=20)
    obs = envs.reset()
    generator = np.random.default_rng(1)
    assert np.array_equal(obs[0], env.reset(seed=derive_seed(0, "environment", 0, 0))[0])
    total = 0.0
    for k in range(20):
        a = generator.uniform(-1.5, 1.5, (1, 1)).astype(np.float32)
        transition, obs, episodes = envs.step(a)
        successor, reward, terminated, truncated, _ = env.step(np.clip(2 * a[0], -2, 2))
        total += float(reward)
        assert np.array_equal(transition.next_obs[0], successor)
        assert transition.reward[0] == np.float32(reward)
        assert (transition.terminated[0], transition.truncated[0]) == (terminated, truncated) == (False, k == 19)
    assert episodes[0].episode_return == total
    assert envs.max_episode_steps == 20


def test_clipped_rewards_train_and_unclipped_ones_are_reported():
    envs = make("probe_envs:FixedLength-v0", 2, clip=1.0)
    envs.reset()
    for _ in range(7):
        transition, _, episodes = envs.step(np.zeros(2, np.int64))
        assert transition.reward.tolist() == [1.0, 1.0]
    assert [(e.episode_return, e.length) for e in episodes] == [(21.0, 7), (21.0, 7)]
    envs = make("probe_envs:Target-v0", 1, clip=0.5)
    envs.reset()
    assert envs.step(np.full((1, 2), -1.0, np.float32))[0].reward[0] == -0.5  # -1.69 unclipped


def test_facts_of_the_environment():
    envs = make("CartPole-v1", 2)
    assert (envs.id, envs.num_envs, envs.reward_threshold, envs.max_episode_steps) == ("CartPole-v1", 2, 475.0, 500)
    assert make("Pendulum-v1").reward_threshold is None
    assert make("probe_envs:Chain-v0").max_episode_steps is None


EXACT = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "Taxi-v4", "FrozenLake-v1", "Blackjack-v1", "probe_envs:Walk-v0",
         "probe_envs:Shifted-v0", "probe_envs:EchoBox-v0", "probe_envs:Images-v0", "probe_envs:Votes-v0",
         "probe_envs:Aim-v0", "probe_envs:Lock-v0"]  # fmt: skip


@pytest.mark.parametrize("id", EXACT)
def test_a_restored_environment_continues_bit_for_bit(id):
    kwargs = {"length": 9} if "Aim" in id else {}
    envs, other = make(id, 3, **kwargs), make(id, 3, **kwargs)
    envs.reset()
    generator = np.random.default_rng(2)
    for _ in range(37):
        envs.step(actions(envs, generator), generator.random(3) < 0.8)
    state = {name: array.copy() for name, array in envs.state_dict().items()}
    _obs, exact = other.load_state_dict(state)
    assert exact
    assert all(np.array_equal(a, state[name]) for name, a in other.state_dict().items())
    for _ in range(100):
        action = actions(envs, generator)
        (a, obs_a, done_a), (b, obs_b, done_b) = envs.step(action), other.step(action)
        assert obs_a.tobytes() == obs_b.tobytes()
        assert a.reward.tobytes() == b.reward.tobytes()
        assert a.next_obs.tobytes() == b.next_obs.tobytes()
        assert done_a == done_b


def test_a_state_is_only_arrays_and_saving_changes_nothing():
    envs, twin = make("probe_envs:Walk-v0", 2), make("probe_envs:Walk-v0", 2)
    envs.reset(), twin.reset()
    for _ in range(60):
        state = envs.state_dict()
        assert all(type(a) is np.ndarray and a.dtype.kind in "iuf" for a in state.values())
        assert np.array_equal(envs.step(np.ones((2, 1)))[1], twin.step(np.ones((2, 1)))[1])


def test_an_episode_that_cannot_be_replayed_is_abandoned():
    envs, other = make("probe_envs:Unrepeatable-v0", 2), make("probe_envs:Unrepeatable-v0", 2)
    envs.reset()
    for _ in range(60):
        envs.step(np.zeros(2, np.int64))
    obs, exact = other.load_state_dict(envs.state_dict())
    assert not exact
    state = other.state_dict()
    assert state["episode"].tolist() == [2, 2]  # it was in episode 1
    assert state["episode_length"].tolist() == [0, 0]
    assert state["episode_return"].tolist() == [0.0, 0.0]
    assert np.array_equal(obs, state["obs"])
    for _ in range(50):
        _, _, episodes = other.step(np.zeros(2, np.int64))
    assert [(e.number, e.length, e.episode_return) for e in episodes] == [(2, 50, 50.0)] * 2


def test_only_the_episode_that_differs_is_abandoned():
    envs, other = make("probe_envs:Walk-v0", 3), make("probe_envs:Walk-v0", 3)
    envs.reset()
    envs.step(np.ones((3, 1)))
    state = envs.state_dict()
    state["episode_return"][1] += 1e-9
    obs, exact = other.load_state_dict(state)
    assert not exact
    assert other.state_dict()["episode"].tolist() == [0, 1, 0]
    assert np.array_equal(obs[[0, 2]], state["obs"][[0, 2]])
    assert not np.array_equal(obs[1], state["obs"][1])


def test_an_episode_with_too_many_actions_is_abandoned(monkeypatch):
    monkeypatch.setattr(lanes, "MAX_RECORDED_ACTIONS", 4)
    envs, other = make("Pendulum-v1", 2), make("Pendulum-v1", 2)
    envs.reset()
    for active in ([True, True], [True, True], [True, True], [True, True], [True, False]):
        envs.step(np.ones((2, 1)), np.array(active))
    state = envs.state_dict()
    assert state["action_count"].tolist() == [-1, 4]
    _, exact = other.load_state_dict(state)
    assert not exact
    assert other.state_dict()["episode"].tolist() == [1, 0]


def test_a_replay_that_takes_too_long_is_abandoned(monkeypatch):
    envs, other = make("probe_envs:Walk-v0", 1), make("probe_envs:Walk-v0", 1)
    envs.reset()
    envs.step(np.ones((1, 1)))
    monkeypatch.setattr(lanes, "MAX_REPLAY_SECONDS", -1.0)
    assert not other.load_state_dict(envs.state_dict())[1]


def test_a_state_of_another_environment_is_refused():
    envs = make("CartPole-v1", 2)
    envs.reset()
    for other in (make("CartPole-v1", 3), make("Acrobot-v1", 2), make("probe_envs:Images-v0", 2)):
        with pytest.raises(CheckpointError, match="stored observations"):
            other.load_state_dict(envs.state_dict())


def test_a_state_whose_parts_do_not_fit_is_refused():
    envs = make("CartPole-v1", 2)
    envs.reset()
    envs.step(np.array([0, 1]))
    state = envs.state_dict()
    for name, array in {"actions": state["actions"][:1], "episode": state["episode"][:1]}.items():
        with pytest.raises(CheckpointError, match="do not fit"):
            envs.load_state_dict({**state, name: array})


@pytest.mark.parametrize(
    ("id", "kwargs", "text"),
    [
        ("Raises-v0", {}, "ValueError: the left wheel came off"),
        ("Raises-v0", {"what": "exit"}, "SystemExit: 0"),
        ("Nan-v0", {"what": "obs"}, r"observation is not finite: \[nan\]"),
        ("Nan-v0", {"what": "reward"}, "reward nan is not a finite float32"),
        ("Nan-v0", {"what": "inf_reward"}, "reward inf"),
        ("Nan-v0", {"what": "big_reward"}, r"reward 1e\+39"),
        ("Nan-v0", {"what": "none_reward"}, "the reward must be a number, and it is None"),
        ("Nan-v0", {"what": "four"}, "step must return a tuple .*, and it returned 4 values: the old gym's"),
        ("Nan-v0", {"what": "shape"}, r"observation has shape \(\), its space \(1,\)"),
    ],
)
def test_a_fault_names_environment_index_and_step(id, kwargs, text):
    envs = make(f"probe_envs:{id}", 3, at=3, **kwargs)
    envs.reset()
    idle_0_once = np.array([False, True, True])
    envs.step(np.zeros(3, np.int64), idle_0_once)
    envs.step(np.zeros(3, np.int64), idle_0_once)
    with pytest.raises(RunFailed, match=text) as caught:
        envs.step(np.zeros(3, np.int64))
    seed = derive_seed(0, "environment", 1, 0)
    assert f"probe_envs:{id}: environment 1 failed in step 3 of the episode with seed {seed}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    envs.close()
    envs.close()


def test_a_discrete_observation_may_come_as_an_array_without_axes():
    envs = make("probe_envs:Shifted-v0", 1)
    unwrapped = envs._group._envs[0].unwrapped
    unwrapped.observe = lambda: np.array(-2)
    assert envs.reset().tolist() == [0]
    assert envs.step(np.array([1]))[1].tolist() == [0]


def test_a_fault_in_a_reset_says_so():
    with pytest.raises(RunFailed, match=r"environment 0 failed in the reset of .*not finite"):
        make("probe_envs:Nan-v0", what="obs", at=0).reset()


@pytest.mark.parametrize("bad", [-1, 2])
def test_an_action_outside_its_space_stops_the_run(bad):
    envs = make("CartPole-v1", 2)
    envs.reset()
    with pytest.raises(RunFailed, match=r"outside 0\.\.1"):
        envs.step(np.array([0, bad]))
    with pytest.raises(RunFailed, match="shape"):
        envs.step(np.array([[0], [1]]))
    envs.step(np.array([0, bad]), np.array([True, False]))


def test_an_action_that_is_not_finite_stops_the_run():
    envs = make("Pendulum-v1", 2)
    envs.reset()
    with pytest.raises(RunFailed, match="action is not finite"):
        envs.step(np.array([[0.0], [np.nan]], np.float32))


@pytest.mark.parametrize(
    ("id", "kwargs", "text"),
    [
        ("CartPol-v1", {}, "CartPol-v1 cannot be made: .*CartPole"),
        ("CartPole-v7", {}, "CartPole-v7 cannot be made"),
        ("no_such_module:X-v0", {}, "No module named 'no_such_module'"),
        ("CartPole-v1", {"gravity": 1}, "unexpected keyword argument 'gravity'"),
        ("CartPole-v1", {"max_episode_steps": 1}, "env.kwargs.max_episode_steps is not allowed: use env.max_episode"),
        (
            "CartPole-v1",
            {"render_mode": "human"},
            "env.kwargs.render_mode=human: rltrain opens no windows; video.p",
        ),
        ("probe_envs:Refused-v0", {"kind": "text"}, "observation space Text is not supported .supported: Box, Discr"),
        ("probe_envs:Refused-v0", {"kind": "sequence"}, "observation space Sequence is not"),
        ("probe_envs:Refused-v0", {"kind": "graph"}, "observation space Graph is not"),
        ("probe_envs:Refused-v0", {"kind": "one_of"}, "observation space OneOf is not"),
        ("probe_envs:Refused-v0", {"kind": "text_inside"}, r"Dict: its part \['a'\]\[1\]\['mission'\], a Text, is not"),
        ("probe_envs:Refused-v0", {"kind": "nothing"}, "observation space Dict holds no number"),
        ("probe_envs:Refused-v0", {"kind": "too_many"}, "observation space Tuple has more than 16,777,216 numbers"),
        (
            "probe_envs:Refused-v0",
            {"kind": "too_many_actions"},
            "action space MultiDiscrete has more than 16,777,216",
        ),
        ("probe_envs:Refused-v0", {"kind": "dict_action"}, "action space Dict is not supported"),
        ("probe_envs:Refused-v0", {"kind": "tuple_action"}, "action space Tuple is not supported"),
        ("probe_envs:Refused-v0", {"kind": "integer_action"}, "action space Box of int64 is not supported"),
        ("probe_envs:Refused-v0", {"kind": "bool_action"}, "action space Box of bool is not supported"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(id, kwargs, text):
    with pytest.raises(RequestError, match=text) as caught:
        make(id, 2, **kwargs)
    assert "\n" not in str(caught.value)


def test_warnings_of_gymnasium_come_once(caplog, recwarn, monkeypatch):
    monkeypatch.setattr("rltrain.envs.make._already_warned", set())
    with caplog.at_level("WARNING"):
        make("CartPole-v0", 4)
    out_of_date = [r for r in caplog.records if "out of date" in r.message]
    assert len(out_of_date) == 1
    assert not [w for w in recwarn if "out of date" in str(w.message)]
