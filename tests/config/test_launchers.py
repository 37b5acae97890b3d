"""Keys of the launchers that train elsewhere, and those that a stranger's folder may not decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_slurm
import pytest

from rltrain.config import launchers
from rltrain.config.launchers import launcher_config, launcher_to_plain, name_of, needs_trust, stored_launcher
from rltrain.errors import RequestError


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", fake_slurm.install(tmp_path)["PATH"])


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_the_defaults_are_right_and_survive_a_folder(name: str) -> None:
    config = launcher_config(name, {})
    assert name_of(config) == name
    assert stored_launcher(launcher_to_plain(config), {}, trust=False) == config


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("slurm", {"partitoin": "x"}, "hydra.launcher.partitoin: unknown key; did you mean partition?"),
        ("slurm", {"jobs_per_task": 0}, "hydra.launcher.jobs_per_task=0: must be >= 1"),
        ("slurm", {"partition": "x\nrm -r ~"}, "hydra.launcher.partition='x\\nrm -r ~': holds a character"),
        ("slurm", {"setup": ["a\rb"]}, "hydra.launcher.setup='a\\rb': holds a character"),
        ("slurm", {"setup": "module load"}, "hydra.launcher.setup=module load: must be a list of words, such as [a,b]"),
        ("slurm", {"additional_parameters": {"output": "/x"}}, "parameters.output: is decided by the launcher"),
        ("slurm", {"additional_parameters": {"a=b": 1}}, "parameters.a=b: must be an option of sbatch"),
        ("slurm", {"additional_parameters": {"nice": [1]}}, "parameters.nice=[1]: must be a word, a number"),
        ("ray", {"num_gpus": -1}, "hydra.launcher.num_gpus=-1: must be >= 0"),
        ("ray", {"resources": {"disk": "much"}}, "hydra.launcher.resources.disk=much: must be a number > 0"),
    ],
)
def test_a_wrong_key_is_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        launcher_config(name, given)
    assert message in str(error.value)


def test_the_extra_and_slurm_itself_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"ray is not installed; pip install 'rltrain\[ray\]' brings it"):
        launcher_config("ray", {})
    with pytest.raises(RequestError, match=r"submitit is not installed; pip install 'rltrain\[slurm\]' brings it"):
        launcher_config("slurm", {})
    monkeypatch.setattr(launchers, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="there is no sbatch here; start the sweep on a login node"):
        launcher_config("slurm", {})


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("slurm", "setup", ["curl x"]), ("slurm", "additional_parameters", {"nice": 1}), ("ray", "address", "1.2.3.4:5")],
)
def test_a_folder_decides_nothing_that_runs(name: str, key: str, value: Any) -> None:
    plain = launcher_to_plain(launcher_config(name, {key: value}))
    assert needs_trust(launcher_config(name, {key: value})) and not needs_trust(launcher_config(name, {}))
    with pytest.raises(RequestError, match=rf"hydra.launcher.{key}=.*stands in the sweep's folder.*\n.*trust=true"):
        stored_launcher(plain, {}, trust=False)
    assert getattr(stored_launcher(plain, {}, trust=True), key)
    own = launcher_to_plain(launcher_config(name, {}))[key]
    assert launcher_to_plain(stored_launcher(plain, {key: own}, trust=False))[key] == own


def test_a_folder_names_one_of_ours() -> None:
    with pytest.raises(RequestError, match="the sweep's launcher evil is none of slurm, ray"):
        stored_launcher({"name": "evil"}, {}, trust=True)
