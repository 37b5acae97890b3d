"""Pictures of a study: their legends name what is drawn, and hide none of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from rltrain.report import study

PRUNED, COMPLETE, BEST = "pruned, last evaluation", "complete", "best until then"


@pytest.mark.parametrize(
    ("complete", "pruned", "names"),
    [
        ({0: 1.0, 2: 3.0}, {1: 0.5}, [PRUNED, COMPLETE, BEST]),
        ({0: 1.0, 2: 3.0}, {}, [COMPLETE, BEST]),
        ({0: 1.0}, {1: 0.5}, [PRUNED, COMPLETE]),  # a line through one point draws nothing
        ({}, {1: 0.5}, [PRUNED]),
        ({}, {}, []),
    ],
)
def test_the_legend_of_a_history_names_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: dict[int, float], pruned: dict[int, float],
    names: list[str],
) -> None:  # fmt: skip
    drawn: list[Figure] = []
    save = study._save
    monkeypatch.setattr(study, "_save", lambda figure, path: (drawn.append(figure), save(figure, path))[1])
    assert study.plot_history(tmp_path, {"complete": complete, "pruned": pruned}, "dqn").exists()
    (axes,) = drawn[0].axes
    legends = [*drawn[0].legends, *filter(None, [axes.get_legend()])]
    assert [text.get_text() for legend in legends for text in legend.get_texts()] == names
    assert all(legend.get_window_extent().y1 < axes.bbox.y0 for legend in legends), "it hides no trial"
    assert all(tick == int(tick) for tick in axes.get_xticks() if names), "trials have whole numbers"
