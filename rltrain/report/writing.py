"""Files of a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rltrain.errors import RequestError
from rltrain.report.contents import Contents
from rltrain.report.drawing import png_bytes, styled, svg_text
from rltrain.report.figures import drawings
from rltrain.report.page import Figure, page
from rltrain.report.tables import csv_files, to_plain
from rltrain.report.words import PAGE
from rltrain.storage.files import first_link, write_atomic
from rltrain.storage.run_folder import json_text
from rltrain.terminal.text import shown_path


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
