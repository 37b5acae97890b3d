"""What a module offers says what it is."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "rltrain"
SAY_IT_BY_NAME = {"has_compiler"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def has_docstring(node: Function | ast.ClassDef) -> bool:
    return bool(ast.get_docstring(node, clean=False))


def classes(module: ast.Module) -> Iterator[tuple[ast.ClassDef, set[str]]]:
    """With the names of their bases."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            yield node, {ast.unparse(base) for base in node.bases}


def functions(node: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """The public ones, without setters."""
    for child in node.body:
        public = isinstance(child, Function) and not child.name.startswith("_")
        if public and not any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in child.decorator_list):
            yield child


def documented(modules: Collection[ast.Module], protocols: bool) -> set[str]:
    """Names of methods that some class, or some protocol, explains."""
    found = [cls for module in modules for cls, bases in classes(module) if "Protocol" in bases or not protocols]
    return {method.name for cls in found for method in functions(cls) if has_docstring(method)}


def undocumented(modules: Collection[ast.Module]) -> list[str]:
    """Functions and classes without a docstring, and methods that neither their protocol nor a base class explains."""
    anywhere, by_protocols = documented(modules, False), documented(modules, True)
    return [name for module in modules for name in _undocumented(module, anywhere, by_protocols)]


def _undocumented(module: ast.Module, anywhere: set[str], by_protocols: set[str]) -> Iterator[str]:
    for function in functions(module):
        if not has_docstring(function) and function.name not in SAY_IT_BY_NAME:
            yield function.name
    for cls, bases in classes(module):
        if cls.name.startswith("_"):
            continue
        if not has_docstring(cls):
            yield cls.name
        inherits = bool(bases - {"Protocol", "NamedTuple"}) and "Protocol" not in bases
        known = anywhere if "Protocol" in bases else by_protocols
        for method in functions(cls):
            if not (inherits or has_docstring(method) or method.name in known):
                yield f"{cls.name}.{method.name}"


def test_public_functions_classes_and_methods_have_docstrings() -> None:
    assert undocumented([ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]) == []


def test_what_is_missing_is_seen() -> None:
    module = ast.parse('def f(): ...\ndef _g(): ...\ndef h():\n    """Says what."""\nclass A:\n    def m(self): ...')
    assert undocumented([module]) == ["f", "A", "A.m"]


def test_what_a_protocol_or_a_base_class_says_is_not_said_again() -> None:
    module = ast.parse(
        'class P(Protocol):\n    """P."""\n    def m(self):\n        """Says what."""\n    def n(self): ...\n'
        'class A:\n    """A."""\n    def m(self): ...\n    def n(self): ...\n'
        'class B(A):\n    """B."""\n    def o(self): ...\n'
    )
    assert undocumented([module]) == ["P.n", "A.n"]
