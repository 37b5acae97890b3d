from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from halves import often
from small_runs import dqn_config, run_config

from rltrain.config.algorithms import card_of
from rltrain.config.application import compose
from rltrain.config.folders import conf_folder
from rltrain.config.plain import to_plain
from rltrain.config.population import structure
from rltrain.config.schema import ALGO_CONFIGS
from rltrain.config.search_space import Dimension, parse_dimension, read_space, space_file
from rltrain.config.searched import fitted, with_values
from rltrain.config.validate import validate
from rltrain.errors import RequestError

NO_EPSILON = ("reinforce", "ppo", "a2c")
CONFIG = run_config(dqn_config())


def read(text: str, tmp_path: Path) -> list[Dimension]:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return read_space(file)


@pytest.mark.parametrize("algo", often(ALGO_CONFIGS, ["dqn", "q_learning"]))
def test_the_shipped_spaces_fit_their_algorithms_under_every_choice(algo: str) -> None:
    space = read_space(space_file(algo, None))
    has_targets = algo in ("dqn", "c51", "qr_dqn", "iqn")
    explorations = ("linear", "exponential", "constant") if algo not in NO_EPSILON else (None,)
    for exploration, target in zip(
        explorations, ("hard", "soft", "soft") if has_targets else (None,) * 3, strict=False
    ):
        env = "FrozenLake-v1" if algo == "q_learning" else "CartPole-v1"
        chosen = [f"exploration={exploration}"] * bool(exploration) + [f"target_update={target}"] * bool(target)
        config, _ = compose([f"algo={algo}", f"env={env}", "tuned=none", *chosen])
        kept, left = fitted(space, config, [])
        assert left == [] and len(kept) >= 4
        assert {dimension.key for dimension in kept} >= {"algo.gamma"}


def test_most_of_a_shipped_space_trains_as_one_program() -> None:
    config, _ = compose(["algo=dqn", "env=CartPole-v1", "tuned=none"])
    kept, _ = fitted(read_space(space_file("dqn", None)), config, [])
    apart = []
    for dimension in kept:
        values = dimension.choices or (dimension.low, dimension.high)
        plains = [with_values(to_plain(config), {dimension.key: value}) for value in values]
        if len({structure(validate(plain)) for plain in plains}) > 1:
            apart.append(dimension.key)
    assert card_of(config.algo).in_populations and apart == ["algo.n_step"]


def test_a_range_takes_the_type_of_its_key(tmp_path: Path) -> None:
    space = read("algo.gamma: {low: 0, high: 1}\nalgo.batch_size: {low: 4, high: 1e1}\n", tmp_path)
    gamma, batch = fitted(space, CONFIG, [])[0]
    assert not gamma.integer and batch.integer and (batch.low, batch.high) == (4, 10)


def test_numbers_may_be_written_as_yaml_takes_for_text(tmp_path: Path) -> None:
    (lr,) = read("algo.optimizer.lr: {low: 1e-4, high: 1e-2, log: true}", tmp_path)
    assert (lr.low, lr.high, lr.log) == (1e-4, 1e-2, True)


def test_what_is_given_and_what_belongs_to_other_choices_leaves_the_space(tmp_path: Path) -> None:
    space = read(
        "algo.gamma: {low: 0.9, high: 1}\nalgo.optimizer.lr: {low: 1e-4, high: 1e-2}\n"
        "target_update.tau: {low: 0.1, high: 1}\nalgo.prioritized.alpha: {low: 0.1, high: 1}\n"
        "target_update=soft:\n  target_update.period: {low: 1, high: 2}\n"
        "target_update=hard:\n  target_update.period: {low: 10, high: 20}\n",
        tmp_path,
    )
    kept, left = fitted(space, CONFIG, ["algo.gamma"])
    assert [(d.key, d.low) for d in kept] == [("algo.optimizer.lr", 1e-4), ("target_update.period", 10)]
    assert left == ["algo.gamma", "target_update.tau", "algo.prioritized.alpha"]


@pytest.mark.parametrize(
    ("key", "choices", "complaint"),
    [
        ("target_update.tau", [0.1, 0.2], "unknown key of target_update=hard; it belongs to target_update=soft"),
        ("algo.prioritized.alpha", [0.3, 0.6], "algo.prioritized is null here"),
        ("algo.optimizer", ["adam", "sgd"], "is a group of keys: algo.optimizer.name, algo.optimizer.lr"),
        ("algo.munchausen_temperature", [0.01, 0.05], "has no effect with algo.munchausen=null, and is not searched"),
    ],
)
def test_a_typed_key_that_changes_nothing_is_refused(key: str, choices: list[Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=f"^{key}: .*{complaint}|^{key}: {complaint}"):
        fitted([Dimension(key, choices=tuple(choices)), Dimension("algo.gamma", choices=(0.9, 0.99))], CONFIG, [])


def test_a_key_that_another_one_of_the_space_puts_in_force_is_searched() -> None:
    on, of_it = (
        Dimension("algo.munchausen", choices=(None, 0.9)),
        Dimension("algo.munchausen_clip", choices=(-1.0, -2.0)),
    )
    config, _ = compose(["algo=dqn", "env=CartPole-v1", "tuned=none", "algo.double=false"])
    assert [dimension.key for dimension in fitted([on, of_it], config, [])[0]] == [on.key, of_it.key]


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ("algo=dqn network.noisy=true exploration=none", {"exploration.end"}),
        ("algo=dqn exploration=none", {"exploration.end"}),
        ("experiment=rainbow", {"exploration.end"}),
        ("algo=reinforce algo.baseline=mean", {"algo.value.lr"}),
        ("algo=dqn exploration=constant", set()),
    ],
)
def test_what_changes_nothing_leaves_a_shipped_space(words: str, idle: set[str]) -> None:
    config, _ = compose([*words.split(), "env=CartPole-v1", "tuned=none"])
    kept, left = fitted(read_space(space_file(config.algo.name, None)), config, [])
    assert set(left) == idle and not idle & {dimension.key for dimension in kept}


