"""Whether every case of `resume_cases` still gives the numbers that another commit gives, on this machine.

    python tests/same_numbers.py REV [-k WORDS]

Each case is trained at REV and here, alone and as a population of three, and once stopped and resumed. Checkpoints and
rows of metrics must be equal bit for bit. What only one of the two has, such as a metric that was added since, is left
out and named at the end. No numbers are stored: they differ from machine to machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def train_cases(folder: Path, words: str) -> None:
    """Trains into `folder`, with whichever rltrain and tests are first in the path; skips what is there."""
    from resume_cases import CASES
    from test_resume_matrix import train_members
    from whole_runs import StopAfter, resume, train

    from rltrain.config.population import structure

    for name, config in CASES.items():
        if words not in name:
            continue
        looks = train(config, folder / name / "alone")
        train(config, folder / name / "resumed", StopAfter(looks // 2))
        assert resume(folder / name / "resumed") == 0
        if structure(config) is not None:
            train_members(config, folder / name / "members")


def in_tree(tree: Path, folder: Path, words: str) -> None:
    """`train_cases` in a process of its own, with the sources of `tree`."""
    places = os.pathsep.join(map(str, (tree, tree / "tests", tree / "tests" / "e2e")))
    with tempfile.TemporaryDirectory() as elsewhere:  # not beside the tests of this tree
        script = shutil.copy(__file__, elsewhere)
        command = [sys.executable, script, "--into", str(folder), "-k", words]
        variables = {**os.environ, "PYTHONPATH": places, "RLTRAIN_PLUGINS": "probe_envs", "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=elsewhere, env=variables, stdout=subprocess.DEVNULL)


def of_both(here: Any, there: Any, where: str, lone: set[str]) -> tuple[Any, Any]:
    """Nested dicts without the keys that only one of them has, which are put into `lone`."""
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return here, there
    lone |= {re.sub(r"^metrics\.\d+", "metrics", f"{where}.{key}") for key in here.keys() ^ there.keys()}
    pairs = {key: of_both(here[key], there[key], f"{where}.{key}", lone) for key in here.keys() & there.keys()}
    return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}


def compare(runs: list[Path], here: Path, there: Path, lone: set[str]) -> list[str]:
    """Which of the runs differ, and where; what only one side has is put into `lone`."""
    from whole_runs import assert_same_data, newest, rows

    different = []
    for run in runs:
        checkpoints = newest(here / run), newest(there / run)
        contents: list[dict[str, Any]] = [{"step": c.step, "tensors": c.tensors, "state": c.state} for c in checkpoints]
        logged = [{str(row["step"]): row for row in rows(folder / run)} for folder in (here, there)]
        try:
            for name, pair in (("checkpoint", contents), ("metrics", logged)):
                assert_same_data(*of_both(pair[0], pair[1], name, lone), name)
        except AssertionError as error:
            different.append(f"{run}: {str(error).splitlines()[0]}")
    return different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev", nargs="?", help="the commit to compare with")
    parser.add_argument("-k", dest="words", default="", help="only cases whose name contains this")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the runs of REV for the next time")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.into:
        train_cases(args.into, args.words)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        there = (args.keep or Path(temporary) / "rev").resolve()
        if not there.exists():
            tree = Path(temporary) / "tree"
            subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, args.rev], check=True)
            try:
                in_tree(tree, there, args.words)
            finally:
                subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
        here = Path(temporary) / "here"
        in_tree(ROOT, here, args.words)
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        records = (record.parent.relative_to(there) for record in there.rglob("run.json"))
        runs = sorted(run for run in records if args.words in run.parts[0])
        lone: set[str] = set()
        different = compare(runs, here, there, lone)
    print(*different, *(f"only here or only at {args.rev}: {name}" for name in sorted(lone)), sep="\n")
    print(f"{len(runs) - len(different)} of {len(runs)} runs are equal")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
