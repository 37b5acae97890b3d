"""What a module offers says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rltrain"
SAY_IT_BY_NAME = {"make_hyperparameters", "has_compiler", "Finished"}


def undocumented(source: str) -> Iterator[str]:
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and node.name not in SAY_IT_BY_NAME
            and not ast.get_docstring(node)
        ):
            yield node.name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_and_classes_have_docstrings(path: Path) -> None:
    assert list(undocumented(path.read_text())) == []


def test_what_is_missing_is_seen() -> None:
    source = 'def f(): ...\ndef _g(): ...\nclass A: ...\ndef h():\n    """Says what."""\nclass B:\n    def m(self): ...'
    assert list(undocumented(source)) == ["f", "A", "B"]