def test_nothing_left_to_search_is_refused(tmp_path: Path) -> None:
    space = read("algo.gamma: {low: 0.9, high: 1}", tmp_path)
    with pytest.raises(RequestError, match=r"nothing is left to search: algo.gamma is fixed"):
        fitted(space, CONFIG, ["algo.gamma"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("algo.gama: {low: 0, high: 1}", r"mine.yaml:1: algo.gama: unknown key; did you mean algo.gamma"),
        ("algo.gamma: {low: 0.9, high: 1.5}", r"mine.yaml:1: algo.gamma=1.5: must be >= 0 and <= 1"),
        ("algo.gamma: {low: 0.9}", r"algo.gamma: needs low and high, or choices"),
        ("algo.gamma: {low: 0.9, hihg: 1}", r"algo.gamma.hihg: unknown; did you mean high\?"),
        ("algo.gamma: {low: 0.9, high: 0.9}", r"low=0.9 must be below high=0.9"),
        ("algo.gamma: {low: 0, high: 1, log: true}", r"log=true needs low > 0"),
        ("algo.gamma: {low: 0.1, high: 1, log: true, step: 0.1}", r"log=true needs no step"),
        ("algo.gamma: {low: 0, high: 1, step: 2}", r"step=2: must be > 0 and <= high - low"),
        ("algo.gamma: {low: 0, high: 1, log: 3}", r"log=3: must be true or false"),
        ("algo.gamma: {low: [1], high: 1}", r"low=\[1\]: must be a number"),
        ("algo.gamma: 0.9", r"algo.gamma=0.9: must be \{low: ..., high: ...\} or"),
        ("algo.gamma: {choices: [0.9]}", r"must be a list of several values"),
        ("algo.gamma: {choices: [0.9, 0.9]}", r"holds a value twice"),
        ("algo.gamma: {choices: [0.9, 1], log: true}", r"has choices, and so no log"),
        ("algo.double: {low: 0, high: 1}", r"algo.double=0: must be true or false"),
        ("algo.batch_size: {low: 1, high: 9, step: 0.5}", r"step=0.5: must be an integer"),
        ("algo.loss: {choices: [mse, hubber]}", r"did you mean huber"),
        ("seed: {choices: [1, 2]}", r"seed: is no setting of what is learned"),
        ("eval.period: {choices: [100, 200]}", r"eval.period: is no setting of what is learned"),
        ("total_steps: {choices: [100, 200]}", r"total_steps: is no setting of what is learned"),
        ("stop_at_return: {choices: [100, 200]}", r"stop_at_return: is no setting of what is learned"),
        ("env.max_episode_steps: {choices: [50, 200]}", r"env.max_episode_steps: makes another task"),
        ("env.kwargs.g: {choices: [9, 10]}", r"env.kwargs.g: makes another task"),
        ("target_update=sotf:\n  target_update.tau: {low: 0.1, high: 1}", r"no such choice; did you mean soft"),
        ("target_update=soft: 3", r"holds the keys that are searched under that choice"),
        ("[]", r"must hold keys with their values"),
        ("a: [", r"is no YAML"),
        ("a: &x [*x]", r"."),
    ],
)
def test_a_wrong_space_is_refused_with_its_place(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=complaint):
        fitted(read(text, tmp_path), CONFIG, [])


def test_a_space_of_the_users_hides_the_shipped_one(tmp_path: Path) -> None:
    assert space_file("dqn", None).parent == conf_folder() / "search"
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "dqn.yaml").write_text("algo.gamma: {low: 0.9, high: 1}")
    assert space_file("dqn", str(tmp_path)).parent == tmp_path / "search"
    with pytest.raises(RequestError, match="search=dnq: no such search space; did you mean dqn"):
        space_file("dnq", None)


@pytest.mark.parametrize(
    "entry",
    [{"low": 1, "high": 8, "log": True}, {"low": 0.5, "high": 1.0, "step": 0.25}, {"choices": [[64, 64], [128], None]}],
)
def test_a_dimension_says_what_a_file_says(entry: dict[str, Any]) -> None:
    assert parse_dimension("a.b", entry).to_plain() == entry
