"""Whether every case of `resume_cases` still gives the numbers that another commit gives, on this machine.

    python tests/same_numbers.py REV [-k WORDS]

Each case is trained at REV and here, alone and as a population of three, and once stopped and resumed. Checkpoints and
rows of metrics must be equal bit for bit. No numbers are stored: they differ from machine to machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def compare(runs: list[Path], here: Path, there: Path) -> list[str]:
    """Which of the runs differ, and where."""
    from whole_runs import assert_same_checkpoint, newest, rows

    different = []
    for run in runs:
        try:
            assert_same_checkpoint(newest(here / run), newest(there / run))
            assert rows(here / run) == rows(there / run), "rows of metrics"
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
        different = compare(runs, here, there)
    print(*different, f"{len(runs) - len(different)} of {len(runs)} runs are equal", sep="\n")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
