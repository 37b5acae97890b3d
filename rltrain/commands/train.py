"""`rltrain [key=value ...]`: one run, a sweep (-m), or a look at the config (--cfg)."""

from __future__ import annotations

import argparse
import gc
import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from rltrain.commands.preflight import preflight
from rltrain.commands.sweep import FinishedSweep, run_sweep
from rltrain.config.application import CONFIG_NAME, create_application, job_variables, run_config
from rltrain.config.contradictions import check_typed
from rltrain.config.info import compose_info
from rltrain.config.intended import intended, not_understood
from rltrain.config.keys import as_written, in_one_word, unknown_key
from rltrain.config.messages import COMPOSE_ERRORS, check_overrides, explain, refuse_launcher, refuse_sweep
from rltrain.config.plain import to_plain
from rltrain.config.run_name import config_text, remove_unused, reserve_folder
from rltrain.config.validate import validate
from rltrain.envs.process_state import variables_set
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.terminal.interrupts import sigint_ends, sigint_raises
from rltrain.terminal.output import printing_answers
from rltrain.terminal.shell import shown_path, unusable


def main(args: list[str]) -> int:
    """Runs what `args` ask for; returns the exit code.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    gc.disable()  # composing makes many small objects that live: collecting costs a fifth of a refusal's time
    try:
        return _main(args)
    finally:
        gc.enable()


def _main(args: list[str]) -> int:
    options = _parse(args)
    hydra = create_application(options.config_dir)
    overrides: list[str] = options.overrides
    if options.shell_completion:
        from rltrain.commands.completion import complete

        complete(hydra, overrides)
        return 0
    sweep = options.multirun or "hydra.mode=MULTIRUN" in overrides
    with _explained(hydra, overrides):
        if options.cfg or options.info:
            refuse_sweep(overrides, "--cfg shows the config of one job: give one value")
        elif not sweep:
            refuse_sweep(overrides, "several values are a sweep: add -m")
            refuse_launcher(overrides)
        if options.hydra_help:
            with printing_answers():
                hydra.hydra_help(CONFIG_NAME, get_args_parser(), options)
        elif options.info is not None:
            with printing_answers():
                hydra.show_info(options.info, CONFIG_NAME, overrides)
        elif options.cfg:
            with printing_answers():
                hydra.show_cfg(CONFIG_NAME, overrides, options.cfg, options.package, options.resolve)
        elif sweep:
            with sigint_raises():
                return int(run_sweep(hydra, overrides, train_job, args).failed)
        else:
            _run(hydra, overrides)
    return 0


def run_one(overrides: list[str]) -> Path:
    """Trains what `rltrain <overrides>` trains; its run folder.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    with _given(overrides) as (hydra, overrides):
        refuse_sweep(overrides, "several values are a sweep: rltrain.sweep trains one")
        folder = _run(hydra, overrides)
    if folder is None:
        raise RequestError("dry_run=true: nothing was trained, and there is no run")
    return folder


def run_several(overrides: list[str]) -> FinishedSweep:
    """Trains what `rltrain -m <overrides>` trains.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    with _given(overrides) as (hydra, overrides), sigint_raises():
        return run_sweep(hydra, overrides, train_job, ["-m", *overrides])


@contextmanager
def _given(overrides: list[str]) -> Iterator[tuple[Hydra, list[str]]]:
    """The application and the overrides of a call from Python, which takes no options."""
    overrides, hydra = as_written(overrides), create_application()
    for override in overrides:
        if override.startswith("-"):
            raise RequestError(f"{override}: is an option of the command line; here settings are given, key=value")
    with _explained(hydra, overrides):
        yield hydra, overrides


@contextmanager
def _explained(hydra: Hydra, overrides: list[str]) -> Iterator[None]:
    """Checks overrides before they are composed, and says in the user's words what is wrong with them after."""
    try:
        check_overrides(overrides, hydra.config_loader)
        yield
    except COMPOSE_ERRORS as error:
        raise explain(error, overrides, hydra.config_loader) from error


