"""`make mutants`: puts known bugs in, one by one, and shows that the test named for each goes red.

A guard that cannot fail is a defect. The bugs are in *.toml beside this file; each is a replacement of text that must
occur exactly once (or several: `[[mutant.edit]]`), so a change of the code that outdates a mutant is noticed. Every
mutant runs in a copy of the tree.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("rltrain", "conf", "tests", "README.md", "pyproject.toml")
NO_TEST_FAILED = 0
TESTS_FAILED = 1
IMPORTED_ONCE = ["numpy", "torch", "gymnasium", "hydra", "pytest"]
"""By the process from which all tests are forked: each would spend three seconds on them."""
LONGEST = 600.0
"""Seconds of a test."""


@dataclass(frozen=True)
class Mutant:
    """A bug: replacements of text, and the test that must notice."""

    bug: str
    edits: tuple[tuple[str, str, str], ...]
    """(file, old text, new text)."""
    test: str


def catalogue() -> list[Mutant]:
    mutants = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutant"]:
            edits = tuple((edit["file"], edit["old"], edit["new"]) for edit in entry.get("edit", [entry]))
            mutants.append(Mutant(entry["bug"], edits, entry["test"]))
    return mutants


def verdict(mutant: Mutant) -> str:
    """`caught`, or what is wrong: `SURVIVED`, `OUTDATED` (the text to replace is not there once), `BROKEN`."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name)
            elif source.exists():
                shutil.copy(source, tree / name)
        for file, old, new in mutant.edits:
            text = (tree / file).read_text()
            if text.count(old) != 1:
                return f"OUTDATED: {file} has this text {text.count(old)} times: {old!r}"
            (tree / file).write_text(text.replace(old, new))
        code = run_test(tree, mutant.test)
    if code == TESTS_FAILED:
        return "caught"
    return "SURVIVED" if code == NO_TEST_FAILED else f"BROKEN: pytest ended with {code}"


def run_test(tree: Path, test: str) -> int:
    process = multiprocessing.get_context("forkserver").Process(target=_run_test, args=(str(tree), test))
    process.start()
    process.join(LONGEST)
    if process.exitcode is None:
        process.kill()
        process.join()
    return int(process.exitcode or 0)


def _run_test(tree: str, test: str) -> None:
    import pytest

    os.chdir(tree)
    sys.path.insert(0, tree)
    os.environ["PYTHONPATH"] = tree
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{tree}/.hypothesis"
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os._exit(int(pytest.main(["-x", "-q", "-m", "", "-p", "no:cacheprovider", test])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose bug, test or file contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    mutants = [m for m in catalogue() if options.only in " ".join([m.bug, m.test, *(file for file, _, _ in m.edits)])]
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED_ONCE)
    failures = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, found in zip(mutants, pool.map(verdict, mutants), strict=True):
            failures += found != "caught"
            print(f"{found:<9} {mutant.bug}  [{mutant.test.rpartition('/')[2]}]", flush=True)
    print(f"{len(mutants) - failures} caught, {failures} not")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
