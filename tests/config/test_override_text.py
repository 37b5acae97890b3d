"""Overrides as a person types them, from Hydra's own escaping of them."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rltrain.config.override_text import as_typed, own_overrides


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
