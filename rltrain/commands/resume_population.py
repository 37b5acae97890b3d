"""Which unfinished jobs of a sweep continue as the populations that they were, or begin as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.config.population import divided, group_jobs
from rltrain.config.schema import RunConfig
from rltrain.config.stored import validate_stored
from rltrain.errors import CheckpointError
from rltrain.storage.files import holder_of
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import status_of

if TYPE_CHECKING:
    from rltrain.jobs.training import Job
    from rltrain.storage.checkpoint import Checkpoint

Change = Callable[[RunConfig, Path, "Checkpoint | None"], tuple[RunConfig, list[dict[str, Any]]]]
"""(stored config, run folder, the checkpoint that stored it, None for a run that begins) -> the config with the changes
that the user asks for, and what run.json keeps of these."""


@dataclass(frozen=True)
class _Saved:
    """A whole checkpoint of a member.

    Attributes:
        names: of the members that trained together then; none of a run by itself.
    """

    folder: Path
    moment: int = 0
    ended: bool = False
    names: tuple[str, ...] = ()


def held_jobs(jobs: Iterable[Path]) -> dict[Path, str]:
    """Folders of jobs that other processes train -> which process; with them the others of their populations, which
    continue only together."""
    folders = list(jobs)
    held = {folder: f"in use by {holder}" for folder in folders if (holder := holder_of(folder))}
    names, saves = {folder.name for folder in held}, _Saves()
    for folder in folders if held else ():
        if folder in held or status_of(RunFolder(folder)) == "completed":
            continue
        if common := sorted(names & {*saves.names(folder)}):
            held[folder] = f"continues with job {common[0]}, which is in use"
    return held


def populations_of(
    jobs: Mapping[Path, Mapping[str, Any] | None], extends: bool, change: Change, bundle: int = 1
) -> list[list[Job]]:
    """The populations among a sweep's jobs; the jobs that are in none are continued one by one.

    Args:
        jobs: folder of each -> its config as plain data, or None where only its run says it.
        extends: whether completed runs go on too, under changed limits.
        bundle: every so many jobs that begin stay in one population.
    """
    from rltrain.storage.checkpoint_folders import has_saved

    # Members are known by their folders' names, which a sweep with folders of its own making may repeat.
    if len({folder.name for folder in jobs}) < len(jobs):
        return []
    begun, ended, new = {}, {}, {}
    for folder, plain in jobs.items():
        status = status_of(RunFolder(folder))
        cut = status in ("running", "interrupted")
        if (status == "not begun" and plain is not None) or (cut and not has_saved(folder)):
            new[folder] = plain
        elif cut or (status == "completed" and extends):
            begun[folder.name] = folder
        elif status == "completed":
            ended[folder.name] = folder
    saves = _Saves()
    for folder in _cut_in_their_first_save(begun, {folder.name for folder in new}, saves):
        new[folder] = jobs[folder]
        del begun[folder.name]
    return [*_stored(begun, ended, saves, extends, change), *_beginning(new, change, bundle)]


def _cut_in_their_first_save(begun: Mapping[str, Path], new: set[str], saves: _Saves) -> list[Path]:
    """Members that have their first checkpoint where others were killed before it: all begin anew, together."""
    alone = []
    for folder in begun.values():
        names = saves.names(folder)
        if not new.isdisjoint(names) and all(len(saves[begun[name]]) == 1 for name in names if name in begun):
            alone.append(folder)
    return alone


class _Saves(dict[Path, list[_Saved]]):
    """Folder of each job -> the checkpoints that can be read of those that a population wrote, those of the newest step
    first; read when they are first asked for."""

    def __missing__(self, folder: Path) -> list[_Saved]:
        from rltrain.jobs.build import POPULATION
        from rltrain.storage.checkpoint_files import read_manifest
        from rltrain.storage.checkpoint_folders import step_folders

        found = self[folder] = list[_Saved]()
        for place in reversed(step_folders(folder)):
            try:
                entry = read_manifest(place).get(POPULATION)
                found.append(
                    _Saved(place, int(entry["moment"]), bool(entry["ended"]), tuple(map(str, entry["members"])))
                    if entry
                    else _Saved(place)
                )
            except (CheckpointError, TypeError, KeyError, ValueError, OverflowError):
                continue
        return found

    def names(self, folder: Path) -> tuple[str, ...]:
        """The members of the population that wrote the newest checkpoint; none where a single run did."""
        return self[folder][0].names if self[folder] else ()


def _stored(
    begun: Mapping[str, Path], ended: Mapping[str, Path], saves: _Saves, extends: bool, change: Change
) -> list[list[Job]]:
    """The populations that go on, each from the newest moment at which all of it was saved.

    The last members of one go on as another (`Training`): where a kill came before that was saved, the one before goes
    on, with members that are completed by now.
    """
    from rltrain.jobs.training import Job
    from rltrain.policy.source import stored_config
    from rltrain.storage.checkpoint import read_checkpoint, warn_of_damaged

    populations = []
    known, taken = {**ended, **begun}, set[str]()
    for names in _groups(saves[folder] for folder in begun.values()):
        # The names are data of a file: they say nothing but which of the sweep's own jobs belong together.
        folders = [known[name] for name in names if name in known]
        whole = len(folders) == len(names) == len(set(names)) > 1 and taken.isdisjoint(names)
        # Where one went on by itself nothing that it has learnt since is thrown away.
        chosen = None
        if whole and all(map(saves.names, folders)):
            chosen = _common_saves([[saved for saved in saves[folder] if saved.names == names] for folder in folders])
        if chosen is None or any(saved.ended < (name in ended) for name, saved in zip(names, chosen, strict=True)):
            continue
        taken.update(names)
        sources = [read_checkpoint(saved.folder, only=()) for saved in chosen]
        if extends and len({source.step for source in sources}) > 1 and any(saved.ended for saved in chosen):
            continue  # members that ended apart do not move together
        if all("replay.safetensors" in source.manifest["files"] for source in sources):
            members = []
            for source, folder, saved in zip(sources, folders, chosen, strict=True):
                warn_of_damaged(folder, saved.folder)
                config, changes = change(stored_config(source), folder, source)
                members.append(Job(config, folder, saved.folder, changes))
            populations.append(members)
    return populations


def _groups(saves: Iterable[list[_Saved]]) -> list[tuple[str, ...]]:
    """The populations that wrote checkpoints, the latest first."""
    latest: dict[tuple[str, ...], int] = {}
    for saved in chain.from_iterable(saves):
        latest[saved.names] = max(saved.moment, latest.get(saved.names, 0))
    return sorted(latest, key=lambda names: latest[names], reverse=True)


def _common_saves(saves: list[list[_Saved]]) -> list[_Saved] | None:
    """The newest whole checkpoint of each member at one moment of its population, of the `saves` of each; of one that
    had ended, its last."""
    from rltrain.storage.checkpoint import verify_checkpoint

    for moment in sorted({saved.moment for of_member in saves for saved in of_member}, reverse=True):
        chosen = [
            next((s for s in of_member if s.moment == moment or (s.ended and s.moment < moment)), None)
            for of_member in saves
        ]
        whole = [saved for saved in chosen if saved is not None]
        if len(whole) < len(saves):
            continue
        try:
            for saved in whole:
                verify_checkpoint(saved.folder)
        except CheckpointError:
            continue
        return whole
    return None


def _beginning(new: Mapping[Path, Mapping[str, Any] | None], change: Change, bundle: int) -> list[list[Job]]:
    """Jobs that have nothing yet, or nothing left, in the groups in which a new sweep would train them."""
    from rltrain.jobs.pool import members_of_each
    from rltrain.jobs.training import Job

    folders = list(new)
    changed = [
        change(validate_stored(RunFolder(folder).read_config() if plain is None else plain), folder, None)
        for folder, plain in new.items()
    ]
    configs = [config for config, _ in changed]
    populations = []
    for group in group_jobs(configs):
        if len(group) == 1:
            continue
        for members in divided(group, members_of_each(configs[group[0]], len(group), bundle), bundle):
            if len(members) > 1:
                populations.append([Job(configs[n], folders[n], None, changed[n][1]) for n in members])
    for population in populations:
        for job in population:
            job.folder.mkdir(parents=True, exist_ok=True)
    return populations
