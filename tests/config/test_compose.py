"""How the config files, the user's files and the command line come together."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from halves import often

from rltrain.config.application import compose
from rltrain.config.choices import OTHER_WORDS
from rltrain.config.env_families import has_ale
from rltrain.config.folders import conf_folder
from rltrain.config.keys import NAMES_OF_CHOICES, OTHER_NAMES, same_name
from rltrain.config.plain import to_plain
from rltrain.errors import RequestError

GROUPS = ("network", "target_update", "exploration")
IDS = {
    "ALE-Pong-v5": "ALE/Pong-v5",
    "MinAtar": "MinAtar/Seaquest-v1",
    "MuJoCo": "Ant-v5",
    "ALE": "ALE/Qbert-v5",
}
"""What a tuned file's name cannot hold."""
REFUSED = {
    (algo, network)
    for algo in ("reinforce", "ppo", "a2c", "c51", "qr_dqn", "iqn")
    for network in ("dueling", "state_action")
}
TUNED = sorted(path.stem for path in (conf_folder() / "tuned").glob("*_*.yaml"))


def resolved(*overrides: str, config_dir: Path | None = None) -> dict[str, Any]:
    return to_plain(compose(list(overrides), None if config_dir is None else str(config_dir))[0])


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


@cache
def untuned_with(algo: str, *words: str) -> dict[str, Any]:
    return resolved(f"algo={algo}", *(["env=FrozenLake-v1"] if algo == "q_learning" else []), "tuned=none", *words)


@pytest.mark.parametrize("tuned", often(TUNED, ["dqn_CartPole-v1", "reinforce_CartPole-v1"]))
def test_what_a_tuned_file_says_about_a_choice_reaches_only_that_choice(tuned: str) -> None:
    algo, _, env = tuned.rpartition("_")
    run = [f"algo={algo}", f"env={IDS.get(env, env)}"]
    picked = resolved(*run)
    untuned = untuned_with(algo)
    others = [
        [
            f"{group}={choice}"
            for choice in choices(group)
            if choice != picked[group]["name"] and (algo, choice) not in REFUSED
        ]
        for group in GROUPS
        if untuned[group] is not None
    ]
    for by_hand in zip_longest(*others):  # several groups at a time
        words = [word for word in by_hand if word is not None]
        tuned_run, plain_run = resolved(*run, *words), untuned_with(algo, *words)
        assert tuned_run["algo"] == picked["algo"]
        for group in (word.partition("=")[0] for word in words):
            assert tuned_run[group] == plain_run[group]


@pytest.mark.parametrize("tuned", TUNED)
def test_a_tuned_file_is_picked_up_and_told(tuned: str) -> None:
    algo, _, env = tuned.rpartition("_")
    content = yaml.safe_load((conf_folder() / "tuned" / f"{tuned}.yaml").read_text())
    run = [f"algo={algo}", f"env={IDS.get(env, env)}"]
    config, info = compose(run)
    assert info.tuned == tuned
    assert config.total_steps == content["total_steps"] == info.tuned_keys["total_steps"]


@pytest.mark.parametrize("tuned", often(TUNED, ["dqn_CartPole-v1", "dqn_MinAtar", "qr_dqn_ALE"]))
def test_without_its_tuned_file_a_run_is_another(tuned: str) -> None:
    algo, _, env = tuned.rpartition("_")
    run = [f"algo={algo}", f"env={IDS.get(env, env)}"]
    config, _ = compose(run)
    off, nothing = compose([*run, "tuned=none"])
    assert nothing.tuned is None and nothing.tuned_keys == {}
    assert off != config


def test_the_file_of_a_namespace_is_for_its_environments_that_have_none(tmp_path: Path) -> None:
    write(tmp_path, "tuned/dqn_MinAtar.yaml", "# @package _global_\nalgo: {batch_size: 2}\n")
    write(tmp_path, "tuned/dqn_ALE-Pong-v5.yaml", "# @package _global_\nalgo: {batch_size: 3}\n")
    write(tmp_path, "tuned/dqn_MinAtar-Breakout-v1.yaml", "# @package _global_\nalgo: {batch_size: 4}\n")
    for env, size in (("MinAtar/Asterix-v1", 2), ("MinAtar/Breakout-v1", 4), ("ALE/Pong-v5", 3)):
        assert resolved(f"env={env}", config_dir=tmp_path)["algo"]["batch_size"] == size
    assert compose(["env=CartPole-v1"], str(tmp_path))[1].tuned == "dqn_CartPole-v1"


