"""How the program speaks: docstrings begin with a noun or a verb, and callers have names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rltrain"
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def _docstrings(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield " ".join(node.value.value.split())


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_say_it_plainly(folder: str) -> None:
    texts = [text for path in sorted((PACKAGE / folder).glob("*.py")) for text in _docstrings(path)]
    assert texts
    assert [text for text in texts if re.match(r"(What|Who|Something)\b", text)] == []
    assert [text for text in texts if re.search(r"\b(somebody|someone|whoever)\b", text, re.IGNORECASE)] == []
