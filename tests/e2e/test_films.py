"""Films of a run that trains: `video.period`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from whole_runs import COMMON_ARGS, assert_same_run, record_of, result_of, rltrain_here

import rltrain.policy.video
from rltrain.errors import RunFailed

ARGS = [
    *COMMON_ARGS, "env=probe_envs:Film-v0", "total_steps=60", "algo.learning_starts=20", "algo.batch_size=4",
    "eval.period=null", "checkpoint.period=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    assert rltrain_here(folder, *ARGS, "hydra.run.dir=run", "video.period=30") == 0
    return folder / "run"


def test_every_period_has_a_film(run: Path) -> None:
    films = sorted((run / "videos").iterdir())
    assert [film.name for film in films] == ["step_00000030.gif", "step_00000060.gif"]
    with Image.open(films[0]) as film:
        assert film.format == "GIF" and film.size == (12, 8) and getattr(film, "n_frames", 0) == 2


def test_tensorboard_has_it_among_its_images(run: Path) -> None:
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    images = events.Images("eval/video")
    assert [(image.step, image.width, image.height) for image in images] == [(30, 12, 8), (60, 12, 8)]
    assert images[1].encoded_image_string == (run / "videos" / "step_00000060.gif").read_bytes()


def test_filming_changes_nothing(run: Path, tmp_path: Path) -> None:
    assert rltrain_here(tmp_path, *ARGS, "hydra.run.dir=run", "checkpoint.period=20") == 0
    filmed, plain = result_of(run, "result.json"), result_of(tmp_path / "run", "result.json")
    assert filmed == plain and not (tmp_path / "run" / "videos").exists()


def test_a_run_that_was_killed_is_filmed_as_if_it_had_not(run: Path, tmp_path: Path) -> None:
    from whole_runs import KillAfter

    args = [*ARGS, f"hydra.run.dir={tmp_path / 'run'}", "video.period=30"]
    assert rltrain_here(tmp_path, *args, stop=KillAfter(45, tmp_path / "run")) == -1
    assert rltrain_here(tmp_path, "resume", "run") == 0
    assert_same_run(run, tmp_path / "run")
    assert len(list((tmp_path / "run" / "videos").iterdir())) == 2


def test_every_member_of_a_population_has_its_own(tmp_path: Path) -> None:
    assert rltrain_here(tmp_path, "-m", *ARGS, "hydra.sweep.dir=sweep", "seed=0,1", "video.period=40") == 0
    for job in ("0", "1"):
        assert [film.name for film in (tmp_path / "sweep" / job / "videos").iterdir()] == ["step_00000040.gif"]


@pytest.mark.parametrize("more", [[], ["dry_run=true"], ["-m", "seed=0,1", "hydra.sweep.dir=sweep"]])
def test_an_environment_that_cannot_be_drawn_is_refused_beforehand(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*ARGS, "hydra.run.dir=run", "+env.kwargs.how=none", "video.period=30"]
    assert rltrain_here(tmp_path, *args, *more) != 0
    said = capsys.readouterr().err
    assert "video.period=30: probe_envs:Film-v0 draws no pictures: render() gives None" in said
    assert not list(tmp_path.glob("**/metrics.jsonl"))


def test_a_film_that_cannot_be_made_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise RunFailed("the projector burns")

    monkeypatch.setattr(rltrain.policy.video, "record_gif", fails)
    assert rltrain_here(tmp_path, *ARGS, "hydra.run.dir=run", "video.period=30") == 0
    assert record_of(tmp_path / "run")["status"] == "completed"
    assert "the projector burns" in capsys.readouterr().err
    assert "the projector burns" in (tmp_path / "run" / "run.log").read_text()


def test_a_logger_that_takes_no_film_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no_films.py").write_text(
        "from rltrain.loggers.logger import NullLogger\n"
        "class Blind(NullLogger):\n    def video(self, step, path):\n        raise OSError('no network')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert rltrain_here(tmp_path, *ARGS, "hydra.run.dir=run", "video.period=30", "loggers=[no_films:Blind]") == 1
    assert record_of(tmp_path / "run")["status"] == "failed"
    assert "loggers=[no_films:Blind]: OSError: no network" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("pygame") is None, reason="needs the extra render")
@pytest.mark.slow
def test_cartpole_is_drawn(tmp_path: Path) -> None:
    args = [*COMMON_ARGS, "total_steps=60", "algo.learning_starts=10", "eval.period=null", "hydra.run.dir=run"]
    assert rltrain_here(tmp_path, *args, "video.period=60") == 0
    assert (tmp_path / "run" / "videos" / "step_00000060.gif").stat().st_size > 1000