def test_the_file_of_mujoco_is_for_its_environments_that_have_none(tmp_path: Path) -> None:
    write(tmp_path, "tuned/dqn_MuJoCo.yaml", "# @package _global_\nalgo: {batch_size: 2}\n")
    write(tmp_path, "tuned/dqn_Ant-v5.yaml", "# @package _global_\nalgo: {batch_size: 3}\n")
    sizes = {"Hopper-v5": 2, "InvertedDoublePendulum-v4": 2, "Ant-v5": 3, "CliffWalking-v1": 128}
    for env, size in sizes.items():
        assert resolved(f"env={env}", config_dir=tmp_path)["algo"]["batch_size"] == size


@pytest.mark.skipif(not has_ale(), reason="needs the extra atari")
def test_the_older_ids_of_atari_games_have_the_settings_of_all_games() -> None:
    of_all = compose(["env=ALE/Qbert-v5"])[0]
    older = compose(["env=QbertNoFrameskip-v4"])[0]
    assert replace(older, env=replace(older.env, id="ALE/Qbert-v5")) == of_all


def test_what_a_recipe_says_of_a_game_is_for_its_sisters_too() -> None:
    whole, other = (resolved("experiment=atari_2015", *more) for more in ([], ["env=ALE/Pong-v5"]))
    assert other["env"] == {**whole["env"], "id": "ALE/Pong-v5"}
    assert {**whole, "env": None} == {**other, "env": None}
    assert resolved("experiment=atari_2015", "env=MinAtar/Breakout-v1")["env"]["wrappers"] == []


def test_precedence_is_algorithm_tuned_experiment_command_line(tmp_path: Path) -> None:
    write(tmp_path, "tuned/dqn_Acrobot-v1.yaml", "# @package _global_\nalgo: {n_step: 2, batch_size: 2, gamma: 0.2}\n")
    write(
        tmp_path,
        "experiment/mine.yaml",
        "# @package _global_\ndefaults: [{override /algo: dqn}]\nalgo: {batch_size: 3, gamma: 0.3}\n",
    )
    run = ["algo=dqn", "env=Acrobot-v1", "experiment=mine", "algo.gamma=0.4"]
    config, info = compose(run, str(tmp_path))
    algo = to_plain(config)["algo"]
    assert (algo["n_step"], algo["batch_size"], algo["gamma"]) == (2, 3, 0.4)
    assert algo["buffer_size"] == resolved("env=Acrobot-v1")["algo"]["buffer_size"]
    assert info.tuned_keys == {"algo.n_step": 2}
    assert info.overrides == [f"--config-dir={tmp_path}", *run]


def test_the_trap_of_a_period_that_belongs_to_another_choice(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults: [{override /target_update: hard}]\ntarget_update: {period: 10}\n"
    write(tmp_path, "tuned/dqn_Acrobot-v1.yaml", text)
    run = ["env=Acrobot-v1"]
    assert resolved(*run, config_dir=tmp_path)["target_update"]["period"] == 10
    soft, info = compose([*run, "target_update=soft"], str(tmp_path))
    assert to_plain(soft)["target_update"] == {"name": "soft", "tau": 0.01, "period": 1, "unit": "gradient_steps"}
    assert info.tuned_keys == {}
    again = resolved(*run, "target_update=hard", "target_update.unit=episodes", config_dir=tmp_path)
    assert again["target_update"] == {"name": "hard", "period": 10, "unit": "episodes"}


def test_a_recipe_s_values_reach_only_its_own_choices() -> None:
    changed = resolved("experiment=notes_dqn", "exploration=linear", "env=Acrobot-v1")
    assert changed["exploration"] == resolved("tuned=none")["exploration"]
    assert changed["env"]["max_episode_steps"] is None
    assert changed["algo"]["gamma"] == 0.98


def test_a_section_without_its_choice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "tuned/dqn_Acrobot-v1.yaml", "# @package _global_\ntarget_update: {period: 10}\n")
    with pytest.raises(RequestError, match=r"add `override /target_update: \.\.\.` to its defaults"):
        resolved("env=Acrobot-v1", config_dir=tmp_path)


