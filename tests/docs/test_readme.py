"""README.md and the pages of docs/, literally: commands typed, files written, code run; only runs are shortened."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import rltrain.jobs.training
from rltrain.agents import AGENTS, POLICIES
from rltrain.cli import main
from rltrain.commands.tune_request import plan, read_request
from rltrain.config.application import launcher_of
from rltrain.config.schema import ALGO_CONFIGS, NETWORK_CONFIGS
from rltrain.config.search_space import read_space
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.spaces import from_env_observation
from rltrain.networks import NETWORKS

ROOT = Path(__file__).parents[2]
README, PLUG_INS = (ROOT / "README.md").read_text(), (ROOT / "docs" / "plugins.md").read_text()
POLICIES_PAGE = (ROOT / "docs" / "policies.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
REGISTRIES = (AGENTS, POLICIES, NETWORKS, ALGO_CONFIGS, NETWORK_CONFIGS, BATCHED_ENVS)
MODULES = ("corridor", "corridor_twin", "residual", "hill_climbing")
FILES: dict[str, str] = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", PLUG_INS, re.MULTILINE | re.DOTALL))


def code_blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_blocks(text: str) -> list[list[str]]:
    """The lines of each ```sh block that are about rltrain or the environment variables it reads."""
    lines = [
        [line for line in block.splitlines() if re.match(r"(\w+=\S+ )*(rltrain|export)\b", line)]
        for block in code_blocks("sh", text)
    ]
    return [block for block in lines if block]


GUIDES = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("settings", "speed", "environments", "sweeps")]
BEFORE = sorted(
    {line for text in (README, *GUIDES) for block in shell_blocks(text) for line in block if "my_module" not in line}
)
AFTER = shell_blocks(PLUG_INS)


class Typist:
    """Types lines of a shell in this process, shortening what they train."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, line: str, *more: str, run: str = "RUN") -> str:
        """The output of a line; one with the comment `# refused: why` must be refused with why."""
        words = shlex.split(line, comments=True)
        self._capfd.readouterr()
        with self._monkeypatch.context() as patch:
            while words and re.match(r"[A-Z_]+=", words[0]):
                self._set(patch, words.pop(0))
            if words[0] == "export":
                for word in words[1:]:
                    self._set(self._monkeypatch, word)
                return ""
            assert words[0] == "rltrain"
            code = main([run if word == "RUN" else word for word in words[1:]] + list(more))
        output, errors = self._capfd.readouterr()
        refused = re.search(r"# refused: (.*)", line)
        assert code == (2 if refused else 0), errors
        assert refused is None or refused[1] in errors
        return output

    @staticmethod
    def _set(patch: pytest.MonkeyPatch, assignment: str) -> None:
        name, _, value = assignment.partition("=")
        patch.setenv(name, value)
        if name == "PYTHONPATH":
            patch.syspath_prepend(str(Path(value).absolute()))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Typist]:
    for name in ("RLTRAIN_CONF", "RLTRAIN_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rltrain.jobs.training, "REPORT_EPISODES", 2)
    before = [dict(registry) for registry in REGISTRIES]
    yield Typist(monkeypatch, capfd)
    for registry, content in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(content)
    for name in [name for name in gymnasium.registry if name.startswith("Corridor")]:
        del gymnasium.registry[name]  # and nothing more: what packages of games have registered they do not again
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of half a second."""
    folder = tmp_path_factory.mktemp("readme") / "run"
    short = ["total_steps=300", "eval.period=150", "eval.episodes=1", "checkpoint.period=150"]
    assert main(["algo=reinforce", *short, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_the_readme_shows_what_it_talks_about() -> None:
    assert set(FILES) >= {"corridor.py", "residual.py", "hill_climbing.py", "conf/algo/hill_climbing.yaml"}
    assert len(BEFORE) >= 12 and len(AFTER) >= 4


@pytest.mark.parametrize(
    "line", [line for line in BEFORE if not re.match(r"rltrain (-m|evaluate|export|report|resume|tune)", line)]
)
def test_each_choice_composes(line: str, shell: Typist) -> None:
    assert "total_steps: " in shell(line, "--cfg", "job")


TUNE_PAGE = (ROOT / "docs" / "tune.md").read_text()
SEARCHES = [
    line
    for text in (README, TUNE_PAGE)
    for block in shell_blocks(text)
    for line in block
    if line.startswith("rltrain tune")
]


def test_the_page_of_clusters_shows_a_launcher(tmp_path: Path) -> None:
    (text,) = code_blocks("yaml", (ROOT / "docs" / "cluster.md").read_text())
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "lab.yaml").write_text(text)
    name, keys = launcher_of(["hydra/launcher=lab"], str(tmp_path))
    assert name == "slurm" and (keys["account"], keys["retries"]) == ("my_lab", 2)


@pytest.mark.parametrize("line", SEARCHES)
def test_each_search_can_be_made(line: str) -> None:
    pytest.importorskip("optuna")
    assert plan(read_request(shlex.split(line)[2:])).space


def test_the_page_of_searches_shows_a_space(tmp_path: Path) -> None:
    (text,) = code_blocks("yaml", TUNE_PAGE)
    (tmp_path / "shown.yaml").write_text(text)
    dimensions = [(d.key, d.under) for d in read_space(tmp_path / "shown.yaml")]
    assert dimensions[2] == ("exploration.steps", "exploration=linear") and len(SEARCHES) == 3


def test_the_sweep_s_jobs_are_all_right(shell: Typist) -> None:
    (line,) = [line for line in BEFORE if line.startswith("rltrain -m")]
    assert shell(line.replace("range(0,5)", "range(0,1)"), "dry_run=true").endswith(
        "sweep     4 jobs, nothing was trained or written\n"
    )


@pytest.mark.parametrize("line", [line for line in BEFORE if re.match(r"rltrain (evaluate|export|resume) RUN", line)])
def test_a_run_is_evaluated_and_continued(line: str, shell: Typist, run: Path) -> None:
    if "video" in line:
        pytest.importorskip("pygame")
    shell(re.sub(r"total_steps=\S+", "total_steps=400", line), run=str(run))


def test_the_python_code_acts(shell: Typist, run: Path) -> None:
    code = [block for block in code_blocks("python", POLICIES_PAGE) if "rltrain.load" in block]
    names: dict[str, object] = {}
    for block in code:
        exec(block.replace('"RUN"', repr(str(run))), names)
        assert names.pop("action") in (0, 1)
    assert len(code) == 2


def test_the_exported_policy_is_loaded_as_shown(shell: Typist, run: Path) -> None:
    (code,) = [block for block in code_blocks("python", POLICIES_PAGE) if "torch.export" in block]
    shell("rltrain export RUN", run=str(run))
    names: dict[str, object] = {}
    exec(code.replace('"RUN/', f'"{run}/'), names)
    assert np.asarray(names["actions"]).shape == (5,)


def test_the_vector_of_several_parts_is_the_one_that_a_program_takes() -> None:
    """In which Gymnasium's own has the bytes of images as they are."""
    (code,) = [block for block in code_blocks("python", POLICIES_PAGE) if "def one_vector" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    image, small = spaces.Box(0, 255, (3, 2, 1), np.uint8), spaces.Box(0, 9, (2,), np.uint8)
    parts = spaces.Dict(
        z=spaces.Discrete(3, start=-1), a=spaces.Tuple([image, small, spaces.MultiBinary(2)]),
        m=spaces.MultiDiscrete([2, 3], start=[4, 0]), b=spaces.Box(0.0, 255.0, (2,)), inner=spaces.Dict(image=image),
    )  # fmt: skip
    wide = spaces.Dict(a=spaces.Box(0.0, 1e9, (2,), np.float64), b=spaces.Box(0, 2**40, (2,), np.int64), c=image)
    for space in (parts, spaces.Tuple([image, spaces.Discrete(2)]), spaces.MultiDiscrete([[2, 3]]), wide):
        space.seed(0)
        for obs in (space.sample(), space.sample()):
            made, taken = names["one_vector"](space, obs), from_env_observation(space, obs)
            assert np.array_equal(made.astype(taken.dtype), taken)


def test_the_table_of_files_names_what_a_run_leaves(run: Path) -> None:
    page = (ROOT / "docs" / "runs.md").read_text()
    table = re.findall(r"^\| (`.*?`) \|", page.partition("## The run folder")[2], re.MULTILINE)
    told = {name.partition("/")[0] for row in table for name in re.findall(r"`([^`]+?)/?`", row)}
    found = {re.sub(r"tfevents.*", "tfevents...", path.name) for path in run.iterdir()} - {".lock"}
    assert found <= told
    assert told - found <= {
        "evaluation.json",
        "evaluation.gif",
        "evaluation.mp4",
        "policy.pt2",
        "q_values.png",
        "report",
        "videos",
    }  # of other commands, of tables


@pytest.mark.parametrize("block", range(len(AFTER)))
def test_what_is_added_works(block: int, shell: Typist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.report.curve.plot_learning_curve", lambda run: run / "learning_curve.png")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for line in AFTER[block]:
        trains = re.search(r"rltrain (?!list|evaluate|export|report|resume|--)", line)
        short = [] if not trains else ["total_steps=300", "eval.period=150", "eval.episodes=1", "checkpoint.period=200"]
        if trains and "hill_climbing" not in line:
            short.append("algo.learning_starts=250")
        output = shell(re.sub(r"(resume.*) total_steps=\S+", r"\1 total_steps=350", line), *short)
        if trains and "refused" not in line:
            assert re.search(r"trained +300 steps", output)


def test_links_and_pictures_are_there() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
            path = (page.parent / target).resolve() if target else page
            assert path.exists(), f"{page.name}: {target}"
            assert path.suffix != ".png" or path.stat().st_size < 250_000, target
            assert not anchor or anchor in anchors(path), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> list[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def special_words(line: str) -> list[str]:
    """The words with unquoted characters that bash or zsh takes for its own (zsh refuses a pattern without a file);
    also in comments of rltrain's commands: zsh reads them as words, which rltrain leaves out."""
    unquoted = re.sub(
        r"'[^']*'|\"[^\"]*\"|(^|\s)#(?=\s)" + ("" if re.search(r"\brltrain [^#]*#", line) else ".*"), "", line
    )
    return [word for word in unquoted.split() if re.search(r"[\[\]*?(){}<>|&;`$!~^]|^#|^=", word)]


def test_commands_mean_the_same_in_bash_and_zsh() -> None:
    assert special_words("rltrain network.hidden=[64,64]  # a list") == ["network.hidden=[64,64]"]
    assert special_words("rltrain evaluate  # what `rltrain` does") == ["`rltrain`"]
    assert special_words("rltrain 'seed=range(0,5)' \"a b*\"") == []
    wrong = [
        (page.name, line)
        for page in PAGES
        for block in code_blocks("sh", page.read_text())
        for line in block.splitlines()
        if special_words(line)
    ]
    assert wrong == []


def test_the_readme_is_three_screens() -> None:
    assert len(README.splitlines()) <= 115


def test_reading_weights_needs_safetensors_alone(run: Path) -> None:
    pytest.importorskip("safetensors")
    (code,) = code_blocks("python", (ROOT / "docs/checkpoint.md").read_text())
    names: dict[str, dict[str, np.ndarray]] = {}
    exec(code.replace('"RUN/', f'"{run}/').replace("step_00020000", "step_00000300"), names)
    from rltrain import load

    assert "torch" not in code and "rltrain" not in code.replace(str(run), "")
    policy = load(run / "checkpoints/step_00000300").agent_policy.networks["policy"]  # type: ignore[attr-defined]
    for name, tensor in policy.state_dict().items():
        assert np.array_equal(names["weights"][f"policy.{name}"], tensor.numpy())
