"""Page of a report: one HTML file with its figures inside, which asks no other machine for anything."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rltrain import __version__
from rltrain.report.contents import Contents
from rltrain.report.drawing import INK, PALETTE
from rltrain.report.glossary import SOURCE, glossary
from rltrain.report.groups import ENV, short_names
from rltrain.report.notes import damages, notes
from rltrain.report.page_style import PAGE_STYLE
from rltrain.report.runs import Run
from rltrain.report.statistics import CONFIDENCE
from rltrain.report.summary import Summary
from rltrain.report.words import cells
from rltrain.terminal.table import NOTHING
from rltrain.terminal.text import counted, harmless, mean_and_std, number, shortened

_MOST_SETTINGS, _MOST_RUNS = 15, 200
_LONGEST, _LONGEST_PROSE = 200, 2000
_ENLARGED = 1.3
"""Size of a figure on the page, of its size on paper."""


@dataclass(frozen=True)
class Figure:
    """A figure as the page has it: `svg` is the text of its file."""

    name: str
    title: str
    caption: str
    svg: str


def page(contents: Contents, figures: Sequence[Figure]) -> str:
    """The HTML text. Every word that comes from a run is escaped, and the page may run no script and load nothing."""
    title = f"Report on {', '.join(contents.origins)}"
    parts = [
        f"<header><h1>{_text(title)}</h1><p>{_text(_subtitle(contents))}</p></header>",
        _warnings(notes(contents)),
        *(_settings(contents, env) for env in contents.envs),
        *(_figure(figure) for figure in figures),
        _improvements(contents),
        _unfinished(contents),
        _damages(contents),
        _differences(contents),
        _reading(contents),
        _runs(contents),
        f"<footer><p>{_text(_files())}</p><p>rltrain {_text(__version__)}</p></footer>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def inline_svg(figure: Figure) -> str:
    """An SVG file as a part of the page: in the page's colours, with ids of its own."""
    svg = figure.svg[figure.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{figure.name}-", svg)
    for place, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--series-{place})")
    svg = svg.replace(INK, "currentColor")
    width = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    size = f"{_ENLARGED * float(width[1]):.0f}pt" if width else "100%"
    label = f'role="img" aria-label="{_text(figure.title)}"'
    return re.sub(r"<svg[^>]*>", lambda m: _svg_tag(m[0], size, label), svg, count=1)


