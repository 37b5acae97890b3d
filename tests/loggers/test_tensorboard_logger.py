"""The event file, read back by TensorBoard itself."""

from __future__ import annotations

import logging
import os
import re
import resource
import time
from pathlib import Path

import pytest
from small_runs import (
    STATES,
    VECTOR,
    ScriptedEnvs,
    dqn_config,
    drive,
    make_agent,
    q_learning_config,
    reinforce_config,
    run_config,
)
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS

from rltrain.config.schema import AlgoConfig
from rltrain.jobs.build import build_logger
from rltrain.loggers.logger import MultiLogger
from rltrain.loggers.tensorboard import _DASHBOARD, TensorBoardLogger
from rltrain.storage.run_folder import RunFolder


def load(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def steps(folder: Path, tag: str = "train/td_loss") -> list[int]:
    """What both of TensorBoard's own readers see: the one for scripts and the one behind its pages."""
    page = plugin_event_accumulator.EventAccumulator(str(folder), tensor_size_guidance={"scalars": 0})
    page.Reload()
    seen = [event.step for event in load(folder).Scalars(tag)]
    assert [event.step for event in page.Tensors(tag)] == seen
    return seen


def write(folder: Path, logged: range, resume_step: int | None = None, completed: bool | None = None) -> None:
    logger = TensorBoardLogger(folder, resume_step, {"seed": 3, "algo": {"name": "dqn", "lr": 1e-3}, "none": None})
    for step in logged:
        logger.log(step, {"train/td_loss": step / 4, "train/q_value": 2.0})
    logger.close(completed)


def event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)


def test_scalars_are_read_by_tensorboard(tmp_path: Path) -> None:
    write(tmp_path, range(0, 100, 10))
    assert load(tmp_path).Tags()["scalars"] == ["train/td_loss", "train/q_value"]
    assert [(event.step, event.value) for event in load(tmp_path).Scalars("train/td_loss")] == [
        (step, step / 4) for step in range(0, 100, 10)
    ]


def test_one_log_call_is_one_event(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    write(tmp_path, range(3))
    events = list(LegacyEventFileLoader(str(event_files(tmp_path)[0])).Load())
    assert [len(event.summary.value) for event in events[-3:]] == [2, 2, 2]


def test_after_a_resume_each_step_appears_once(tmp_path: Path) -> None:
    write(tmp_path, range(70))
    write(tmp_path, range(50, 100), resume_step=49)
    assert steps(tmp_path) == list(range(100))


def test_a_resume_where_the_clock_is_behind_is_read_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another machine, or set back; TensorBoard would read the older part last, and drop the newer."""
    write(tmp_path, range(70))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600.0)
    write(tmp_path, range(50, 100), resume_step=49)
    write(tmp_path, range(90, 110), resume_step=89)
    assert steps(tmp_path) == list(range(110))


@pytest.mark.parametrize("damage", ["cut", "removed", "emptied"])
def test_a_damaged_file_and_a_resume_show_each_step_at_most_once(tmp_path: Path, damage: str) -> None:
    write(tmp_path, range(70))
    file = event_files(tmp_path)[0]
    if damage == "removed":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "emptied" else file.stat().st_size - 7)
    write(tmp_path, range(50, 100), resume_step=49)
    seen = steps(tmp_path)
    assert seen == list(range(100 - len(seen), 100))
    assert len(seen) == (100 if damage == "cut" else 50)


def charts(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Category -> chart -> patterns of tags, as the last layout says."""
    event = load(folder).Tensors("custom_scalars__config__")[-1]
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {
        category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
        for category in layout.category
    }


def test_the_dashboard_shows_whole_tags_only(tmp_path: Path) -> None:
    tags = ["rollout/episode_return", "eval/episode_return", "eval/episode_return_std", "train/td_loss"]
    logger = TensorBoardLogger(tmp_path)
    logger.log(1, dict.fromkeys(tags, 0.0))
    logger.close()
    patterns = {title: tags for category in charts(tmp_path).values() for title, tags in category.items()}

    def shown(title: str) -> list[str]:
        return [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns[title])]

    assert shown("training and evaluation") == ["rollout/episode_return", "eval/episode_return"]
    assert shown("evaluation, spread") == ["eval/episode_return_std"]
    assert shown("TD loss") == ["train/td_loss"]


