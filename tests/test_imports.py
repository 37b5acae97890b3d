"""The arrows of the layout: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from rltrain.config.schema import ALGO_CONFIGS

PACKAGE = Path(__file__).parents[1] / "rltrain"
BASE = {"errors", "seeding", "storage.files", "terminal", "types"}
"""What everybody may use; among each other: nothing."""
ALLOWED: dict[str, set[str]] = {
    "cli": {"commands", "config"},
    "api": {"commands", "compute.device", "config.command_names", "loggers.jsonl", "policy", "report.curve", "storage"},
    "commands": {
        "cluster", "compute.device", "config", "envs.probe", "envs.process_state", "jobs", "loggers.evaluation_console",
        "loggers.further", "loggers.jsonl", "machine", "maths.images", "policy", "report", "storage", "training",
        "tuning",
    },
    # Tasks of a sweep on other machines; what runs there is a command.
    "cluster": {"config.launchers", "storage", "training.stopping"},
    "config": set(),
    "machine": set(),
    # The wiring: from a config to parts, from parts to a run, from a checkpoint to a policy.
    "policy": {"agents", "compute.device", "config", "envs", "storage", "training"},
    "jobs": {
        "agents", "compute", "config", "engine.protocol", "engine.stepping", "envs", "loggers", "machine", "policy",
        "report", "storage", "training",
    },
    # training knows agents and loggers by their protocols.
    "training": {"config.algorithms", "config.schema", "engine.protocol", "envs", "loggers.logger", "storage"},
    "report": {"config", "envs", "loggers.curve_events", "loggers.jsonl", "storage", "training.outcome"},
    "tuning": {"config", "storage"},
    "storage": {"machine"},
    # Algorithms by name; the engine runs any of them and names none.
    "agents": {"config.schema", "engine", "experience", "maths", "networks"},
    "engine": {"compute", "config.schema", "experience", "maths", "networks"},
    "experience": {"compute.staging", "config.schema"},
    "networks": {"config.schema", "maths.distributional", "maths.images"},
    "maths": {"config.schema"},
    "compute": {"config.algorithms", "config.schema", "machine"},
    "envs": {"config.env_families", "config.schema", "config.wrappers", "machine", "maths.images"},
    "loggers": set(),
}  # fmt: skip
HOMES: dict[str, set[str]] = {
    "hydra": {"config", "commands"},
    "omegaconf": {"config", "commands"},
    "tensorboard": {"loggers.curve_events", "loggers.tensorboard"},
    "wandb": {"loggers.wandb"},
    "tqdm": {"loggers.console", "loggers.evaluation_console"},
    "gymnasium": {"envs", "config.env_source", "config.env_families"},
    "minatar": {"envs.minatar"},
    "ale_py": {"config.env_families", "envs.atari", "envs.native"},
    "cloudpickle": {"envs"},
    "matplotlib": {"report"},
    "optuna": {"tuning"},
    "ray": {"cluster.ray_tasks"},
    "submitit": {"cluster"},
    "PIL": {"policy", "report"},
    "safetensors": {"storage"},
    "yaml": {"config", "storage"},
}
NO_TORCH = {
    "cli",
    "cluster",
    "commands",
    "config",
    "envs",
    "loggers",
    "maths.images",
    "maths.schedules",
    "report",
    "tuning",
    *BASE,
}
NEEDED_TO_REFUSE = {"hydra", "omegaconf", "yaml"}
"""The packages that a request may load before it is known to be right (and `--help` before anything)."""


@dataclass(frozen=True)
class Import:
    by: str  # the importing module, without `rltrain.`: "agents.dqn"; the package itself is "agents"
    of: str  # an own module, likewise, or the name of another package
    own: bool
    when: str  # "start": as the module is imported; "call": inside a function; "types": for type checkers only


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


MODULES = {_name(path): path for path in PACKAGE.rglob("*.py")}


def _statements(node: ast.AST, when: str = "start") -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(child, "call")
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _statements(child, "types")
        else:
            yield from _statements(child, when)


def _imports(module: str, source: str) -> Iterator[Import]:
    for statement, when in _statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            assert statement.level == 0, f"{module}: relative imports hide where something lies"
            # `from rltrain.storage import checkpoint` is of the module, not only of its package.
            full = [f"{statement.module}.{alias.name}" for alias in statement.names]
            names = [name if name.removeprefix("rltrain.") in MODULES else str(statement.module) for name in full]
        for name in names:
            top, _, rest = name.partition(".")
            yield Import(module, rest if top == "rltrain" else top, top == "rltrain", when)


IMPORTS = [entry for module, path in MODULES.items() for entry in _imports(module, path.read_text())]


def _unit(module: str) -> str:
    return module.partition(".")[0]


def _within(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def _wrong_arrows(imports: list[Import]) -> list[str]:
    wrong = []
    for entry in imports:
        by = _unit(entry.by)
        if not entry.own or not entry.of or by in ("", "__main__", _unit(entry.of)):
            continue
        allowed = set() if _within(entry.by, BASE) else ALLOWED.get(by, set()) | BASE
        if not _within(entry.of, allowed):
            wrong.append(f"{entry.by} -> {entry.of}")
    return wrong


def test_arrows_point_one_way() -> None:
    assert _wrong_arrows(IMPORTS) == []


def test_every_part_has_its_place_in_the_layout() -> None:
    assert {_unit(module) for module in MODULES} - {"", "__main__"} == {*ALLOWED, *map(_unit, BASE)}


def test_the_engine_names_no_algorithm_and_an_algorithm_no_members() -> None:
    names = re.compile(r"\b(dqn|c51|qr_?dqn|iqn|reinforce|q_learning|DQNConfig|C51Config)\b", re.IGNORECASE)
    for path in sorted((PACKAGE / "engine").glob("*.py")):
        assert names.findall(path.read_text()) == [], path.name
    for name in ("dqn", "c51", "qr_dqn", "iqn", "epsilon_greedy", "ppo", "pqn"):
        text = (PACKAGE / "agents" / f"{name}.py").read_text()
        assert re.findall(r"\b(members?|population|compil\w*|vmap)\b", text) == [], name


def _names_an_algorithm(tree: ast.AST) -> Iterator[str]:
    """Classes of one algorithm's keys, type tests on any algorithm's keys, and algorithms' names as text."""
    own = {cls.__name__ for cls in ALGO_CONFIGS.values()}
    families = {base.__name__ for cls in ALGO_CONFIGS.values() for base in cls.__mro__} - {"object"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.name in own)
        elif isinstance(node, ast.Attribute) and node.attr in own:
            yield node.attr
        elif isinstance(node, ast.Constant) and node.value in ALGO_CONFIGS:
            yield str(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            yield from (name for name in families if re.search(rf"\b{name}\b", ast.unparse(node.args[1])))
        elif isinstance(node, ast.MatchClass) and ast.unparse(node.cls).rpartition(".")[2] in families:
            yield ast.unparse(node.cls)


def test_no_algorithm_is_named_outside_agents_and_config() -> None:
    """What the rest must know of one is on its card (config/algorithms.py)."""
    named = {
        module: sorted(set(_names_an_algorithm(ast.parse(path.read_text()))))
        for module, path in MODULES.items()
        if _unit(module) not in ("agents", "config")
    }
    assert {module: names for module, names in named.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from rltrain.config.schema import DQNConfig",
        "schema.C51Config",
        "isinstance(config.algo, QNetworkConfig | None)",
        "config.algo.name == 'reinforce'",
        "match algo:\n  case QLearningConfig(): pass",
    ],
)
def test_a_name_of_an_algorithm_would_be_noticed(code: str) -> None:
    assert list(_names_an_algorithm(ast.parse(code)))


