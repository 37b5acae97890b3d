"""A Slurm of this machine alone: `sbatch`, `srun`, `squeue`, `scontrol` and `scancel`, as far as submitit and rltrain
use them. Its state is in the folder $FAKE_SLURM: a file per job with its state and node."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")

_NOWHERE: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def install(folder: Path) -> dict[str, str]:
    """Makes the commands; the environment in which they are found."""
    bin, state = folder / "bin", folder / "slurm"
    bin.mkdir(parents=True)
    state.mkdir()
    for name in COMMANDS:
        script = bin / name
        script.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{__file__}' {name} \"$@\"\n")
        script.chmod(0o755)
    return {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(state)}


def states(environment: Mapping[str, str]) -> dict[str, str]:
    """Job -> its state."""
    files = Path(environment["FAKE_SLURM"]).glob("*.state")
    return {file.stem: file.read_text().partition("|")[0] for file in files}


def step(environment: Mapping[str, str], job: str) -> int:
    """The process in which srun started what a job runs; 0 where it has not."""
    file = Path(environment["FAKE_SLURM"]) / f"{job}.step"
    return int(file.read_text() or 0) if file.exists() else 0


def _here() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def _state(job: str, text: str) -> None:
    file = _here() / f"{job}.state"
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def sbatch(script: str) -> int:
    refusal = _here() / "refusal"
    if refusal.exists():
        print(refusal.read_text(), file=sys.stderr)
        return 1
    number = 1 + sum(1 for _ in _here().glob("*.sh"))
    copy = _here() / f"{number}.sh"
    copy.write_text(Path(script).read_text())
    for job, _ in _jobs(copy):
        _state(job, "PENDING|")
    if not (_here() / "full").exists():  # else all wait for ever
        subprocess.Popen([sys.executable, __file__, "control", str(copy)], start_new_session=True, **_NOWHERE)
    print(f"Submitted batch job {number}")
    return 0


def _jobs(script: Path) -> list[tuple[str, dict[str, str]]]:
    """The jobs of a script and the variables of each."""
    array = re.search(r"^#SBATCH --array=0-(\d+)%(\d+)", script.read_text(), re.MULTILINE)
    common = {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1", "SLURM_PROCID": "0"}
    if array is None:
        return [(script.stem, {**common, "SLURM_JOB_ID": script.stem})]
    return [
        (f"{script.stem}_{n}", {**common, "SLURM_JOB_ID": f"9{n}", "SLURM_ARRAY_JOB_ID": script.stem,
                                "SLURM_ARRAY_TASK_ID": str(n)})
        for n in range(int(array[1]) + 1)
    ]  # fmt: skip


def control(script: str) -> int:
    text = Path(script).read_text()
    parallel = re.search(r"^#SBATCH --array=\S+%(\d+)", text, re.MULTILINE)
    with ThreadPoolExecutor(int(parallel[1]) if parallel else 1) as pool:
        for job, variables in _jobs(Path(script)):
            pool.submit(_run, script, job, variables)
    return 0


def _run(script: str, job: str, variables: dict[str, str]) -> None:
    again, cancelled = _here() / f"{job}.requeue", _here() / f"{job}.cancelled"
    while not cancelled.exists():
        _state(job, "RUNNING|node1")
        environment = {**os.environ, **variables, "FAKE_JOB": job}
        code = subprocess.run(["bash", script], env=environment, check=False).returncode
        if not again.exists():
            _state(job, "CANCELLED|node1" if cancelled.exists() else "FAILED|node1" if code else "COMPLETED|node1")
            return
        again.unlink()


def srun(*args: str) -> None:
    words = list(args)
    while words[0].startswith("--"):
        option = words.pop(0)
        if option == "--output":
            job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
            name = words.pop(0).replace("%A", job).replace("%a", os.environ.get("SLURM_ARRAY_TASK_ID", ""))
            log = os.open(name.replace("%j", job).replace("%t", "0"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
    (_here() / f"{os.environ['FAKE_JOB']}.step").write_text(str(os.getpid()))
    os.execvp(words[0], words)


def squeue(*_: str) -> int:
    for file in sorted(_here().glob("*.state")):
        print(f"{file.stem}|{file.read_text()}")
    return 0


def scontrol(what: str, job: str) -> int:
    assert what == "requeue"
    (_here() / f"{job}.requeue").touch()
    return 0


def scancel(*jobs: str) -> int:
    for file in _here().glob("*.state"):
        if file.stem.partition("_")[0] in jobs or file.stem in jobs:
            (_here() / f"{file.stem}.cancelled").touch()
            if file.read_text().startswith("PENDING"):
                _state(file.stem, "CANCELLED|")
            elif pid := step(os.environ, file.stem):
                os.kill(pid, signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](*sys.argv[2:]))
