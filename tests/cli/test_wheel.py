"""The built wheel in an environment of its own, started from another directory."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_carries_its_configs(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = tmp_path.glob("rltrain-*.whl")
    clean = tmp_path / "clean"
    venv.create(clean, with_pip=False)
    packages = clean / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(packages), str(wheel)], check=True, timeout=120)
    # The dependencies come from this environment, without its .pth files: the editable install stays invisible.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python, elsewhere = clean / "bin" / "python", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*args: str) -> str:
        command = [str(python), "-I", "-m", "rltrain", *args]
        return subprocess.run(command, cwd=elsewhere, check=True, capture_output=True, text=True, timeout=120).stdout

    where = subprocess.run(
        [str(python), "-I", "-c", "import rltrain.config.folders as f; print(f.conf_folder())"],
        cwd=elsewhere, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert Path(where.strip()) == packages / "rltrain" / "conf"
    assert "name: soft" in run("--cfg", "job", "-p", "target_update")  # of the tuned file; the default is hard
    assert "decay: 0.995" in run("experiment=lecture_dqn", "--cfg", "job")
    assert "lecture_dqn" in run("list", "experiments")
    run("total_steps=1100", "eval.episodes=1")
    assert list(elsewhere.glob("outputs/*/*/result.json"))
