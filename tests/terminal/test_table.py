"""Tables for a terminal: no two rows look the same that are not."""

from __future__ import annotations

import pytest

from rltrain.terminal.table import cut_apart, laid_out

TITLES = ["seeds", "setting", "return", "speed"]
ROWS = [
    ["20", f"CartPole-v1 target_update={kind} lr=0.001", "422.2 [305.9, 495.5]", "1,234"] for kind in ("soft", "hard")
]


def test_a_wide_terminal_has_all_of_it() -> None:
    lines = laid_out(TITLES, ROWS, 100, optional=(3,)).splitlines()
    assert [line.split() for line in lines[1:]] == [" ".join(row).split() for row in ROWS]


def test_a_narrow_one_leaves_columns_out_before_settings_look_the_same() -> None:
    for width in range(47, 60):
        lines = laid_out(TITLES, ROWS, width, optional=(3,)).splitlines()
        settings = [line[7:].partition("  ")[0] for line in lines[1:]]
        assert len(set(settings)) == 2 and max(map(len, lines)) <= width
        assert all("422.2" in line for line in lines[1:])
    assert "speed" not in laid_out(TITLES, ROWS, 50, optional=(3,))


def test_words_that_fewest_have_come_first_only_where_that_tells_texts_apart() -> None:
    assert cut_apart(["a=1 b=2 c=3", "a=1 b=2 c=4"], 20) == ["a=1 b=2 c=3", "a=1 b=2 c=4"]
    assert cut_apart(["a=1 b=2 c=3", "a=1 b=2 c=4"], 8) == ["c=3 a...", "c=4 a..."]
    assert cut_apart(["a=1 b=2 c=3", "a=2 b=2 c=3"], 8) == ["a=1 b...", "a=2 b..."]
    assert cut_apart(["same words here", "same words here"], 8) == ["same ...", "same ..."]


def test_what_no_order_tells_apart_loses_its_middle() -> None:
    texts = ["first target_update=hard", "first target_update=soft"]
    assert cut_apart(texts, 16, middles=True) == ["first...ate=hard", "first...ate=soft"]
    assert cut_apart(texts, 13, middles=True) == ["firs...e=hard", "firs...e=soft"]
    assert cut_apart(["abcdefgh1xyz", "abcdefgh2xyz"], 9) == ["abcdef...", "abcdef..."]
    assert cut_apart(["abc1defghxyz", "abc2defghxyz"], 6, middles=True) == ["#1 ...", "#2 ..."]


def test_what_would_keep_a_few_letters_of_both_ends_is_numbered() -> None:
    texts = ["CartPole-v1 target_update=hard", "CartPole-v1 target_update=soft"]
    assert cut_apart(texts, 12, middles=True) == ["#1 CartPo...", "#2 CartPo..."]
    assert cut_apart(texts, 7, middles=True) == ["#1 C...", "#2 C..."], "not C...ard and C...oft"


def test_numbers_are_told_below_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = laid_out(TITLES, ROWS, 40, optional=(3,)).splitlines()
    assert lines[1:] == [
        "20     #1 CartP...  422.2 [305.9, 495.5]",
        "20     #2 CartP...  422.2 [305.9, 495.5]",
        "#1 CartPole-v1 target_update=soft",
        "   lr=0.001",
        "#2 CartPole-v1 target_update=hard",
        "   lr=0.001",
    ]


def test_another_order_of_words_is_that_of_all_texts() -> None:
    texts = ["a=1 b=1 c=1", "a=1 b=2 c=2", "a=1 b=2 c=3"]
    assert cut_apart(texts, 8) == ["c=1 b...", "c=2 b...", "c=3 b..."]
