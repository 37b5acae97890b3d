"""`rltrain report`: which folders it takes, what it writes and says, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from halves import often
from written_runs import config, result, row, write_run, write_sweep

from rltrain.cli import main

EVIL = "<script>alert(1)</script>$\\frac$&\"'\x1b[2J\u202e_"


def jobs(envs: tuple[str, ...] = ("CartPole-v1", "Acrobot-v1")) -> Mapping[str, Any]:
    """A sweep of two environments, two learning rates and three seeds."""
    found: dict[str, Any] = {}
    for env in envs:
        for rate in (0.001, 0.01):
            for seed in range(3):
                changes = {"env__id": env, "algo__optimizer__lr": rate, "seed": seed}
                overrides = [f"env={env}", f"algo.optimizer.lr={rate}", f"seed={seed}"]
                found[str(len(found))] = (overrides, changes, 100.0 + seed + 1000 * rate)
    return found


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that they are closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its report; one job has failed, and a job's name and words are a stranger's."""
    folder = write_sweep(tmp_path_factory.mktemp("report") / "sweep", jobs())
    failed = folder / "0"
    (failed / "result.json").unlink()
    (failed / "run.json").write_text(json.dumps({"status": "failed", "reason": f"loss is NaN {EVIL}", "seconds": 1.0}))
    write_run(folder / "evil", final=result(7.0), env__id=EVIL, algo__optimizer__lr=EVIL)
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have no figures: to draw them is most of the time."""
    monkeypatch.setattr("rltrain.report.writing.drawings", lambda contents: iter(()))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(["report", *args]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) <= 3
    return said.err.removeprefix("rltrain: ")


def test_the_page_is_whole_and_asks_nobody(sweep: Path) -> None:
    text = (sweep / "report" / "report.html").read_text()
    tags = Tags(text)
    assert {tag for tag, _ in tags.all} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "image",
    } == set()
    for tag, attributes in tags.all:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "style", "srcset"):
            target = attributes.get(name) or ""
            assert "//" not in target and "javascript" not in target, (tag, target)
    links = {attributes["href"] for tag, attributes in tags.all if tag == "a"}
    assert all(((sweep / "report") / str(link)).is_file() for link in links) and len(links) >= 10
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert "url(http" not in text and "@import" not in text


def test_ids_of_the_figures_do_not_clash(sweep: Path) -> None:
    text = (sweep / "report" / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 20
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_a_stranger_s_words_stay_words(sweep: Path) -> None:
    for path in (sweep / "report").glob("*.*"):
        if path.suffix in (".html", ".csv", ".svg", ".json"):
            text = path.read_text()
            assert "\x1b" not in text and "\u202e" not in text, path.name
            if path.suffix in (".html", ".svg"):
                assert "<script" not in text and "alert(1)</script>" not in text, path.name
    assert "&lt;script&gt;" in (sweep / "report" / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_failed_runs_are_named_with_their_reason(sweep: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (sweep / "report" / "report.html").read_text()
    assert "Runs that no score counts" in page and "loss is NaN &lt;script" in page
    assert main(["report", str(sweep), "out=other"]) == 0
    said = capsys.readouterr().out
    assert "2 of 3" in said and "0: failed at step 1,000: loss is NaN <script>" in said and "\x1b" not in said
    assert said.endswith("report    other/report.html\n")


@pytest.mark.usefixtures("undrawn")
def test_what_is_explained_below_the_table_is_in_it(
    sweep: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width, has_area in (("160", True), ("60", False)):
        monkeypatch.setenv("COLUMNS", width)
        assert main(["report", str(sweep), f"out={here / width}"]) == 0
        titles, _, below = capsys.readouterr().out.partition("\n")
        assert ("area" in titles.split(), "area: interquartile" in below) == (has_area, has_area)


@pytest.mark.usefixtures("undrawn")
def test_of_many_failed_runs_the_terminal_names_some(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(14):
        write_run(here / "sweep" / str(seed), [row(100, 1.0)], status="pruned", seed=seed)
        reason = {"status": "pruned", "reason": "pruned at step 100"}
        (here / "sweep" / str(seed) / "run.json").write_text(json.dumps(reason))
    assert main(["report", "sweep"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") < 25 and "\n9: pruned at step 100\nand 4 more, which the page names\n" in said
    assert "14 runs of 14 left no final score (14 pruned)" in " ".join(said.split())
    assert (here / "sweep" / "report" / "report.html").read_text().count(">pruned</td>") == 28


def test_tables_have_a_row_for_each(sweep: Path) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with open(sweep / "report" / name, newline="") as file:
            return list(csv.DictReader(file))

    runs, settings, curves = rows("runs.csv"), rows("settings.csv"), rows("curves.csv")
    assert len(runs) == 13 and len(settings) == 5
    assert [r["state"] for r in runs].count("failed") == 1
    by_setting = {(s["env"], s["algo.optimizer.lr"]): s for s in settings}
    assert float(by_setting["Acrobot-v1", "0.01"]["score_iqm"]) == pytest.approx(111.0)
    assert by_setting["CartPole-v1", "0.001"]["scored"] == "2" and by_setting["CartPole-v1", "0.001"]["score_low"] == ""
    assert {c["metric"] for c in curves} == {"rollout/episode_return", "eval/episode_return"}
    last = [c for c in curves if (c["env"], c["algo.optimizer.lr"], c["step"]) == ("Acrobot-v1", "0.01", "1000.0")]
    assert [float(c["iqm"]) for c in last] == pytest.approx([111.0, 111.0])


@pytest.mark.usefixtures("undrawn")
def test_a_key_that_is_null_is_no_empty_cell(here: Path) -> None:
    """Unlike that of a key which the other algorithm has alone, and of a run without a config."""
    ppo = {"name": "ppo", "optimizer": {"name": "adam", "lr": 0.001}}
    write_run(here / "runs" / "0", final=result(1.0), stop_at_return=9.0)
    write_run(here / "runs" / "1", final=result(1.0), algo=ppo)
    write_run(here / "runs" / "2", final=result(1.0))
    write_run(here / "runs" / "3", final=result(1.0), network__hidden=[8])
    (here / "runs" / "3" / "config.yaml").unlink()
    for number in range(2):
        argv = ["rltrain", "stop_at_return=9.0", "algo.gamma=0.99"]
        (here / "runs" / str(number) / "run.json").write_text(json.dumps({"status": "completed", "argv": argv}))
    assert main(["report", "runs"]) == 0
    report = here / "runs" / "report"
    key, cells = "stop_at_return", {}
    for name in ("runs", "settings", "curves"):
        with open(report / f"{name}.csv", newline="") as file:
            cells[name] = [(row[key], row["algo.gamma"]) for row in csv.DictReader(file)]
    assert cells["runs"] == [("9.0", "0.99"), ("null", ""), ("null", "0.99"), ("", "")]
    assert sorted(set(cells["curves"])) == sorted(cells["settings"]) == sorted(cells["runs"][:3])
    assert [row[key] for row in json.loads((report / "summary.json").read_text())["runs"]] == [9.0, None, None, None]


@pytest.mark.slow
def test_the_same_report_twice_is_the_same_bytes(sweep: Path, here: Path) -> None:
    shutil.copytree(sweep, here / "sweep")
    shutil.rmtree(here / "sweep" / "report")
    assert main(["report", "sweep"]) == 0
    assert digest(here / "sweep" / "report") == digest(sweep / "report")
    assert len(digest(sweep / "report")) >= 15


@pytest.mark.usefixtures("undrawn")
def test_json_is_json(sweep: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["report", str(sweep), "--json", "out=other"]) == 0
    said = capfd.readouterr()
    plain = json.loads(said.out)
    assert said.err == "" and plain.pop("page") == str(here / "other" / "report.html")
    assert plain == json.loads((sweep / "report" / "summary.json").read_text())
    assert plain["interval"]["over"] == "runs" and len(plain["runs"]) == 13


@pytest.mark.usefixtures("undrawn")
def test_alone_it_takes_the_newest_sweep_or_else_the_newest_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no run" in refused(capsys)
    write_run(here / "outputs" / "day" / "run", final=result(1.0))
    assert main(["report"]) == 0
    assert capsys.readouterr().out.startswith("newest run: outputs/day/run\n")
    for age, name in ((50, "old"), (10, "new")):
        sweep = write_sweep(here / "outputs" / "multirun" / name, {"0": ([], {}, 1.0)})
        os.utime(sweep / "jobs.json", (time.time() - age,) * 2)
    assert main(["report"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("newest sweep: outputs/multirun/new\n")
    assert said.endswith("report    outputs/multirun/new/report/report.html\n")


@pytest.mark.slow
def test_several_folders_are_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, score in (("before", 1.0), ("after", 9.0)):
        write_sweep(here / name, {str(seed): ([f"seed={seed}"], {"seed": seed}, score + seed) for seed in range(3)})
    assert main(["report", "before", "after/", "after"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"3 +folder=after +10\.0 .*\n3 +folder=before +2\.00 ", said)
    assert re.search(r"report    outputs/reports/[\d_-]+/report.html\n$", said)
    assert main(["report", "before", "after", "out=both"]) == 0
    assert (here / "both" / "probability_of_improvement.svg").exists()
    assert main(["report", "before", "out=both"]) == 0
    assert not (here / "both" / "probability_of_improvement.svg").exists()  # of the earlier report
    assert not list(here.glob("before/report"))


@pytest.mark.usefixtures("undrawn")
def test_runs_of_other_histories_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = config()
    plain["algo"]["anneal_lr"] = True
    for seed in range(3):
        run = write_run(here / "day" / str(seed), final=result(1.0), plain={**plain, "seed": seed})
        if seed < 2:
            change = {"step": 500, "key": "total_steps", "from": 500, "to": 1000}
            (run / "run.json").write_text(json.dumps({"status": "completed", "changes": [change]}))
    assert main(["report", "day"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Not all seeds of a setting were trained alike" in said and "fall, of 2 runs: 0, 1." in said
    shutil.rmtree(here / "day" / "2")
    assert main(["report", "day"]) == 0
    assert "trained alike" not in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_seed_that_was_extended_alone_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        steps = 2000 if seed == 1 else 1000
        run = write_run(here / "day" / str(seed), final=result(1.0, steps), seed=seed, total_steps=steps)
        if seed == 1:
            change = {"step": 1000, "key": "total_steps", "from": 1000, "to": 2000}
            (run / "run.json").write_text(json.dumps({"status": "completed", "changes": [change]}))
    assert main(["report", "day"]) == 0
    assert (
        "1 run is apart from the other seeds of its setting, because resume has changed it alone: 1 (total_steps=2000, "
        "was 1000). Resumed with the same change, the others join."
    ) in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("undrawn")
def test_final_evaluations_that_were_limited_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = {**result(356.0), "episodes": 20, "episodes_asked": 100, "episodes_cut": 20, "cut_at_step": 500}
    for seed in range(2):
        write_run(here / "runs" / str(seed), final=cut, seed=seed)
    write_run(here / "runs" / "2", final={**cut, "episodes_cut": 3, "cut_at_step": 1500}, seed=2)
    write_run(here / "runs" / "3", final=result(356.0), seed=3)
    assert main(["report", "runs"]) == 0
    note = (
        "Final evaluations of 3 runs were limited, to 20 of 100 episodes, all of them cut at step 500 (0, 1); "
        "20 of 100 episodes, 3 of them cut at step 1,500 (2). An episode that was cut counts with its return "
        "until then."
    )
    assert note in " ".join(capsys.readouterr().out.split())
    page = (here / "runs" / "report" / "report.html").read_text()
    assert note in page and "over 100 or 20 of 100 greedy episodes, some of them cut." in page
    rows = list(csv.DictReader((here / "runs" / "report" / "runs.csv").open()))
    assert {row["run"]: (row["episodes_asked"], row["episodes_cut"], row["cut_at_step"]) for row in rows} == {
        "0": ("100", "20", "500"), "1": ("100", "20", "500"), "2": ("100", "3", "1500"), "3": ("100", "0", ""),
    }  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        write_run(here / "day" / f"run{seed}", final=result(1.0 + seed), seed=seed)
    write_sweep(here / "day" / "sweep", {"0": ([], {"seed": 7}, 3.0)})
    (here / "link").symlink_to("day/run0")
    assert main(["report", "link", "day", "metric=rollout/episode_return"]) == 0
    said = capsys.readouterr().out
    assert "3      all runs" in said and "repeat" not in said


@pytest.mark.usefixtures("undrawn")
def test_wrong_requests(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(here / "run", final=result(1.0))
    assert refused(capsys, "nothing") == "nothing: no such folder\n"
    (here / "empty").mkdir()
    assert refused(capsys, "empty") == "empty: holds no run\n"
    assert "did you mean metric?" in refused(capsys, "run", "metrik=x")
    assert refused(capsys, "run", "metric=3").startswith("metric=3: must be the tag of a metric")
    unknown = refused(capsys, "run", "metric=eval/epsiode_return")
    assert unknown == (
        "metric=eval/epsiode_return: no run has it in its metrics.jsonl; did you mean eval/episode_return?\n"
        "metrics: eval/episode_return, rollout/episode_return, time/steps_per_second\n"
    )
    assert "did you mean time/steps_per_second?" in refused(capsys, "run", "metric=steps_per_sec")
    assert refused(capsys, "run", "json=3") == "json=3: must be true or false\n"
    assert refused(capsys, "run", "--nope").startswith("--nope: unknown option")
    assert "nowhere: no such folder" in refused(capsys, "run", "out=nowhere/x")
    (here / "file").touch()
    assert refused(capsys, "run", "out=file").startswith("file: is a file")
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").touch()
    assert "holds other files than a report" in refused(capsys, "run", "out=full")
    (run / "report").symlink_to(here / "full")
    assert refused(capsys, "run").startswith("run/report: is a link")
    assert sorted(path.name for path in (here / "full").iterdir()) == ["thesis.tex"]


@pytest.mark.usefixtures("undrawn")
def test_a_report_writes_through_no_link(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(here / "run", final=result(1.0))
    (run / "report").mkdir()
    (run / "report" / "report.html").touch()
    (here / "precious").write_text("precious")
    (run / "report" / "runs.csv").symlink_to(here / "precious")
    assert "runs.csv: is a link" in refused(capsys, "run")
    assert (here / "precious").read_text() == "precious"


def _metrics(text: str | bytes) -> Callable[[Path], Any]:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda run: (run / "metrics.jsonl").write_bytes(data)


def _result(text: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda run: (run / "result.json").write_text(text or json.dumps({**result(1.0), **changes}))


def _record(text: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda run: (run / "run.json").write_text(text or json.dumps({"status": "completed", **changes}))


def _config(text: str) -> Callable[[Path], Any]:
    return lambda run: (run / "config.yaml").write_text(text)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "no metrics": lambda run: (run / "metrics.jsonl").unlink(),
    "empty metrics": _metrics(""),
    "bytes for metrics": _metrics(b"\xff\x00" * 999),
    "a pipe for metrics": lambda run: ((run / "metrics.jsonl").unlink(), os.mkfifo(run / "metrics.jsonl")),
    "a folder for metrics": lambda run: ((run / "metrics.jsonl").unlink(), (run / "metrics.jsonl").mkdir()),
    "huge metrics": _metrics(json.dumps(row(2**62, 1e99, -1e99)) + "\n"),
    "one point at step 0": _metrics(json.dumps(row(0, 1.0, 1.0)) + "\n"),
    "no result": lambda run: (run / "result.json").unlink(),
    "a deep result": _result("[" * 9999),
    "a huge result": _result("", episode_return=dict.fromkeys(("mean", "std", "min", "max"), 1e300)),
    "NaN for a result": _result("", episode_return=dict.fromkeys(("mean", "std", "min", "max"), float("nan"))),
    "a result of endless steps": _result("", env_step=10**30),
    "a result of no steps": _result("", env_step=0),
    "an infinite threshold": _result("", threshold=float("inf")),
    "no status": _record("{}"),
    "no record": _record("nothing"),
    "endless seconds": _record("", seconds=1e400, reason=3),
    "a status of letters": _record("", status=EVIL * 99, argv=[[], None, EVIL]),
    "no config": lambda run: (run / "config.yaml").unlink(),
    "a list for a config": _config("[1, 2]"),
    "no YAML": _config("a: " * 3000),
    "a deep config": _config("a: {b: " * 900),
    "keys that are no words": _config("{[1, 2]: 3, null: {1: 2}, 2020-01-01: !!binary aaaa, x: !!set {1}}"),
    "a seed of many digits": _config(f"env: {{id: [1]}}\nseed: {'9' * 4000}\nalgo: 3\n"),
    "a long environment": _config("env: {id: '" + "x" * 10**6 + "'}\nalgo: {gamma: .nan, lr: .inf}\n"),
    "words for numbers": _config("env: {id: CartPole-v1}\nstop_at_return: x\ntotal_steps: []\nseed: -1\n"),
}


@pytest.mark.parametrize("damages", often([list(DAMAGES), *([name] for name in DAMAGES)], [list(DAMAGES)]))
def test_a_damaged_run_spoils_no_report(damages: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        write_run(here / "sweep" / str(seed), final=result(1.0 + seed), seed=seed)
    for number, name in enumerate(damages):
        DAMAGES[name](write_run(here / "sweep" / f"damaged{number}", final=result(9.0), seed=9 + number))
    assert main(["report", "sweep"]) == 0
    said = capsys.readouterr()
    assert all(line.startswith(("warning   ", "          ")) for line in said.err.splitlines())
    assert said.err.replace("\n", "").isprintable()
    assert said.out.replace("\n", "").isprintable() and "Traceback" not in said.out
    with open(here / "sweep" / "report" / "runs.csv", newline="") as file:
        assert sum(line["run"].startswith("damaged") for line in csv.DictReader(file)) == len(damages)
    Tags((here / "sweep" / "report" / "report.html").read_text())
    json.loads((here / "sweep" / "report" / "summary.json").read_text())


def test_damage_is_told_on_stderr_and_on_the_page(
    here: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    for name in ("whole", "torn", "holes", "no_record"):
        write_run(here / "runs" / name, final=result(9.0), seed=len(name))
    torn, holes = (here / "runs" / name / "metrics.jsonl" for name in ("torn", "holes"))
    torn.write_text(torn.read_text()[:-5])
    rows = holes.read_text().splitlines(keepends=True)
    holes.write_text("".join([*rows[:3], "# edited\n", *rows[6:]]))
    (here / "runs" / "no_record" / "run.json").write_text("nothing")
    assert main(["report", "runs"]) == 0
    damages = [
        "holes: metrics.jsonl: 1 line skipped (no row, or torn), rows missing from step 300 to 700",
        "no_record: run.json: no valid JSON",
        "torn: metrics.jsonl: 1 line skipped (no row, or torn), rows missing from step 900 to the last, 1,000",
    ]
    assert capsys.readouterr().err.splitlines() == [f"warning   {damage}" for damage in damages]
    page = (here / "runs" / "report" / "report.html").read_text()
    assert all(damage in page for damage in damages)


@pytest.mark.parametrize("text", ["{", "[]", '{"jobs": [{"folder": "../x", "config": {}}]}'])
def test_a_damaged_list_of_jobs_spoils_no_report(
    text: str, here: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    for name in ("x", "y"):
        write_sweep(here / "both" / name, {str(n): ([f"seed={n}"], {"seed": n}, 1.0) for n in range(2)})
    (here / "both" / "x" / "jobs.json").write_text(text)
    assert main(["report", "both"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("warning   x/0: jobs.json: ") and said.err.count("warning") == 1
    assert json.loads((here / "both" / "report" / "summary.json").read_text())["settings"][0]["seeds"] == 2
    assert "x/0: jobs.json: " in (here / "both" / "report" / "report.html").read_text()


def test_a_stopped_run_came_as_far_as_its_checkpoint(
    here: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    write_run(here / "runs" / "whole", final=result(9.0))
    stopped = write_run(here / "runs" / "stopped", [row(1800, 1.0)], status="interrupted", seed=1)
    (stopped / "checkpoints" / "step_00001836").mkdir(parents=True)
    assert main(["report", "runs"]) == 0
    assert "stopped: interrupted at step 1,836" in capsys.readouterr().out


def test_refusals_and_help_are_quick_and_load_neither_torch_nor_numpy(here: Path) -> None:
    code = (
        "import sys\nfrom rltrain.cli import main\n"
        "assert main(['report', 'none']) == 2 and main(['report', '--help']) == 0 and main(['report', 'x=1']) == 2\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'gymnasium', 'hydra'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_report_needs_neither_torch_nor_gymnasium(here: Path) -> None:
    write_run(here / "run", final=result(1.0), plain=config(env__id="evil:Env-v0"))
    code = (
        "import sys\nfrom rltrain.cli import main\nassert main(['report', 'run']) == 0\n"
        "assert not {'torch', 'gymnasium', 'hydra', 'evil', 'matplotlib.pyplot'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
