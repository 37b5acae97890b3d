"""Overrides as a person types them, from Hydra's own escaping of them."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rltrain.config.override_text import as_typed, number_of_jobs, own_overrides


def escaped(line: str) -> list[str]:
    """The overrides of a job as the sweeper hands them out."""
    override = OverridesParser.create().parse_override(line)
    return [f"{override.input_line.partition('=')[0]}={override.get_value_element_as_str()}"]


@pytest.mark.parametrize(
    "line",
    [
        "env=corridor:Corridor-v0",
        "env=my_module:ALE/Pong-v5",
        "network.hidden=[64,64]",
        "env.kwargs.size={rows:3,columns:4}",
        "total_episodes=null",
    ],
)
def test_a_job_is_shown_as_it_was_typed(line: str) -> None:
    assert as_typed(escaped(line)) == line


@pytest.mark.parametrize("line", ["name='a b'", "name=a b", r"name=a\,b", "name='it\\'s'", r"name=a\\b", "name='a,b'"])
def test_what_is_shown_means_the_same(line: str) -> None:
    (shown,) = shlex.split(as_typed(escaped(line))) if " " in line else [as_typed(escaped(line))]
    parse = OverridesParser.create().parse_override
    assert parse(shown).value() == parse(line).value()
    assert not parse(shown).is_sweep_override()


def test_jobs_of_several_overrides_stand_in_one_line() -> None:
    assert as_typed([r"env=corridor\:Corridor-v0", "seed=1"]) == "env=corridor:Corridor-v0 seed=1"


def test_what_all_jobs_have_is_no_jobs_own() -> None:
    jobs = [["a=1", "seed=0", "b=2"], ["a=1", "seed=1", "b=2"], ["a=1", "seed=0", "b=3"]]
    assert own_overrides(jobs) == [["seed=0", "b=2"], ["seed=1", "b=2"], ["seed=0", "b=3"]]
    assert own_overrides(jobs[:1]) == [[]]
    assert own_overrides([]) == []


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ([], 1),
        (["algo=dqn", "seed=3"], 1),
        (["seed=range(0,100000000)"], 100_000_000),
        (["seed=range(1,30004,3)", "algo.gamma=0.9,0.99,0.95", "num_envs=choice(1,2)"], 60_006),
        (["network.hidden=[8],[8,8]", "algo.tau=range(0,1,0.25)", "env=a,b"], 16),
        (["seed=range(3,0)"], 0),
        (["algo.gamma=interval(0,1)", "seed=0,1"], 2),
    ],
)
def test_the_jobs_of_a_sweep_are_counted(overrides: list[str], count: int) -> None:
    assert number_of_jobs(overrides) == count