def test_any_registered_environment_composes() -> None:
    assert resolved("env=phys2d/CartPole-v1")["env"]["id"] == "phys2d/CartPole-v1"
    assert resolved("env=some.module:Thing-v0")["env"]["id"] == "some.module:Thing-v0"


def test_env_kwargs_are_open_and_nothing_else() -> None:
    env = resolved("env.kwargs.gravity=1.6", "env.kwargs.deep.er=[1,x]")["env"]
    assert env["kwargs"] == {"gravity": 1.6, "deep": {"er": [1, "x"]}}
    with pytest.raises(RequestError, match=r"env\.kwarg\.gravity=1: unknown key"):
        resolved("env.kwarg.gravity=1")


def test_a_user_s_file_replaces_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_variable = write(tmp_path / "a", "env/CartPole-v1.yaml", "id: CartPole-v1\nreward_clip: 3.0\n")
    write(tmp_path / "a", "network/mlp.yaml", "name: mlp\nhidden: [7]\nactivation: tanh\noutput_scale: 2.0\n")
    from_option = write(tmp_path / "b", "env/CartPole-v1.yaml", "id: CartPole-v1\nreward_clip: 4.0\n")
    monkeypatch.setenv("RLTRAIN_CONF", str(from_variable))
    assert resolved("tuned=none")["env"]["reward_clip"] == 3.0
    assert resolved("tuned=none")["network"]["hidden"] == [7]
    assert resolved("tuned=none", config_dir=from_option)["env"]["reward_clip"] == 4.0
    monkeypatch.setenv("RLTRAIN_CONF", str(tmp_path / "missing"))
    with pytest.raises(RequestError, match=r"RLTRAIN_CONF=.*missing: no such folder"):
        resolved()


def test_a_typo_in_a_user_s_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "exploration/linear.yaml", "name: linear\nstart: 1.0\nend: 0.1\nstepps: 100\n")
    with pytest.raises(RequestError, match=r"exploration\.stepps: unknown key .* did you mean exploration\.steps\?"):
        resolved("tuned=none", config_dir=tmp_path)


