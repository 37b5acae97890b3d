"""Run folders: names that are one path component, and folders that only one run gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rltrain.config.run_name import remove_unused, reserve_folder, run_name, safe
from rltrain.errors import RequestError


def test_names_are_one_harmless_component() -> None:
    assert run_name("dqn", "my.module:ALE/Pong-v5", None) == "dqn_ALE-Pong-v5"
    assert run_name("dqn", "CartPole-v1", "first try") == "dqn_CartPole-v1_first-try"
    assert safe("../../etc") == "etc"
    assert safe("..") == "run"
    assert len(safe("x" * 500)) == 100


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    names = [reserve_folder(tmp_path / "deep" / "run", key=None).name for _ in range(3)]
    assert names == ["run", "run_2", "run_3"]


def test_two_runs_that_both_saw_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(_: Path) -> Iterator[Path]:
        return iter(())

    monkeypatch.setattr(Path, "iterdir", empty)
    assert reserve_folder(tmp_path / "run", key="hydra.run.dir") == tmp_path / "run"
    with pytest.raises(RequestError, match="exists and is not empty"):
        reserve_folder(tmp_path / "run", key="hydra.run.dir")


def test_a_folder_in_which_no_run_has_begun_may_go(tmp_path: Path) -> None:
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"no run has begun in it: .* may be removed"):
        reserve_folder(tmp_path / "run", key="hydra.run.dir")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/run: cannot be made: "):
        reserve_folder(tmp_path / "file" / "run", key=None)


def test_the_folder_of_a_day_goes_with_the_last_one_in_it(tmp_path: Path) -> None:
    first, second = (reserve_folder(tmp_path / "2026-11-30" / name, key=None) for name in "ab")
    remove_unused(first)
    assert second.exists() and not first.exists()
    remove_unused(second)
    assert not list(tmp_path.iterdir())
    remove_unused(reserve_folder(tmp_path / "mine" / "a", key=None))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
