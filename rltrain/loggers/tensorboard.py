"""The TensorBoard event file of a run: scalars, a dashboard of custom scalars, and its row in the HParams table.

Records are written by this thread, not through TensorBoard's queue: a full disk then is one OSError here, where the
queue's thread dies and surfaces it in some later call.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

_FLUSH_SECONDS: Final = 5.0
_FILE: Final = "events.out.tfevents."
_FILE_NUMBER = itertools.count()
_FILE_TIME: Final = re.compile(r"\d{10}(\.\d{6})?(?=\.)")
_LOG = logging.getLogger(__name__)

# Category -> chart -> tags.
_DASHBOARD: Final = {
    "Returns": {
        "training and evaluation": ["rollout/episode_return", "eval/episode_return"],
        "evaluation, spread": ["eval/episode_return_std"],
        "episode length": ["rollout/episode_length"],
    },
    "Learning": {
        "TD loss": ["train/td_loss"],
        "policy loss": ["train/policy_loss"],
        "value loss": ["train/value_loss"],
        "explained variance": ["train/explained_variance"],
        "approximate KL": ["train/approx_kl"],
        "clip fraction": ["train/clip_fraction"],
        "mean Q": ["train/q_value"],
        "gradient norm": ["train/grad_norm"],
        "learning rate": ["train/learning_rate"],
    },
    "Why learning fails": {
        "value of first states and discounted return": ["diagnostics/value", "diagnostics/discounted_return"],
        "dormant units": ["diagnostics/dormant_units"],
        "distance to the target network": ["diagnostics/target_distance"],
        "age of sampled transitions": ["diagnostics/replay_age"],
        "share of the replay that priorities sample": ["diagnostics/priority_share"],
        "share of the table's entries that were updated": ["diagnostics/visited_entries"],
    },
    "Exploration and speed": {
        "epsilon and entropy": ["train/epsilon", "train/entropy"],
        "environment steps per second": ["time/steps_per_second"],
        "gradient steps": ["train/gradient_steps"],
    },
}


class TensorBoardLogger:
    """Writes one event per log call into a new file in the run's folder; values are float32.

    A file that cannot be written is reported once, as a warning, and training goes on: metrics.jsonl says the same.

    Args:
        resume_step: where the run continues from: TensorBoard then drops what earlier files say of later steps.
        hparams: flat hyperparameters for the HParams table (nested mappings are joined with dots).
        tags: of the scalars that earlier files have.
    """

    def __init__(
        self,
        folder: Path,
        resume_step: int | None = None,
        hparams: Mapping[str, Any] | None = None,
        tags: Collection[str] = (),
    ) -> None:
        name = f"{_FILE}{_file_time(folder):017.6f}.{socket.gethostname()}.{os.getpid()}.{next(_FILE_NUMBER)}"
        self._path = folder / name
        self._writer: RecordWriter | None = None
        self._flush_at = 0.0
        self._tags: set[str] = set()
        try:
            self._writer = RecordWriter(open(self._path, "xb"))  # noqa: SIM115
        except OSError as error:
            self._give_up(error)
        self._write(Event(file_version="brain.Event:2"))
        # A run's second START purges what was read of its step and later ones; the first only begins the run, so a new
        # run needs one too.
        first_step = 0 if resume_step is None else resume_step + 1
        self._write(Event(session_log=SessionLog(status=SessionLog.START), step=first_step))
        self._chart(tags)
        if hparams is not None:
            self._write(Event(summary=Summary(value=[_session_start_value(hparams)])))
        self.flush()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if not self._tags.issuperset(scalars):
            self._chart(scalars)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))
        if time.monotonic() >= self._flush_at:
            self.flush()

    def result(self, step: int, scalars: Mapping[str, float]) -> None:
        self.log(step, scalars)

    def video(self, step: int, path: Path) -> None:
        """The film among the images, which TensorBoard plays."""
        content = path.read_bytes()
        width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag="eval/video", image=image)])))

    def flush(self) -> None:
        self._flush_at = time.monotonic() + _FLUSH_SECONDS
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as error:
                self._give_up(error)

    def close(self, completed: bool | None = None) -> None:
        # An interrupted session stays open: of several end records the HParams table believes the first.
        if completed is not None and self._writer is not None:
            self._write(Event(summary=Summary(value=[_session_end_value(completed)])))
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)
            self._writer = None

    def _chart(self, tags: Collection[str]) -> None:
        """Tells the dashboard its charts: those of the tags so far and of these. TensorBoard takes what each run says
        last, and puts the charts of all runs together."""
        self._tags.update(tags)
        self._write(Event(summary=Summary(value=[_layout_value(frozenset(self._tags))])))

    def _write(self, event: Event) -> None:
        if self._writer is None:
            return
        event.wall_time = time.time()
        try:
            self._writer.write(event.SerializeToString())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            # The buffered rest cannot be written either; closing raises once and then counts as closed.
            with contextlib.suppress(OSError):
                writer.close()
        _LOG.warning("%s: cannot be written: %s; no TensorBoard from here on", self._path, error.strerror or error)


def _file_time(folder: Path) -> float:
    """The time in the name of a new file. TensorBoard reads a run's files in the order of their names: whole seconds
    would not order a quick resume, nor would the clock alone one that was set back, or another machine's."""
    names = (path.name.removeprefix(_FILE) for path in folder.glob(f"{_FILE}*"))
    earlier = (float(match[0]) for name in names if (match := _FILE_TIME.match(name)))
    return max((time.time(), *(before + 0.001 for before in earlier)))


@functools.lru_cache(64)  # the jobs of a population have the same
def _layout_value(seen: frozenset[str]) -> Summary.Value:
    """The charts that have a tag of these, in every category: of one that the first run lacks TensorBoard shows only
    what the second has."""
    categories = [
        layout_pb2.Category(
            title=category,
            chart=[
                layout_pb2.Chart(title=chart, multiline=layout_pb2.MultilineChartContent(tag=map(_exactly, tags)))
                for chart, tags in charts.items()
                if not seen.isdisjoint(tags)
            ],
        )
        for category, charts in _DASHBOARD.items()
    ]
    return layout_value(categories)


def layout_value(categories: Iterable[layout_pb2.Category]) -> Summary.Value:
    """The summary that tells the dashboard its charts."""
    layout = layout_pb2.Layout(category=categories)
    return Summary.Value(
        tag=custom_scalar.CONFIG_SUMMARY_TAG,
        metadata=custom_scalar.create_summary_metadata(),
        tensor=TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()]),
    )


def _exactly(tag: str) -> str:
    """TensorBoard takes a tag for a regular expression that matches any beginning of a tag."""
    return f"{tag}$"


def _session_start_value(hparams: Mapping[str, Any]) -> Summary.Value:
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in _flatten(hparams):
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = str(value)
    return _hparams_value(hparams_metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _session_end_value(completed: bool) -> Summary.Value:
    status = STATUS_SUCCESS if completed else STATUS_FAILURE
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams_value(hparams_metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _hparams_value(tag: str, data: HParamsPluginData) -> Summary.Value:
    metadata = SummaryMetadata.FromString(hparams_metadata.create_summary_metadata(data).SerializeToString())
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=TensorShapeProto())
    return Summary.Value(tag=tag, metadata=metadata, tensor=nothing)


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat.append((f"{prefix}{key}", value))
    return flat