def test_no_config_of_a_folder_found_by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "conf/network/mlp.yaml", "name: mlp\nhidden: [7]\nactivation: tanh\noutput_scale: 2.0\n")
    monkeypatch.chdir(tmp_path)
    assert resolved("tuned=none")["network"]["hidden"] == [128, 128]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "algo=dqnn",
            "algo=dqnn: no such choice; did you mean dqn?\nchoices: a2c, c51, dqn, iqn, ppo, pqn, q_learning, qr_dqn",
        ),
        ("env=CartPol-v1", "env=CartPol-v1: no such environment\nclosest: CartPole-v1, CartPole-v0, phys2d/CartPole-v"),
        ("env=Hopper-v2", "env=Hopper-v2: no such environment\nclosest: Hopper-v5, Hopper-v4"),
        ("env=LunarLander-v2", "env=LunarLander-v2: no such environment\nclosest: LunarLander-v3, "),
        ("env=", "env=: env needs one of its choices"),
        ("tuned=null", "tuned=null: tuned=none turns it off"),
        ("~seed", "~seed: a key cannot be deleted"),
        ("+typo=1", "+typo=1: unknown key"),
        ("++typo=1", "++typo=1: unknown key"),
        ("+seed=1", "+seed=1: keys are not added: write seed=1"),
        ("seed=abc", "seed=abc: must be an integer >= 0"),
        ("seed=1,2", "seed=1,2: several values are a sweep: add -m"),
        ("lr=1e-3", "lr=1e-3: unknown key; did you mean algo.optimizer.lr?"),
        ("learning_rate=1e-3", "learning_rate=1e-3: unknown key; did you mean algo.optimizer.lr?"),
        ("algo=q_learning lr=0.1", "lr=0.1: unknown key; did you mean algo.alpha?"),
        ("n_envs=4", "n_envs=4: unknown key; did you mean num_envs or eval.num_envs?"),
        ("capacity=1000", "capacity=1000: unknown key; did you mean algo.buffer_size?"),
        ("n_steps=5", "n_steps=5: unknown key; did you mean algo.n_step?"),
        ("algo=ppo n_steps=5", "n_steps=5: unknown key; did you mean algo.rollout_steps?"),
        ("algo=ppo buffer_size=5", "buffer_size=5: unknown key; algo.buffer_size belongs to algo=dqn and algo=c51"),
        ("gae_lambda=0.9", "gae_lambda=0.9: unknown key; algo.gae_lambda belongs to algo=ppo and algo=a2c"),
        ("algo=ppo batch_size=64", "batch_size=64: unknown key; algo.minibatches says into how many a rollout is"),
        ("algo=pqn algo.minibatch_size=64", "algo.minibatch_size=64: unknown key of algo=pqn; algo.minibatches says"),
        ("batch_size=64", "batch_size=64: unknown key; did you mean algo.batch_size?"),
        ("algo=SAC", "algo=SAC: rltrain does not have it; for Box actions there are ppo, a2c and reinforce"),
        ("algo=a3c", "algo=a3c: no such choice; it is algo=a2c"),
        ("dueling=true", "dueling=true: unknown key; did you mean network=dueling?"),
        ("network=cnn dueling=true", "dueling=true: unknown key; did you mean network.dueling?"),
        (
            "env.sutton_barto_reward=true",
            "env.sutton_barto_reward=true: unknown key of env=CartPole-v1; did you mean env.k",
        ),
        ("env.max_episode_step=9", "env.max_episode_step=9: unknown key of env=CartPole-v1; did you mean env.max_epis"),
        ("algo.gama=0.9", "algo.gama=0.9: unknown key of algo=dqn; did you mean algo.gamma?"),
        ("exploration.decay=0.9", "exploration.decay=0.9: unknown key of exploration=linear; it belongs to"),
        ('algo.gamma="', 'algo.gamma=": cannot be read as key=value'),
        ("seed=${nothing}", "seed: Interpolation key 'nothing' not found"),
        # not the fault of a key that belongs to what the tuned file chooses
        ("target_update.tau=0.1 seed=${nothing}", "seed: Interpolation key 'nothing' not found"),
        ("target_update.tau=0.1 hydra.run.dri=x", "hydra.run.dri: Hydra has no such key"),
        ("hydra.launcher.processes=2", "hydra.launcher.processes: unknown key of hydra/launcher=population; "),
        (
            "evalute",
            "evalute: is neither key=value nor a command (resume, evaluate, report, export, tune, list); did you",
        ),
        ("network@x=mlp", "network@x=mlp: a group cannot be moved"),
        ("experiment=lecture", "experiment=lecture: no such choice; did you mean lecture_dqn?"),
    ],
)
def test_refused_lines(line: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        resolved(*line.split(" "))
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) <= 3


def test_what_the_names_of_other_libraries_mean_is_there() -> None:
    for own, others in OTHER_NAMES.items():
        for name in others.split():
            assert any(key == own or key.endswith(f".{own}") for key in same_name(name, {})), (own, name)
    for choice in NAMES_OF_CHOICES:
        if "=" in choice:
            resolved(choice)


@cache
def keys_in_files(group: str) -> dict[str, set[str]]:
    """Choice of a group -> the dotted keys that its file makes."""
    found = {}
    for choice in choices(group):
        text = (conf_folder() / group / f"{choice}.yaml").read_text()
        package = text.partition("\n")[0].partition("@package ")[2] or group
        content = yaml.safe_load(text)
        found[choice] = dotted(content[group], group) if package == "_global_" else dotted(content, package)
    return found