def train_job(cfg: DictConfig) -> float | None:
    """Hydra's task function: trains one composed job in the folder that Hydra made for it."""
    gc.enable()
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    config = validate({str(key): value for key, value in plain.items()})
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    single = hydra_cfg.mode != RunMode.MULTIRUN
    info = compose_info(hydra_cfg, plain)
    if config.dry_run:
        from rltrain.jobs.job import dry_run

        remove_unused(folder)
        dry_run(config, info)
        return None
    try:
        with sigint_ends():
            from rltrain.jobs.job import train
        return train(config, folder, console=single, info=info)
    except (RequestError, KeyboardInterrupt):
        remove_unused(folder)
        raise
    except (RunFailed, Interrupted):
        raise
    except Exception as error:
        with (folder / "run.log").open("a") as log:
            traceback.print_exc(file=log)
        raise RunFailed(f"{type(error).__name__}: {error} (traceback in {shown_path(folder / 'run.log')})") from error


def _run(hydra: Hydra, overrides: list[str]) -> Path | None:
    """Trains one run; its folder, None after a dry run."""
    cfg = hydra.compose_config(CONFIG_NAME, overrides, run_mode=RunMode.RUN, with_log_configuration=False)
    config = run_config(cfg)
    check_typed(config, overrides)
    with variables_set(job_variables(cfg)):
        preflight(config)
        if config.dry_run:
            from rltrain.jobs.job import dry_run

            dry_run(config, compose_info(cfg.hydra, to_plain(config)))
            return None
        return _train(hydra, cfg, overrides)


def _train(hydra: Hydra, cfg: DictConfig, overrides: list[str]) -> Path:
    importlib.import_module("rltrain.jobs.job")  # takes seconds, in which Ctrl-C shall leave no folder
    exact = any(override.startswith("hydra.run.dir=") for override in overrides)
    with sigint_raises():
        folder = reserve_folder(Path(cfg.hydra.run.dir), key="hydra.run.dir" if exact else None)
        _run_in(folder, hydra, cfg)
    return folder


def _run_in(folder: Path, hydra: Hydra, cfg: DictConfig) -> None:
    cfg.hydra.run.dir = config_text(folder)
    cfg.hydra.mode = RunMode.RUN
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=CONFIG_NAME)
    try:
        job = run_job(
            hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
            task_function=train_job,
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
        )
    except KeyboardInterrupt:
        remove_unused(folder)
        raise
    except OSError as error:  # of Hydra's own files; those of the run are named by the run
        remove_unused(folder)
        raise RunFailed(unusable(folder, error, "written")) from error
    callbacks.on_run_end(config=cfg, config_name=CONFIG_NAME, job_return=job)
    if job.status == JobStatus.FAILED:
        raise job._return_value  # job.return_value would print a line of its own before it raises


def _parse(args: list[str]) -> argparse.Namespace:
    parser = get_args_parser()
    _refuse_other_forms(args, parser)

    def error(message: str) -> NoReturn:
        raise RequestError(f"{message}\nsee rltrain --help")

    parser.error = error  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(args)
    if options.config_name or options.config_path:
        raise RequestError("--config-name, --config-path: not used here; see --config-dir and experiment=...")
    options.overrides = as_written(options.overrides)
    return options


def _refuse_other_forms(args: list[str], parser: argparse.ArgumentParser) -> None:
    """Answers `--algo dqn`, `dqn CartPole-v1` and the like with the command that was meant."""
    if {"--shell-completion", "-sc"} & {*args}:
        return
    known = {option: int(action.nargs is None) for option, action in parser._option_string_actions.items()}
    line = intended(args, known)
    if line == args:
        return
    if line is not None:
        raise in_one_word(line)
    if option := not_understood(args, known):
        name = option.partition("=")[0].lstrip("-").replace("-", "_")
        said = (unknown_key(name, {}) or "").partition("; ")[2]
        guess = f"; {said}" if said.startswith("did you mean") else ""
        raise RequestError(f"{option}: unknown option; settings are written key=value{guess}\nsee rltrain --help")
