"""The end of a study: its best trials, and what fresh seeds reach with the settings of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rltrain.commands.tune_batch import open_search, train_jobs
from rltrain.commands.tune_request import Plan
from rltrain.commands.tuned_file import Confirmation, tuned_settings, value_of, write_tuned
from rltrain.config.plain import to_plain
from rltrain.config.search_space import shown_values
from rltrain.config.searched import with_values
from rltrain.errors import RunFailed
from rltrain.storage.files import holder_of
from rltrain.storage.plain_files import json_text, write_file
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import read_result
from rltrain.storage.study_folder import CONFIRMATION, StudyFolder, Trial
from rltrain.storage.sweep_folder import JOBS, ListedJob, SweepFolder
from rltrain.terminal.output import say
from rltrain.terminal.shell import rltrain_command, shown_path
from rltrain.terminal.text import counted, number, wrapped

_SHOWN = 10
RESULTS = "study.json"
"""All that the study found, for programs."""


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials, best first: by their value, then by the environment steps that they took."""
    done = [trial for trial in trials if trial.result is not None and trial.result.state == "complete"]
    return sorted(
        done, key=lambda trial: (-value_of(trial), trial.result.env_step if trial.result else 0, trial.number)
    )


def end_study(folder: StudyFolder, asked: Plan) -> int:
    """Says and writes what the study found, and confirms it; returns the exit code.

    Raises:
        RunFailed: no trial is complete, or a file cannot be written.
        Interrupted: a signal stopped the confirmation.
    """
    trials = [trial for batch in folder.batches() for trial in batch.trials]
    best = ranked(trials)
    say(_table(trials, best))
    if not best:
        reasons = [trial.result.reason for trial in trials if trial.result is not None and trial.result.reason]
        raise RunFailed(f"no trial is complete: {reasons[-1] if reasons else 'none was made'}")
    winner = best[0]
    _write_results(folder, asked, trials, winner, None)
    _draw(folder, asked, trials)
    settings = tuned_settings(asked, winner)
    write_tuned(folder, asked, winner, settings, None)
    if asked.tune.confirm:
        confirmed = _confirm(folder, asked, winner)
        if confirmed is None:
            return 0
        say(wrapped(f"confirmed {confirmed}; the search had found {number(value_of(winner))}"))
        _write_results(folder, asked, trials, winner, confirmed)
        write_tuned(folder, asked, winner, settings, confirmed)
    conf = f"--config-dir={shown_path(folder.path / 'conf')}"
    say(f"use it    {rltrain_command(f'algo={asked.config.algo.name}', f'env={asked.config.env.id}', conf)}")
    return 0


def _table(trials: Sequence[Trial], best: Sequence[Trial]) -> str:
    rows = [("trial", "return", "seeds", "steps", "settings")]
    for trial in best[:_SHOWN]:
        assert trial.result is not None
        seeds, steps = " ".join(map(number, trial.result.seeds)), f"{trial.result.env_step:,.0f}"
        rows.append((str(trial.number), number(value_of(trial)), seeds, steps, shown_values(trial.values)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
    states = [trial.result.state for trial in trials if trial.result is not None]
    others = ", ".join(f"{states.count(state)} {state}" for state in ("pruned", "failed"))
    shown = f" (the best {_SHOWN} above)" if len(best) > _SHOWN else ""
    said = f"tune      {counted(len(trials), 'trial')}: {len(best)} complete{shown}, {others}"
    return "\n".join(["", *lines, "", said] if best else [said])


def _write_results(
    folder: StudyFolder, asked: Plan, trials: Sequence[Trial], winner: Trial, confirmed: Confirmation | None
) -> None:
    content: dict[str, Any] = {
        "env": asked.config.env.id,
        "best": winner.number,
        "confirmation": None if confirmed is None else confirmed.to_plain(),
        "trials": list(map(asdict, trials)),
    }
    write_file(folder.path / RESULTS, json_text(content))


def _confirm(folder: StudyFolder, asked: Plan, winner: Trial) -> Confirmation | None:
    """Trains fresh seeds with the best settings. None: another process trains them."""
    path = folder.path / f"{CONFIRMATION}{winner.number}"
    first = asked.seeds.stop  # none that the search has chosen by
    seeds = {path / f"seed_{seed}": seed for seed in range(first, first + asked.tune.confirm)}
    with folder.locked():
        if holder := holder_of(path):
            say(wrapped(f"tune      the best settings are confirmed by {holder}, which ends the study"))
            return None
        path.mkdir(exist_ok=True)
        sweep = SweepFolder(path).__enter__()
    try:
        (path / JOBS).unlink(missing_ok=True)  # more seeds may be asked for than before
        config = with_values(to_plain(asked.config), winner.values)
        sweep.add_jobs([ListedJob(run, {**config, "seed": seed}, (f"seed={seed}",)) for run, seed in seeds.items()])
        fresh = counted(len(seeds), "fresh seed")
        say(wrapped(f"confirm   trial {winner.number} on {fresh}: {shown_values(winner.values)}"))
        jobs = {run: job for run, job in sweep.jobs().items() if run in seeds}
        train_jobs(jobs, seeds, {}, {run: f"seed={seed}" for run, seed in seeds.items()}, kept=True)
    finally:
        sweep.__exit__()
    found = {}
    for run, seed in seeds.items():
        if (result := read_result(RunFolder(run))) is None:
            say(wrapped(f"seed {seed}  failed: {RunFolder(run).read_record().get('reason')}"))
        else:
            found[seed] = result.returns["mean"]
    if not found:
        raise RunFailed(f"{shown_path(path)}: every run of the confirmation failed")
    return Confirmation(found, len(seeds))


def _draw(folder: StudyFolder, asked: Plan, trials: Sequence[Trial]) -> None:
    """The pictures: what was reached in which trial, and which settings mattered."""
    from rltrain.report.study import plot_history, plot_importances

    title = f"{asked.config.algo.name} on {asked.config.env.id}"
    plot_history(folder.path, {state: _values_of(trials, state) for state in ("complete", "pruned")}, title)
    with folder.locked():
        importances = open_search(folder, asked).importances()
    if importances:
        plot_importances(folder.path, importances, title)
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importances.items())
        say(wrapped(f"mattered  {shares} (share in what sets the best trials apart: PED-ANOVA)"))


def _values_of(trials: Sequence[Trial], state: str) -> Mapping[int, float]:
    found = {trial.number: trial.result for trial in trials if trial.result is not None}
    return {n: result.value for n, result in found.items() if result.state == state and result.value is not None}
