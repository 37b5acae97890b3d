from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rltrain.config.search_space import Dimension
from rltrain.errors import RequestError
from rltrain.storage.study_folder import TrialResult

pytest.importorskip("optuna")

from rltrain.tuning.search import Search, medians

SPACE = [
    Dimension("lr", 1e-4, 1e-1, log=True),
    Dimension("n", 1, 64, log=True),
    Dimension("end", 0.0, 1.0, step=0.25),
    Dimension("hidden", choices=([64, 64], [32], None)),
]


def search(folder: Path, seed: int = 0, startup: int = 4) -> Search:
    return Search(folder / "journal.log", SPACE, seed, startup)


def value(settings: dict[str, Any]) -> float:
    """Largest where lr is near 0.1 and n is large."""
    return float(settings["lr"] * 100 + settings["n"] / 10 + (settings["hidden"] == [32]))


def run(folder: Path, trials: int, seed: int = 0, reopen: bool = False) -> list[dict[str, Any]]:
    found, now = [], search(folder, seed)
    for _ in range(trials):
        now = search(folder, seed) if reopen else now
        number, settings = now.ask()
        assert number == len(found)
        now.tell(number, TrialResult("complete", value(settings), evaluations={1: 0.0}))
        found.append(settings)
    return found


def test_suggestions_lie_in_the_space_and_get_better(tmp_path: Path) -> None:
    found = run(tmp_path, 30)
    for settings in found:
        assert 1e-4 <= settings["lr"] <= 1e-1 and settings["lr"] == float(f"{settings['lr']:.3g}")
        assert settings["n"] in range(1, 65) and settings["end"] in (0, 0.25, 0.5, 0.75, 1)
        assert settings["hidden"] in ([64, 64], [32], None)
    values = [value(settings) for settings in found]
    assert sum(values[-10:]) > 1.5 * sum(values[:10])  # it maximises


def test_the_same_seed_suggests_the_same_also_when_it_was_stopped_in_between(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    alone = run(tmp_path / "a", 12)
    assert run(tmp_path / "b", 12, reopen=True) == alone
    assert run(tmp_path / "c", 12, seed=1) != alone
    assert len({json.dumps(settings) for settings in alone}) == 12


def test_trials_that_are_asked_together_differ(tmp_path: Path) -> None:
    run(tmp_path, 10)
    now = search(tmp_path)
    assert len({json.dumps(now.ask()[1]) for _ in range(6)}) == 6


def test_each_state_is_told_as_what_it_is_and_once(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    now = search(tmp_path)
    results = [
        TrialResult("complete", 3.0, (3.0,), 10, {1: 1.0, 2: 3.0}),
        TrialResult("pruned", 1.0, (), 10, {1: 1.0}, "pruned"),
        TrialResult("failed", reason="seed 1000: not finite"),
    ]
    for result in results:
        now.tell(now.ask()[0], result)
    now.tell(0, TrialResult("failed"))
    trials = now._study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert trials[0].value == 3.0 and trials[0].intermediate_values == {1: 1.0, 2: 3.0}
    assert now._study.best_value == 3.0


def test_trials_whose_process_was_killed_before_it_wrote_them_down_end(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    now = search(tmp_path)
    kept, _ = now.ask()
    now.ask()
    now = search(tmp_path)
    now.fail_lost({kept})
    assert [trial.state for trial in now._study.get_trials()] == [TrialState.RUNNING, TrialState.FAIL]


def test_what_matters_is_found(tmp_path: Path) -> None:
    assert search(tmp_path).importances() == {}, "nothing is known yet"
    run(tmp_path, 25)
    importances = search(tmp_path).importances()
    assert set(importances) == {"lr", "n", "end", "hidden"}
    assert importances["end"] < max(importances["lr"], importances["n"])


def test_a_line_that_a_killed_writer_left_torn_is_cut(tmp_path: Path) -> None:
    run(tmp_path, 3)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    (tmp_path / "journal.log.lock").unlink(missing_ok=True)
    assert search(tmp_path).ask()[0] == 3
    assert journal.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"not json\n",
        b'{"op_code": 99}\n',
        b"[]\n",
        b"\xff\xfe\n" * 3,
    ],
)
def test_a_journal_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(content)
    with pytest.raises(RequestError, match=r"journal.log: is no journal of this study"):
        search(tmp_path)


def test_a_journal_is_never_a_pickle_nor_a_pipe(tmp_path: Path) -> None:
    import os

    run(tmp_path, 2)
    for line in (tmp_path / "journal.log").read_text().splitlines():
        json.loads(line)
    (tmp_path / "journal.log").unlink()
    os.mkfifo(tmp_path / "journal.log")
    with pytest.raises(RequestError, match="not a regular file"):
        search(tmp_path)


def test_limits_are_medians_over_the_trials_that_came_so_far() -> None:
    complete = [{1: 1.0, 2: 5.0, 3: 9.0}, {1: 2.0, 2: 3.0}, {1: 7.0, 2: 7.0, 3: 7.0}]
    assert medians(complete, [], last=3, first=2, least=3) == {2: 5.0}
    assert medians(complete, [], last=4, first=1, least=3) == {1: 2.0, 2: 5.0, 3: 7.0}, "the one that ended stays at 3"
    assert medians(complete, [], last=4, first=1, least=4) == {}
    pruned = [{1: 0.0}, {1: 1.0, 2: 4.0}]
    assert medians(complete, pruned, last=4, first=1, least=3) == {1: 1.0, 2: 4.5, 3: 7.0}, "each as far as it came"
    assert medians(complete[:2], pruned, last=4, first=1, least=3) == {}
