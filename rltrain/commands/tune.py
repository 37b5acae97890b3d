"""`rltrain tune [key=value ...]`: a search for settings; `rltrain tune STUDY` joins one, or goes on with it."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from rltrain import __version__
from rltrain.commands.preflight import preflight
from rltrain.commands.tune_batch import Unfinished, open_search, train_jobs, trial_result
from rltrain.commands.tune_request import (
    Plan,
    Request,
    plan,
    read_request,
    require_optuna,
    seeds_said,
    stored_plan,
    tune_config,
)
from rltrain.commands.tune_trials import check_batch, new_batch
from rltrain.commands.tuned_file import value_of
from rltrain.config.plain import to_plain
from rltrain.config.run_name import reserve_folder, run_name
from rltrain.config.search_space import shown_values
from rltrain.config.searched import late_epsilon
from rltrain.config.stored import require_trusted
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.storage.files import holder_of
from rltrain.storage.study_folder import (
    Batch,
    StudyFolder,
    TrialResult,
    is_study,
)
from rltrain.terminal.interrupts import sigint_ends
from rltrain.terminal.output import say
from rltrain.terminal.shell import command_folder, no_folder, rltrain_command, shown_path
from rltrain.terminal.text import counted, number, wrapped


def main(args: list[str]) -> int:
    """Searches; returns the exit code.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    gc.disable()  # as for a run: composing makes many small objects that live
    try:
        request = read_request(args)
        if request.study is None:
            folder, asked = _begin(request)
        else:
            folder, asked = _join(request)
    finally:
        gc.enable()
    return work(folder, asked)


def join(folder: Path, overrides: list[str], trust: bool) -> int:
    """`rltrain resume STUDY`: the same as `rltrain tune STUDY`."""
    return work(*_join(replace(read_request(overrides), study=folder, trust=trust)))


def _begin(request: Request) -> tuple[StudyFolder, Plan]:
    asked = plan(request)
    preflight(asked.config)
    now = datetime.now()
    name = run_name(asked.config.algo.name, asked.config.env.id, asked.config.name)
    wanted = request.folder or f"outputs/tune/{now:%Y-%m-%d}/{now:%H-%M-%S}_{name}"
    folder = StudyFolder(reserve_folder(Path(wanted), key=request.folder and "tune.dir"))
    config_dir = None if request.config_dir is None else str(command_folder() / request.config_dir)
    made = {"rltrain": __version__, "made": f"{now:%Y-%m-%d %H:%M}", "config_dir": config_dir}
    with folder.locked():
        folder.write({**made, **asked.to_plain()})
    with sigint_ends(_stopped(folder, asked)):
        _announce(folder, asked)
    return folder, asked


def _join(request: Request) -> tuple[StudyFolder, Plan]:
    """A study that is there already, with the settings of the search that may change."""
    assert request.study is not None
    folder = StudyFolder(command_folder() / request.study)
    if not is_study(folder.path):
        raise RequestError(f"{request.study}: {no_folder(folder.path) or 'is no study: it has no study.yaml'}")
    if request.overrides or request.search or request.folder:
        words = [*request.overrides, f"search={request.search}" if request.search else f"tune.dir={request.folder}"]
        raise RequestError(f"{words[0]}: a study keeps what it searches; only tune.trials and tune.confirm may change")
    require_optuna()
    again = rltrain_command("tune", folder.path, *(["trust=true"] if request.trust else []))
    with sigint_ends(f"search stopped, its runs are saved; `{again}` goes on"):
        asked = _stored(folder, request)
        _announce(folder, asked)
    return folder, asked


def _stored(folder: StudyFolder, request: Request) -> Plan:
    """Reads what a study searches, with the changes that are asked for, and keeps these."""
    with folder.locked():
        plain = folder.read()
        asked = stored_plan(plain)
        require_trusted(asked.config, request.trust)
        for name in request.tune:
            if name not in ("trials", "confirm"):
                raise RequestError(f"tune.{name}: a study keeps it; only tune.trials and tune.confirm may change")
        if request.tune:
            asked = replace(asked, tune=tune_config({**to_plain(asked.tune), **request.tune}))
            made = sum(len(batch.trials) for batch in folder.batches())
            if asked.tune.trials < made:
                raise RequestError(f"tune.trials={asked.tune.trials}: it has made {made}, and none can be taken back")
            folder.write({**plain, "tune": to_plain(asked.tune)})
    return asked


def _stopped(folder: StudyFolder, asked: Plan) -> str:
    return f"search stopped, its runs are saved; {_goes_on(folder, asked)}"


def _goes_on(folder: StudyFolder, asked: Plan) -> str:
    return f"`{rltrain_command('tune', folder.path, imports=asked.config.imports)}` goes on"


def _announce(folder: StudyFolder, asked: Plan) -> None:
    tune, config, seeds = asked.tune, asked.config, seeds_said(asked.seeds)
    lines = [
        f"tune      {config.algo.name} on {config.env.id}: {counted(tune.trials, 'trial')} of {seeds}"
        f" and {config.total_steps:,} steps, in {shown_path(folder.path)}",
        *([f"tuned     the search starts from {asked.info.tuned}"] if asked.info.tuned else []),
        f"space     {'; '.join(map(str, asked.space))}",
        *([f"fixed     {', '.join(asked.left)}: of the space, not searched here"] if asked.left else []),
        *(f"epsilon   {late}" for dimension in asked.space if (late := late_epsilon(config, dimension))),
    ]
    say("\n".join(map(wrapped, lines)))