def dotted(section: dict[str, Any], name: str) -> set[str]:
    """The dotted keys in a section, those of sections within it and these sections too."""
    below = [dotted(value, f"{name}.{key}") for key, value in section.items() if isinstance(value, dict)]
    return {f"{name}.{key}" for key in section}.union(*below)


def keys_of_others() -> list[tuple[str, str, dict[str, set[str]]]]:
    """(group, choice, the keys that its file lacks -> the choices that have them). Those of the many algorithms are
    dealt out, each key to one algorithm that lacks it, since composing takes a third of a second."""
    cases: dict[tuple[str, str], dict[str, set[str]]] = {}
    for group in ("replay", *GROUPS, "algo"):
        files = keys_in_files(group)
        for number, key in enumerate(sorted(set().union(*files.values()))):
            lacking = [choice for choice, keys in files.items() if key not in keys]
            if group == "replay" and any(key in keys for keys in keys_in_files("algo").values()):
                continue  # it has the key without the group
            for choice in lacking if group != "algo" else lacking[number % max(1, len(lacking)) :][:1]:
                cases.setdefault((group, choice), {})[key] = set(files) - set(lacking)
    return [(group, choice, keys) for (group, choice), keys in cases.items()]


KEYS_OF_OTHERS = keys_of_others()
FIRST_OF_GROUPS = [next(case for case in KEYS_OF_OTHERS if case[0] == group) for group in ("replay", *GROUPS, "algo")]


@pytest.mark.parametrize(("group", "choice", "keys"), often(KEYS_OF_OTHERS, FIRST_OF_GROUPS))
def test_a_key_of_another_choice_is_said_to_be_that_choice_s(
    group: str, choice: str, keys: dict[str, set[str]]
) -> None:
    for key, owners in keys.items():
        with pytest.raises(RequestError) as error:
            resolved(f"{group}={choice}", "tuned=none", f"{key}=1")
        message = str(error.value)
        assert message.startswith(f"{key}=1: ") and " belongs to " in f" {message.partition(': ')[2]}"
        assert set(re.findall(rf"\b{group}=(\w+)", message)) == {choice} | owners
        assert "\n" not in message and "+" not in message


def test_a_key_of_a_choice_that_is_not_made_is_said_to_be_that_choice_s() -> None:
    with pytest.raises(RequestError, match=r"^algo.prioritized.alpha=1: belongs to replay=prioritized: add that$"):
        resolved("algo.prioritized.alpha=1")


def test_a_key_that_the_user_s_file_leaves_out_is_no_matter_of_a_plus_sign(tmp_path: Path) -> None:
    write(tmp_path, "network/small.yaml", "name: mlp\nhidden: [3]\nactivation: relu\noutput_scale: 1.0\n")
    with pytest.raises(
        RequestError, match=r"^network.noisy=true: network=small has no such key; add it to .*small.yaml"
    ):
        resolved("network=small", "tuned=none", "network.noisy=true", config_dir=tmp_path)
    with pytest.raises(RequestError, match=r"^network.stream=1: unknown key of network=small; it belongs to network=d"):
        resolved("network=small", "tuned=none", "network.stream=1", config_dir=tmp_path)


def test_the_choice_that_a_tuned_file_makes_is_the_one_that_lacks_a_key() -> None:
    with pytest.raises(RequestError, match=r"^network.stream=1: unknown key of network=cnn; it belongs to network=due"):
        resolved("env=MinAtar/Breakout-v1", "network.stream=1")


@pytest.mark.parametrize("algo", choices("algo"))
def test_a_key_of_a_group_that_an_algorithm_lacks_is_said_to_be_lacking(algo: str) -> None:
    text = (conf_folder() / "algo" / f"{algo}.yaml").read_text()
    for group in GROUPS:
        if f"- /{group}: " not in text:
            key = min(set().union(*keys_in_files(group).values()) - {f"{group}.name"})
            with pytest.raises(RequestError, match=rf"^{key}=1: {algo} has no [a-z ]+$"):
                resolved(f"algo={algo}", "tuned=none", f"{key}=1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("target_update=soft", "target network"),
        ("target_update.period=3", "target network"),
        ("network=mlp", "network"),
        ("network.hidden=[8]", "network"),
    ],
)
def test_q_learning_has_no_network_at_all(line: str, words: str) -> None:
    with pytest.raises(RequestError) as error:
        resolved("algo=q_learning", line)
    assert str(error.value) == f"{line}: q_learning has no {words}"