def _svg_tag(tag: str, size: str, label: str) -> str:
    view = re.search(r'viewBox="[-\d. ]+"', tag)
    return (
        f'<svg {view[0] if view else ""} style="max-width:{size}" {label} xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def _subtitle(contents: Contents) -> str:
    settings, runs = counted(len(contents.summaries), "setting"), counted(len(contents.runs), "run")
    seeds = sorted({len(summary.scores) for summary in contents.summaries})
    many = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "".join(map(str, seeds))
    where = f"{', of ' if contents.algo else ' on '}{contents.algo}{', '.join(contents.envs)}"
    return f"{runs} in {settings}{where}; scored seeds each: {many or 'none'}; metric of the curves: {contents.main}"


def _warnings(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(line, _LONGEST_PROSE)}</li>" for line in lines)
    return f'<section class="notes"><h2>Read this first</h2><ul>{items}</ul></section>' if items else ""


def _settings(contents: Contents, env: str) -> str:
    keys = [key for key in contents.groups.keys if key != ENV]
    told = list(short_names(keys).values()) or ["setting"]
    numbers = ["seeds", "final return: IQM", "mean ± sd", "solved", "solve step", "area: IQM", "train time", "steps/s"]
    rows = [_setting_row(summary, keys) for summary in contents.of_env(env)]
    best = 'class="best"' if len(rows) > 1 and contents.of_env(env)[0].score is not None else ""
    head = [*told, *numbers]
    table = _table(head, rows[:_MOST_SETTINGS], len(told), {0: best})
    if rest := rows[_MOST_SETTINGS:_MOST_RUNS]:
        more = f"; settings.csv has {len(rows) - _MOST_RUNS} more" if len(rows) > _MOST_RUNS else ""
        said = f"{counted(len(rest), 'more setting')}{more}"
        table += f"<details><summary>{said}</summary>{_table(head, rest, len(told))}</details>"
    return f"<section><h2>{_text(env)}</h2>{table}</section>"


def _setting_row(summary: Summary, keys: Sequence[str]) -> list[str]:
    values = [summary.setting.texts[key] for key in keys] or [summary.setting.variant]
    spread = NOTHING if not len(summary.scores) else number(float(summary.scores.mean()))
    if summary.std is not None:
        spread = mean_and_std(float(summary.scores.mean()), summary.std).replace("+-", "±")
    seeds, score, solved, step, area, speed = cells(summary)
    return [*values, seeds, score, spread, solved, step, area, _duration(summary.train_seconds), speed]


def _figure(figure: Figure) -> str:
    links = " · ".join(f'<a href="{figure.name}.{kind}">{kind.upper()}</a>' for kind in ("png", "svg"))
    return (
        f"<section><h2>{_text(figure.title)}</h2><figure>{inline_svg(figure)}"
        f"<figcaption>{_text(figure.caption, _LONGEST_PROSE)} <span>{links}</span></figcaption></figure></section>"
    )


def _improvements(contents: Contents) -> str:
    if not contents.improvements:
        return ""
    rows = [
        [
            i.better, i.other, f"{i.probability:.2f}", NOTHING if i.low is None else f"{i.low:.2f} to {i.high:.2f}",
            f"{i.compared} of {i.envs}",
        ]
        for i in contents.improvements[:_MOST_RUNS]
    ]  # fmt: skip
    table = _table(["setting", "against", "probability", f"{CONFIDENCE:.0%} interval", "environments"], rows, 2)
    return f"<details><summary>Probabilities of improvement as numbers</summary>{table}</details>"


def _unfinished(contents: Contents) -> str:
    rows = [
        [contents.name(run), run.state, NOTHING if run.steps is None else f"{run.steps:,}", run.why]
        for run in contents.unfinished[:_MOST_RUNS]
    ]
    if not rows:
        return ""
    more = len(contents.unfinished) - len(rows)
    rest = f"<p>and {more} more, which runs.csv has</p>" if more else ""
    table = _table(["run", "state", "steps", "why"], rows, 2, left=(3,))
    return f"<section><h2>Runs that no score counts</h2>{table}{rest}</section>"


def _damages(contents: Contents) -> str:
    lines = damages(contents)
    more = [f"and {len(lines) - _MOST_RUNS} more, which runs.csv has"] if len(lines) > _MOST_RUNS else []
    items = "".join(f"<li>{_text(line, _LONGEST_PROSE)}</li>" for line in [*lines[:_MOST_RUNS], *more])
    return f"<section><h2>Damaged files</h2><ul>{items}</ul></section>" if items else ""


def _differences(contents: Contents) -> str:
    groups = contents.groups
    if not groups.keys:
        return ""
    short = short_names([key for key in groups.keys if key != ENV])
    told = ", ".join(key if short.get(key, key) == key else f"{key} ({short[key]})" for key in groups.keys)
    lines = [f"Settings are told apart by {told}. Runs that differ in their seed alone are replicates."]
    if groups.implied:
        lines.append(f"These keys differ too, and follow from those: {', '.join(groups.implied)}.")
    return (
        f"<section><h2>What differs</h2>{''.join(f'<p>{_text(line, _LONGEST_PROSE)}</p>' for line in lines)}</section>"
    )


def _reading(contents: Contents) -> str:
    items = "".join(
        f"<dt>{_text(word)}</dt><dd>{_text(meaning, _LONGEST_PROSE)}</dd>"
        for word, meaning in glossary(contents).items()
    )
    return f"<section><h2>How to read it</h2><dl>{items}</dl><p>{_text(SOURCE)}</p></section>"


def _runs(contents: Contents) -> str:
    runs = [(run, summary.setting) for summary in contents.summaries for run in summary.setting.runs]
    rows = [_run_row(contents, run, setting.variant) for run, setting in runs[:_MOST_RUNS]]
    head = ["run", "environment", "setting", "seed", "state", "steps", "final return ± sd", "outcome", "time"]
    more = f"<p>and {len(runs) - len(rows)} more, which runs.csv has</p>" if len(runs) > len(rows) else ""
    return f"<details><summary>All {counted(len(runs), 'run')}</summary>{_table(head, rows, 3)}{more}</details>"


def _run_row(contents: Contents, run: Run, variant: str) -> list[str]:
    returns = None if run.result is None else run.result.returns
    return [
        contents.name(run),
        run.env,
        variant,
        NOTHING if run.seed is None else str(run.seed),
        run.state,
        NOTHING if run.steps is None else f"{run.steps:,}",
        NOTHING if returns is None else mean_and_std(returns["mean"], returns["std"]).replace("+-", "±"),
        run.outcome or NOTHING,
        _duration(run.wall_seconds),
    ]


def _files() -> str:
    return (
        "Beside this page: runs.csv, settings.csv and curves.csv (pandas.read_csv reads each as it is), summary.json, "
        "each figure as PNG and SVG, and tensorboard/ with the curves over seeds."
    )


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: int,
    marks: Mapping[int, str] | None = None,
    left: Sequence[int] = (),
) -> str:
    """A table whose first `words` columns are text, as are those in `left`; `marks` are attributes of rows."""
    sides = ["" if place < words or place in left else ' class="n"' for place in range(len(head))]
    top = "".join(f"<th{side}>{_text(title)}</th>" for side, title in zip(sides, head, strict=True))
    body = "".join(
        f"<tr {(marks or {}).get(number, '')}>"
        + "".join(f"<td{side}>{_text(cell)}</td>" for side, cell in zip(sides, row, strict=True))
        + "</tr>\n"
        for number, row in enumerate(rows)
    )
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _text(text: str, longest: int = _LONGEST) -> str:
    return html.escape(shortened(harmless(text), longest))
