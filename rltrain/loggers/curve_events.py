"""TensorBoard event files of curves that are known whole, as those over the seeds of a setting."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from rltrain.loggers.tensorboard import layout_value
from rltrain.storage.files import write_atomic

_NAME = "events.out.tfevents.0.rltrain"
LOW, HIGH, MEAN = "_low", "_high", "_mean"
"""Ends of the tags beside a curve's own."""


def write_curves(
    folder: Path, steps: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[float]], wall_time: float
) -> None:
    """Writes the event file of one setting; the same curves are the same bytes.

    Args:
        steps: tag of each metric -> its environment steps.
        curves: tag, with one of the ends or none, -> values at the metric's steps; NaN: there is none.
        wall_time: of all events, in seconds.

    Raises:
        OSError: it cannot be written.
    """
    data = io.BytesIO()
    writer = RecordWriter(data)
    for event in _events(steps, curves):
        event.wall_time = wall_time
        writer.write(event.SerializeToString())
    write_atomic(folder / _NAME, data.getvalue())


def _events(steps: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[float]]) -> Iterator[Event]:
    yield Event(file_version="brain.Event:2")
    yield Event(summary=Summary(value=[layout_value([_bands(steps)])]))
    for tag, places in steps.items():
        lines = {name: curves[name] for end in ("", MEAN, LOW, HIGH) if (name := f"{tag}{end}") in curves}
        for number, step in enumerate(places):
            known = {name: line[number] for name, line in lines.items() if math.isfinite(line[number])}
            values = [Summary.Value(tag=name, simple_value=value) for name, value in known.items()]
            yield Event(step=round(step), summary=Summary(value=values))


def _bands(tags: Iterable[str]) -> layout_pb2.Category:
    """A chart for each metric, with its interval as a band."""
    charts = [
        layout_pb2.Chart(
            title=tag,
            margin=layout_pb2.MarginChartContent(
                series=[
                    layout_pb2.MarginChartContent.Series(value=tag, lower=f"{tag}{LOW}", upper=f"{tag}{HIGH}"),
                ]
            ),
        )
        for tag in tags
    ]
    return layout_pb2.Category(title="Over seeds", chart=charts)
