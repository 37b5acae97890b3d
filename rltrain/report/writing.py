"""Files of a report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from rltrain.errors import RequestError
from rltrain.loggers.curve_events import HIGH, LOW, MEAN, write_curves
from rltrain.report.contents import Contents
from rltrain.report.drawing import png_bytes, styled, svg_text
from rltrain.report.drawings import drawings
from rltrain.report.page import Figure, page
from rltrain.report.summary import Summary
from rltrain.report.tables import csv_files, to_plain
from rltrain.report.words import PAGE, TENSORBOARD
from rltrain.storage.files import first_link, write_atomic
from rltrain.storage.plain_files import json_text
from rltrain.terminal.shell import shown_path

_MOST_EVENT_FILES = 60
_LONGEST_NAME = 80


def write_report(contents: Contents, out: Path) -> Path:
    """Writes the tables, the figures and, last, the page into the folder `out`, and returns the page.

    Raises:
        RequestError: the folder holds a link.
        OSError: it cannot be written; with `filename` set.
    """
    out.mkdir(parents=True, exist_ok=True)
    if link := first_link(out):
        raise RequestError(f"{shown_path(link)}: is a link; a report writes into no folder but its own")
    for name, text in {**csv_files(contents), "summary.json": json_text(to_plain(contents))}.items():
        write_atomic(out / name, text)
    figures = list(_draw(contents, out))
    for path in (*out.glob("*.png"), *out.glob("*.svg")):
        if path.stem not in (figure.name for figure in figures):  # of an earlier report
            path.unlink()
    _write_events(contents, out / TENSORBOARD)
    write_atomic(out / PAGE, page(contents, figures))
    return out / PAGE


def _draw(contents: Contents, out: Path) -> Iterator[Figure]:
    """Writes each figure, PNG and SVG."""
    with styled():
        for drawing in drawings(contents):
            figure = drawing.make()
            svg = svg_text(figure)
            write_atomic(out / f"{drawing.name}.png", png_bytes(figure))
            write_atomic(out / f"{drawing.name}.svg", svg)
            yield Figure(drawing.name, drawing.title, drawing.caption, svg)


def _write_events(contents: Contents, out: Path) -> None:
    """Writes a TensorBoard run for each of the best settings, the interquartile mean under the metric's own tag."""
    shutil.rmtree(out, ignore_errors=True)
    ended = max((run.ended for run in contents.runs if run.ended is not None), default=0.0)
    variants = contents.variants[: max(1, _MOST_EVENT_FILES // max(1, len(contents.envs)))]
    for number, summary in enumerate(contents.summaries):
        if summary.curves and summary.setting.variant in variants:
            folder = out / _folder_name(number, contents, summary)
            folder.mkdir(parents=True)
            curves = {
                f"{tag}{end}": values.tolist()
                for tag, line in summary.curves.items()
                for end, values in (("", line.iqm), (MEAN, line.mean), (LOW, line.low), (HIGH, line.high))
            }
            write_curves(folder, {tag: line.steps.tolist() for tag, line in summary.curves.items()}, curves, ended)


def _folder_name(number: int, contents: Contents, summary: Summary) -> str:
    """Which TensorBoard shows for the setting."""
    env = f"{summary.setting.env} " if len(contents.envs) > 1 else ""
    return f"{number:03} {re.sub(r'[^A-Za-z0-9._=, -]+', '_', env + summary.setting.variant)[:_LONGEST_NAME]}"