def work(folder: StudyFolder, asked: Plan) -> int:
    """Trains batches until there are enough trials, then ends the study, unless another process trains on."""
    try:
        with sigint_ends(_stopped(folder, asked)):  # at once: a study goes on from any moment; runs are saved before
            return _work(folder, asked)
    except Unfinished as error:
        raise RunFailed(f"search stopped: {error}; its runs are saved, {_goes_on(folder, asked)}") from error
    except (Interrupted, KeyboardInterrupt) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        raise Interrupted(code, _stopped(folder, asked)) from error


def _work(folder: StudyFolder, asked: Plan) -> int:
    from rltrain.commands.tune_end import end_study

    try:
        _search(folder, asked)
    except RunFailed as error:  # a file of the study cannot be written
        raise Unfinished(str(error)) from error
    if held := [batch for batch in folder.batches() if not batch.told]:
        count = counted(sum(len(batch.trials) for batch in held), "trial")
        say(wrapped(f"tune      {count} left, trained by {holder_of(held[0].path)}, which ends the study"))
        return 0
    return end_study(folder, asked)


def _search(folder: StudyFolder, asked: Plan) -> None:
    begun, own = time.perf_counter(), 0
    for told in (batch for batch in folder.batches() if batch.told):
        told.drop_checkpoints()  # a process may have ended before it did
    while True:
        with ExitStack() as holding:
            with folder.locked():
                batch = _next_batch(folder, asked)
                if batch is None:
                    return
                holding.enter_context(batch.sweep)
            _train(folder, asked, batch)
            own += len(batch.trials)
            with folder.locked():
                _tell(folder, asked, batch, (time.perf_counter() - begun) / own)


def _next_batch(folder: StudyFolder, asked: Plan) -> Batch | None:
    """An unfinished batch that no process trains, or a new one; None where nothing is to do. The study is locked."""
    batches = folder.batches()
    for batch in batches:
        if not batch.told and not holder_of(batch.path):
            return batch
    search = open_search(folder, asked)
    search.fail_lost({trial.number for batch in batches for trial in batch.trials})
    made = sum(len(batch.trials) for batch in batches)
    room = asked.tune.trials - made
    if room <= 0:
        return None
    new = new_batch(folder, asked, search, batches, min(room, asked.tune.batch))
    if new is None:
        said = f"{counted(made, 'trial')} of {asked.tune.trials}: nothing new is suggested, the space seems tried out"
        say(wrapped(f"tune      {said}"))
    return new


def _train(folder: StudyFolder, asked: Plan, batch: Batch) -> None:
    check_batch(batch, asked)
    made = sum(len(other.trials) for other in folder.batches() if other.told)
    say(wrapped(f"tune      the next {len(batch.trials)} of {counted(asked.tune.trials - made, 'trial')} left"))
    for trial in batch.trials:
        say(wrapped(f"trial {trial.number:<3} {shown_values(trial.values)}"))
    listed = batch.sweep.jobs()
    of_run = {batch.path / run: trial.number for trial in batch.trials for run in trial.runs}
    names = {folder: f"seed={folder.name.rpartition('_')[2]}" for folder in of_run}
    train_jobs(listed, of_run, batch.limits, names, kept=False)


def _tell(folder: StudyFolder, asked: Plan, batch: Batch, seconds: float) -> None:
    """Keeps and says what the trials of a batch have reached; seconds: that a trial takes."""
    results = [trial_result(batch.path, trial, asked.config.eval.period) for trial in batch.trials]
    search = open_search(folder, asked)
    for trial, result in zip(batch.trials, results, strict=True):
        search.tell(trial.number, result)
        say(wrapped(f"trial {trial.number:<3} {_in_words(result)}"))
    batch.tell(results)
    say(wrapped(f"tune      {_so_far(folder, asked, seconds)}"))
    batch.drop_checkpoints()


def _so_far(folder: StudyFolder, asked: Plan, seconds: float) -> str:
    """How many trials are made, the best of them, and how long the others take."""
    from rltrain.commands.tune_end import ranked

    trials = [trial for batch in folder.batches() for trial in batch.trials if trial.result is not None]
    best = ranked(trials)[:1]
    reached = f"the best so far is trial {best[0].number}: {number(value_of(best[0]))}" if best else "none is complete"
    rest = round((asked.tune.trials - len(trials)) * seconds)
    left = f", about {timedelta(seconds=rest)} left" if rest > 0 else ""
    return f"{len(trials):,} of {counted(asked.tune.trials, 'trial')} made, {reached}{left}"


def _in_words(result: TrialResult) -> str:
    if result.state == "failed":
        return f"failed: {result.reason}"
    assert result.value is not None or result.state == "pruned"
    value = "nothing yet" if result.value is None else number(result.value)
    if result.state == "pruned":
        return f"{result.reason}, at {value}: below the median of the trials before it"
    return f"{value} (seeds: {' '.join(map(number, result.seeds))}), {result.env_step:,.0f} steps"
