"""docs/algorithms: the functions, files and pictures that a page names are there, and its lines are the code's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from halves import often

from rltrain.config.application import compose

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "algorithms").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in target]
    assert targets
    assert [target for target in targets if not (page.parent / target).resolve().exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_names_are_in_the_agent_s_file_or_in_a_file_that_the_page_links(page: Path) -> None:
    text = page.read_text()
    own = f"rltrain/agents/{page.stem}.py"
    files = {*([own] if (ROOT / own).exists() else []), *re.findall(r"\]\(\.\./\.\./(rltrain/[\w/]+\.py)\)", text)}
    modules = [importlib.import_module(file.removesuffix(".py").replace("/", ".")) for file in sorted(files)]
    # Classes, their members, and functions: `Name`, `Name.member`, and `function` where a module has such a one.
    source = "\n".join((ROOT / file).read_text() for file in files)
    names = set(re.findall(r"`((?:[A-Z]\w+)(?:\.\w+)?|[a-z]+(?:_[a-z]+)+|_[a-z]\w*)`", text))
    keys = {key.rpartition(".")[2] for key in re.findall(r"`([\w.]+)`", text) if "." in key}
    schema = (ROOT / "rltrain" / "config" / "schema.py").read_text()
    lost = []
    for name in names:
        owner, _, member = name.partition(".")
        found = [getattr(module, owner) for module in modules if hasattr(module, owner)]
        if member:
            defined = any(re.search(rf"(def {member}\(|self\.{member}\b)", source) for _ in found)
        else:
            key = owner in keys or f"    {owner}: " in schema or f'"{owner}"' in schema + source
            defined = bool(found) or f"def {owner}(" in source or key
        if not defined:
            lost.append(name)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_lines_are_the_file_s(page: Path) -> None:
    files = sorted((ROOT / "rltrain" / "agents").glob(f"{page.stem}*.py"))
    source = re.sub(r"\s+", " ", "\n".join(file.read_text() for file in files))
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        for line in block.splitlines():
            if line.strip() and not line.startswith("def "):
                assert re.sub(r"\s+", " ", line.strip()) in source, line


@pytest.mark.parametrize("page", often(PAGES, PAGES[::3]), ids=lambda page: page.stem)
def test_the_commands_are_requests_that_are_taken(page: Path) -> None:
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
        for line in block.splitlines():
            command = line.partition("#")[0].split()
            if command[:1] == ["rltrain"] and "-m" not in command:
                compose(command[1:])
