"""The catalogue of `make mutants` follows the code: a bug whose place has gone would show nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_mutant_has_its_place_and_its_test() -> None:
    outdated = []
    for path in sorted((ROOT / "tests" / "mutants").glob("*.toml")):
        for mutant in tomllib.loads(path.read_text())["mutant"]:
            file, _, test = mutant["test"].partition("::")
            name = test.rpartition("::")[2].partition("[")[0]
            edits = mutant.get("edit", [mutant])
            texts = [(ROOT / edit["file"]).read_text().count(edit["old"]) for edit in edits]
            if set(texts) != {1} or not _defines(ROOT / file, name):
                outdated.append(mutant["bug"])
    assert outdated == []


def _defines(file: Path, name: str) -> bool:
    """Whether a test file has the test, or the class, of that very name; of no name: whether it is there."""
    return re.search(rf"(def|class) {name}\b" if name else "", file.read_text()) is not None