def test_replay_is_uniform_or_prioritized_for_what_has_one() -> None:
    assert resolved("algo=c51", "replay=prioritized")["algo"]["prioritized"]["alpha"] == 0.6
    assert resolved("algo=dqn", "replay=uniform") == resolved("algo=dqn")
    for algo in (["algo=reinforce"], ["algo=q_learning", "env=FrozenLake-v1"]):
        for choice in ("uniform", "prioritized"):
            with pytest.raises(RequestError, match=rf"^replay={choice}: {algo[0][5:]} has no replay$"):
                resolved(*algo, f"replay={choice}")


def test_a_replay_that_is_typed_wins_over_a_recipe_s() -> None:
    """Otherwise Rainbow without one of its parts would be Rainbow with it, and nobody would be told."""
    assert resolved("experiment=rainbow")["algo"]["prioritized"]["alpha"] == 0.5
    assert resolved("experiment=rainbow", "replay=prioritized")["algo"]["prioritized"]["alpha"] == 0.5
    assert resolved("experiment=rainbow", "replay=uniform")["algo"]["prioritized"] is None
    for recipe in ("guide_dqn", "lecture_dqn", "notes_dqn"):
        assert resolved(f"experiment={recipe}")["algo"]["prioritized"] is None
        assert resolved(f"experiment={recipe}", "replay=prioritized")["algo"]["prioritized"]["alpha"] == 0.6


def test_reinforce_has_no_target_network() -> None:
    for line in ("target_update=soft", "target_update.period=3"):
        with pytest.raises(RequestError, match=rf"^{line}: reinforce has no target network$"):
            resolved("algo=reinforce", line)
    with pytest.raises(RequestError, match=r"^exploration=linear: reinforce has no exploration schedule$"):
        resolved("algo=reinforce", "exploration=linear")
    with pytest.raises(RequestError, match=r"^experiment=lecture_dqn: picks a target_update, and algo=reinforce has"):
        resolved("algo=reinforce", "experiment=lecture_dqn")


def test_a_run_without_evaluations_does_not_end_at_the_return_of_the_tuned_settings() -> None:
    assert resolved("env=CartPole-v1", "eval.period=null")["stop_at_return"] is None
    with pytest.raises(RequestError, match=r"^stop_at_return=100 needs evaluations, but eval.period=null"):
        resolved("env=CartPole-v1", "eval.period=null", "stop_at_return=100")


@pytest.mark.parametrize("change", ["env.kwargs.sutton_barto_reward=true", "env.max_episode_steps=200"])
def test_another_task_does_not_end_at_the_return_of_the_tuned_one(change: str) -> None:
    assert resolved("env=CartPole-v1")["stop_at_return"] == 490.0
    assert resolved("env=CartPole-v1", change)["stop_at_return"] is None
    assert resolved("env=CartPole-v1", change, "stop_at_return=150")["stop_at_return"] == 150.0
    assert resolved("env=CartPole-v1", change)["algo"]["n_step"] == 10  # the rest of the tuned file still holds


@pytest.mark.parametrize(
    ("line", "meant"),
    [("algo=double_dqn", "algo=dqn"), ("algo=DDQN", "algo=dqn"), ("algo=dueling-dqn", "algo=dqn network=dueling")],
)
def test_words_of_other_programs_are_answered_with_ours(line: str, meant: str) -> None:
    with pytest.raises(RequestError, match=f"it is {meant}"):
        resolved(line)


@pytest.mark.parametrize("meant", sorted(set(OTHER_WORDS.values())))
def test_what_is_answered_is_a_request_that_is_taken(meant: str) -> None:
    words = meant.partition(" (")[0].split()
    resolved(*words, *(["env=FrozenLake-v1"] if "algo=q_learning" in words else []))
