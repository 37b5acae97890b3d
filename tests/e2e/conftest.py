"""Finished runs that several files look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from whole_runs import DQN_ARGS, REINFORCE_ARGS

from rltrain.cli import main


@pytest.fixture(autouse=True, scope="module")
def _probes_are_trusted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLTRAIN_PLUGINS", "probe_envs")
        yield


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, `dqn` and `reinforce` (with Box actions), as the command line leaves them, and what it said in
    `<run>.out` and `<run>.err`. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    for algo, args in (("dqn", DQN_ARGS), ("reinforce", REINFORCE_ARGS)):
        out, error = folder / f"{algo}.out", folder / f"{algo}.err"
        with pytest.MonkeyPatch.context() as patch, out.open("w") as o, error.open("w") as e:
            patch.chdir(folder)
            with redirect_stdout(o), redirect_stderr(e):
                assert main([*args, f"hydra.run.dir={algo}"]) == 0
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    """A copy of the finished DQN run."""
    return Path(shutil.copytree(place / "dqn", tmp_path / "run"))