def test_the_dashboard_has_the_charts_of_the_scalars_that_there_are(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    first = [{"train/td_loss": 1.0}, {"rollout/episode_return": 2.0}, {"eval/episode_return": 2.0, "made/up": 1.0}]
    for resume_step, rows in ((None, first), (3, [{"train/q_value": 1.0}])):
        logger = build_logger(run_config(dqn_config()), run, resume_step, MultiLogger([]))
        for step, row in enumerate(rows, 1 if resume_step is None else resume_step + 1):
            logger.log(step, row)
        logger.close()
        found = charts(tmp_path)
        assert set(found) == set(_DASHBOARD)
        assert set(found["Returns"]) == {"training and evaluation"}
        assert set(found["Learning"]) == {"TD loss", *(["mean Q"] if resume_step else [])}
        assert not found["Why learning fails"]


@pytest.mark.parametrize("config", [dqn_config(), reinforce_config(), q_learning_config()], ids=lambda c: str(c.name))
def test_every_tag_of_an_algorithm_has_a_chart(config: AlgoConfig) -> None:
    observation = STATES if config.name == "q_learning" else VECTOR
    agent = make_agent(run_config(config, num_envs=2), observation)
    tags = set(agent.scalars()).union(*drive(agent, ScriptedEnvs(2, observation), 60))
    assert tags >= {"train/learning_rate", "train/epsilon" if config.name != "reinforce" else "train/entropy"}
    assert tags <= {tag for charts in _DASHBOARD.values() for chart in charts.values() for tag in chart}


@pytest.mark.parametrize(("completed", "status"), [(True, STATUS_SUCCESS), (False, STATUS_FAILURE)])
def test_the_hparams_session(tmp_path: Path, completed: bool, status: int) -> None:
    write(tmp_path, range(3))
    write(tmp_path, range(3, 5), resume_step=2, completed=completed)
    summary = load(tmp_path).SummaryMetadata
    start = hparams.parse_session_start_info_plugin_data(summary(hparams.SESSION_START_INFO_TAG).plugin_data.content)
    values = start.hparams
    assert values["seed"].number_value == 3
    assert values["algo.name"].string_value == "dqn"
    assert values["algo.lr"].number_value == 1e-3
    assert "none" not in values
    end = hparams.parse_session_end_info_plugin_data(summary(hparams.SESSION_END_INFO_TAG).plugin_data.content)
    assert end.status == status


def test_a_full_disk_is_reported_once_and_never_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log(0, {"a": 1.0})
    logger.flush()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    begin = time.monotonic()
    try:
        with caplog.at_level(logging.WARNING):
            for step in range(1, 1000):
                logger.log(step, {"a": 1.0, "b": 2.0})
            logger.flush()
            logger.flush()
            logger.close(True)
            logger.close(True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert time.monotonic() - begin < 5
    assert len(caplog.records) == 1
    assert "events.out.tfevents" in caplog.text
    assert steps(tmp_path, "a")[0] == 0


def test_a_disk_that_fills_at_the_end_does_not_hang_close(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = TensorBoardLogger(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        logger.log(1, {"a": 1.0})
        logger.close(True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = TensorBoardLogger(tmp_path / "none")
    logger.log(0, {"a": 1.0})
    logger.close(True)
    assert len(caplog.records) == 1


def test_files_of_one_second_are_read_in_their_order(tmp_path: Path) -> None:
    for resume_step in [None, *range(11)]:
        logger = TensorBoardLogger(tmp_path, resume_step)
        logger.log((resume_step or 0) + 1, {"train/td_loss": 1.0})
        logger.close()
    assert steps(tmp_path) == list(range(1, 12))