def test_the_layout_has_no_cycle() -> None:
    TopologicalSorter({unit: {_unit(other) for other in others} for unit, others in ALLOWED.items()}).prepare()


def test_no_module_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for entry in IMPORTS:
        if entry.own and entry.when != "types" and entry.by != "":
            graph[entry.by].add(entry.of)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("package", HOMES)
def test_other_packages_stay_where_they_are_wrapped(package: str) -> None:
    users = {entry.by for entry in IMPORTS if entry.of == package and not entry.own}
    assert users
    assert [user for user in users if not _within(user, HOMES[package])] == []


def test_torch_stays_away_from_the_command_line_and_the_environments() -> None:
    assert [entry for entry in IMPORTS if entry.of == "torch" and _within(entry.by, NO_TORCH)] == []


def test_the_env_id_source_imports_gymnasium_only_when_asked() -> None:
    sources = {
        ("config.env_source", "gymnasium"),
        ("config.env_families", "gymnasium"),
        ("config.env_families", "ale_py"),
    }
    assert {e.when for e in IMPORTS if (e.by, e.of) in sources} <= {"call", "types"}


def test_a_request_is_refused_without_loading_what_trains() -> None:
    """Follows what the command line imports at once; a package's own file comes with each of its modules."""
    seen: set[str] = set()
    to_see = [module for module in MODULES if _unit(module) in ("cli", "commands", "config")]
    loaded: dict[str, str] = {}
    while to_see:
        module = to_see.pop()
        if module in seen:
            continue
        seen.add(module)
        to_see += [module.rpartition(".")[0]]
        for entry in IMPORTS:
            if entry.by == module and entry.when == "start":
                if entry.own:
                    to_see.append(entry.of)
                else:
                    loaded.setdefault(entry.of, module)
    heavy = {*HOMES, "torch", "numpy", "tqdm"} - NEEDED_TO_REFUSE
    assert {package: by for package, by in loaded.items() if package in heavy} == {}


def test_a_wrong_import_is_seen() -> None:
    wrong = {
        "maths.value": "import torch\nfrom rltrain.agents.dqn import DQN",
        "training.loop": "def f():\n    from rltrain.agents.dqn import DQN",
        "agents.dqn": "import rltrain.envs.vector",
        "envs.vector": "from rltrain.storage import checkpoint",
        "errors": "from rltrain.types import Episode",
    }
    entries = [entry for module, source in wrong.items() for entry in _imports(module, source)]
    assert _wrong_arrows(entries) == [
        "maths.value -> agents.dqn", "training.loop -> agents.dqn", "agents.dqn -> envs.vector",
        "envs.vector -> storage.checkpoint", "errors -> types",
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="relative"):
        list(_imports("envs.vector", "from . import lanes"))


def test_the_package_shows_what_it_offers() -> None:
    code = (
        "import sys, rltrain; shown = [name for name in dir(rltrain) if name[0] != '_']"
        "; assert shown == ['Run', 'Sweep', 'load', 'sweep', 'train']"
        "; assert 'torch' not in sys.modules; from rltrain import *; assert load is rltrain.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
