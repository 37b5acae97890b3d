"""What is wrong in a config file of the user's own is answered with the file, the line and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltrain.config.application import compose
from rltrain.errors import RequestError

HEADER = "# @package _global_\n"
LACKS_IT = "FILE:1: write `# @package _global_` as the first line"


def refusal(folder: Path, file: str, text: str | bytes, *overrides: str) -> str:
    path = folder / f"{file}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RequestError) as error:
        compose([file.replace("/", "="), *overrides], str(folder))
    message = str(error.value)
    assert len(message.splitlines()) <= 3
    return message.replace(f"{path}", "FILE")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# mine\ntotal_steps: 1000\n", LACKS_IT),
        ("defaults: [{override /algo: dqn}]\nseed: 1\n", LACKS_IT),
        (f"# mine\n{HEADER}defaults: [{{override /algo: dqn}}]\n", LACKS_IT),
        ("# @package algo\ngamma: 0.9\n", LACKS_IT),
        ("- 1\n", LACKS_IT),
        (HEADER + "seed: 1\ngama: 0.9\n", "FILE:3: gama: unknown key; did you mean algo.gamma?"),
        (
            HEADER + "defaults: [{override /algo: dqn}]\nalgo:\n  loss: mse\n  gama: 0.9\n",
            "FILE:5: algo.gama: unknown key of algo=dqn; did you mean algo.gamma?",
        ),
        (
            HEADER + "defaults:\n - override /exploration: linear\nexploration: {decay: 0.9}\n",
            "FILE:4: exploration.decay: unknown key of exploration=linear; it belongs to",
        ),
        (HEADER + "algo: reinforce\n", "FILE: has a section algo: but does not say for which"),
        (HEADER + "seed: 1\ntotal_steps: abc\n", "FILE:3: total_steps=abc: must be an integer >= 1"),
        (HEADER + "seed: ${sed}\n", "FILE:2: seed: Interpolation key 'sed' not found"),
        (HEADER + "seed: [1\ntotal_steps: 3\n", "FILE:3: is no YAML: expected ',' or ']'"),
        (HEADER + "\tseed: 1\n", "FILE:2: is no YAML: found character '\\t'"),
        (HEADER + "seed: 1\nseed: 2\n", "FILE:3: is no YAML: found duplicate key seed"),
        (b"\xff\xfe", "FILE: is no text in UTF-8"),
        (HEADER + "defaults:\n  - override /algo: dqqn\n", "FILE:3: algo=dqqn: no such choice; did you"),
        (HEADER + "defaults:\n  - algo: dqn\n", "FILE:3: write `- override /algo: dqn`"),
    ],
)  # fmt: skip
def test_an_experiment(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path, "experiment/mine", text).startswith(message)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("network/small", "name: mlp\nhiden: [3]\n", "FILE:2: network.hiden: unknown key"),
        ("env/Mine", "id: CartPole-v1\nkwrgs: {a: 1}\n", "FILE:2: env.kwrgs.a: unknown key"),
        ("env/CartPole-v1", "id: CartPole-v1\nreward_clip: -1\n", "FILE:2: env.reward_clip=-1: must be"),
        ("tuned/dqn_Mine", "algo: {gamma: 0.9}\n", "FILE:1: write `# @package _global_`"),
        ("algo/mine", "defaults: [{/network: mlp}, _self_]\nalgo: {name: dqn}\n", LACKS_IT),
        ("tuned/dqn_Mine", HEADER + "algo:\n  gama: 0.9\n", "FILE:3: algo.gama: unknown key of algo=dqn"),
    ],
)
def test_files_of_other_groups(tmp_path: Path, file: str, text: str, message: str) -> None:
    assert refusal(tmp_path, file, text).startswith(message)


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("algo/mine", HEADER + "name: a run\nalgo:\n  name: mine\n  heat: 1\n", 4),
        ("network/mine", "name: mine\nheat: 1\n", 1),
    ],
)
@pytest.mark.parametrize("typed", [(), ("GROUP.heat=3",)], ids=["", "typed"])
def test_a_plug_in_that_is_not_named(tmp_path: Path, file: str, text: str, line: int, typed: tuple[str, ...]) -> None:
    """None of its keys can be known, and no other word is what was meant."""
    group = file.partition("/")[0]
    message = refusal(tmp_path, file, text, *(word.replace("GROUP", group) for word in typed))
    assert message.startswith(f"FILE:{line}: {group}.name=mine: is not registered; if a plug-in adds it, RLTRAIN_PLUG")
    assert "heat" not in message and "did you mean" not in message


def test_a_file_may_give_a_registered_algorithm_another_name(tmp_path: Path) -> None:
    wrong = refusal(tmp_path, "algo/mine", HEADER + "name: a_run\ndefaults: [dqn, _self_]\nalgo: {gama: 0.9}\n")
    assert wrong.startswith("FILE:4: algo.gama: unknown key of algo=mine; did you mean algo.gamma?")


def test_a_value_that_is_typed_is_not_the_file_s(tmp_path: Path) -> None:
    assert refusal(tmp_path, "experiment/mine", HEADER + "seed: 1\n", "seed=abc").startswith("seed=abc: must be")


def test_a_right_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"{HEADER}# mine\ndefaults: [{{override /env: CartPole-v1}}]\nseed: 4\n"
        "env: {kwargs: {sutton_barto_reward: true}}\n"
    )
    config, _ = compose(["experiment=mine"], str(tmp_path))
    assert config.seed == 4 and config.env.kwargs == {"sutton_barto_reward": True}
