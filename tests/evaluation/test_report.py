"""`python -m memrl.evaluation report`: what it writes, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_folders import QUALITY, write_run
from tiny_runs import Outcome, called

from memrl.config import RunConfig
from memrl.evaluation import __main__ as program
from memrl.evaluation.lineup import CLAIRVOYANT, FIFO, LEARNED
from memrl.evaluation.report.build import REPORT_SCHEMA
from memrl.evaluation.report.contents import draw, make_report
from memrl.evaluation.report.drawing import theme
from memrl.evaluation.report.folders import read_run
from memrl.evaluation.report.headline import BEGIN, END
from memrl.evaluation.report.page import page_text
from memrl.evaluation.report.tables import verdicts
from memrl.evaluation.summary import RESULTS_SCHEMA
from memrl.run_files import RunError

SCRIPT = "<script>alert('$1$')</script> & \"it\""


def report(*arguments: str | Path) -> Outcome:
    return called(program.main, "memrl.evaluation", "report", *map(str, arguments))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """Two capacities with two seeds each, and a policy whose name is HTML."""
    root = tmp_path_factory.mktemp("report")
    quality = {**QUALITY, SCRIPT: 0.4}
    names = [f"<img src=x onerror=alert({number})>" for number in range(6)]
    runs = [
        write_run(root, seed=seed, capacity=capacity, quality=quality, names=names)
        for capacity in (8, 16)
        for seed in range(2)
    ]
    return report(*runs, "--out", root / "out"), root / "out"


def results_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_results_hold_every_number_with_what_it_rests_on(made: tuple[Outcome, Path]) -> None:
    outcome, out = made
    assert outcome.code == 0, outcome.err
    assert "6 documents, 2 seeds" in outcome.out
    results = results_in(out)
    assert results["schema"] == REPORT_SCHEMA
    assert [own["label"] for own in results["conditions"]] == [
        "chat-8: capacity 8",
        "chat-16: capacity 16",
    ]
    own = results["conditions"][0]
    rows = {row["name"]: row for row in own["policies"]}
    # Shares rise by .01 a document (mean .025) and fall by .02 with the second seed (mean -.01);
    # two stores an episode of four questions cost .005.
    learned = rows[LEARNED]
    assert learned["mean"]["estimate"] == pytest.approx(0.75 + 0.025 - 0.01 - 0.005)
    assert (learned["mean"]["num_clusters"], learned["mean"]["num_seeds"]) == (6, 2)
    interval = learned["mean"]["interval"]
    assert interval["low"] < learned["mean"]["estimate"] < interval["high"]
    assert learned["regret"][CLAIRVOYANT]["estimate"] == pytest.approx(0.25 - 0.0025)
    assert learned["normalized_score"]["estimate"] == pytest.approx(0.495 / 0.7425)
    assert learned["operations_per_question"] == pytest.approx(0.5)
    (pair,) = [pair for pair in own["paired"] if pair["control"] == FIFO]
    assert pair["difference"]["estimate"] == pytest.approx(0.5 - 0.005)
    assert pair["difference"]["interval"]["low"] == pytest.approx(0.495), "all alike"
    assert pair["probability_of_improvement"]["estimate"] == 1.0
    assert pair["gap_closed"]["estimate"] == pytest.approx(0.495 / 0.7425)
    by_control = {pair["control"]: pair for pair in own["paired"]}
    assert by_control["best unlearned rule"] == by_control[SCRIPT] | {
        "control": "best unlearned rule"  # of the two that fit nothing
    }
    assert by_control["best heuristic"] == by_control["prior rule"] | {"control": "best heuristic"}
    fronts = {front["cost"]: front for front in own["fronts"]}
    front = fronts["operations_per_question"]
    assert front["front"] == [FIFO, "prior rule", LEARNED]
    # The script costs most; from the price of the learned policy on nothing else is as good.
    most, price = front["reference"]["cost"], learned["operations_per_question"]
    assert (most, price) == (pytest.approx(1.1), pytest.approx(0.5))
    recall = {name: row["evidence_recall"] for name, row in rows.items()}
    gain = front["hypervolume_gain"]
    better = recall[LEARNED]["estimate"] - recall["prior rule"]["estimate"]
    assert gain == pytest.approx(better * (most - price) / most)
    whole, without = front["hypervolume"], front["hypervolume_without_learned"]
    assert whole["estimate"] == pytest.approx(without["estimate"] + gain)
    assert whole["interval"]["low"] < whole["estimate"] < whole["interval"]["high"]


def test_csv_has_a_row_for_each_condition_and_policy(made: tuple[Outcome, Path]) -> None:
    _, out = made
    rows = list(csv.DictReader((out / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * (len(QUALITY) + 2), "and the best heuristic"
    assert {row["capacity"] for row in rows} == {"8", "16"}
    learned = next(row for row in rows if row["name"] == LEARNED)
    assert float(learned["mean low"]) < float(learned["mean"]) < float(learned["mean high"])


class Tags(HTMLParser):
    """Counts elements, and collects their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_stands_alone_and_escapes_every_text(made: tuple[Outcome, Path]) -> None:
    _, out = made
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert not {"script", "img", "link", "iframe", "object"} & {*page.tags}
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert SCRIPT in page.texts, "shown as it is"
    assert "reward / question by capacity (pages), and 95 % intervals" in text
    links = [value for name, value in page.attributes if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in links} <= {*ids}


def test_each_figure_has_its_text_command_table_and_files(made: tuple[Outcome, Path]) -> None:
    _, out = made
    text = (out / "report.html").read_text(encoding="utf-8")
    drawn = results_in(out)["figures"]
    keys = [figure["key"] for figure in drawn]
    assert {"capacity-1", "quality-1", "front-operations-2", "learning-1", "funnel-2"} <= {*keys}
    parts = text.split("<figure ")[1:]
    assert len(parts) == len(keys)
    for key, part in zip(keys, parts, strict=True):
        assert part.startswith(f'id="{key}"')
        assert 'role="img" aria-label="' in part
        assert "python -m memrl.evaluation report" in part
        assert "<table>" in part.split("</figure>")[0]
        # No colour of the palette is left that a dark page could not change.
        assert not re.search(r'style="[^"]*#[0-9a-f]{6}', part.split("</svg>")[0])
        assert (out / "figures" / f"{key}.svg").read_text().startswith("<?xml")
        assert (out / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")
    curve = next(figure for figure in drawn if figure["key"] == "capacity-1")
    assert [LEARNED, "16", "0.760"] in [row[:3] for row in curve["rows"]]


# ---------------------------------------------------------------------- refusals


def refused(tmp_path: Path, *runs: Path | str) -> str:
    outcome = report(*runs, "--out", tmp_path / "out")
    assert outcome.code == 1
    assert not (tmp_path / "out").exists()
    return outcome.error


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"commit": "b" * 40}, "commit (aaaaaaaaaaaa... and bbbbbbbbbbbb...)"),
        ({"test_hash": "2" * 64}, "tables.test (111111111111... and 222222222222...)"),
    ],
)
def test_other_versions_and_data_are_refused_unless_asked_for(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    runs = [
        write_run(tmp_path, documents=2),
        write_run(tmp_path, documents=2, capacity=8, **change),
    ]
    error = refused(tmp_path, *runs)
    assert told in error
    assert str(runs[1]) in error
    mixed = make_report([read_run(run) for run in runs], mix=True)
    assert told in mixed.notes[0]


def settings_of(**fields: Any) -> RunConfig:
    base = RunConfig(name="-".join(map(str, fields.values())))
    return replace(base, workload=replace(base.workload, **fields))


def test_other_workloads_and_other_ways_of_asking_stand_side_by_side(tmp_path: Path) -> None:
    """Their tables differ because their settings do."""
    runs = [
        write_run(tmp_path, config=settings_of(name="locomo")),
        write_run(tmp_path, config=settings_of(name="locomo", ask="end"), test_hash="2" * 64),
        write_run(tmp_path, config=settings_of(name="dmr"), test_hash="4" * 64, file_hash="5" * 64),
    ]
    made = make_report([read_run(run) for run in runs], mix=False)
    assert len(made.members) == 3
    assert not any("differ in" in note for note in made.notes)


def test_other_files_of_the_same_workload_are_refused(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, config=settings_of(name="dmr")),
        write_run(tmp_path, config=settings_of(name="locomo")),
        write_run(tmp_path, config=settings_of(name="locomo", ask="end"), file_hash="5" * 64),
    ]
    error = refused(tmp_path, *runs)
    assert f"{runs[1]} and {runs[2]} differ in files.a file (333333333333... and 5" in error


def test_other_schemas_are_refused_and_never_averaged(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, seed=seed, documents=2) for seed in range(2)]
    results = json.loads((runs[1] / "results.json").read_text())
    (runs[1] / "results.json").write_text(json.dumps(results | {"schema": 1}))
    assert f"schema ({RESULTS_SCHEMA} and 1)" in refused(tmp_path, *runs)
    mixed = make_report([read_run(run) for run in runs], mix=True)
    assert [condition.seeds for condition, _ in mixed.members] == [[0], [1]]


def test_other_versions_of_packages_are_noted(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path, seed=seed, torch=version))
        for seed, version in enumerate(("2.13.0", "2.9.1", "2.13.0"))
    ]
    alike = make_report(runs[::2], mix=False, processes=1).notes
    note = "runs were made with different versions of torch (2.13.0, 2.9.1)"
    assert make_report(runs, mix=False, processes=1).notes[0] == note
    assert note not in alike


def test_missing_seeds_are_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, seed=seed) for seed in range(2)]
    runs.append(write_run(tmp_path, capacity=8))
    error = refused(tmp_path, *runs)
    assert "chat-8 lacks seed 1, which others have" in error
    assert "--mix true" in error


def test_a_run_that_is_still_being_written_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "results.json").unlink()
    assert "still being written" in refused(tmp_path, run)
    assert "is not the folder of a run" in refused(tmp_path, tmp_path)


def test_a_policy_without_episodes_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    lines = (run / "episodes.jsonl").read_text().splitlines(keepends=True)
    (run / "episodes.jsonl").write_text("".join(x for x in lines if "prior rule" not in x))
    assert "'prior rule'" in refused(tmp_path, run)
    unscored = re.sub(r'"num_scored": 4', '"num_scored": 0', "".join(lines))
    (run / "episodes.jsonl").write_text(unscored)
    assert "asks anything that pays" in refused(tmp_path, run)


def test_the_same_run_twice_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "same seed and fold" in refused(tmp_path, run, run)


def test_one_document_gets_no_interval_and_it_is_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, documents=1, seed=seed) for seed in range(2)]
    made = make_report([read_run(run) for run in runs], mix=False)
    ((_, numbers),) = made.members
    assert all(row["mean"]["interval"] is None for row in numbers["policies"])
    assert "of one document alone no interval can be given" in made.notes[0]
    (pair,) = [pair for pair in numbers["paired"] if pair["control"] == FIFO]
    assert pair["difference"]["interval"] is pair["t_interval"] is None


# ---------------------------------------------------------------------- headline


def test_the_headline_takes_its_place_and_nothing_else(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, seed=seed, capacity=capacity) for capacity in (8, 16) for seed in (0, 1)
    ]
    readme = tmp_path / "README.md"
    before, after = "# A title\n\ntext | of ours\n", "\n## Next\r\n"
    readme.write_bytes(f"{before}{BEGIN}\nold\n{END}{after}".encode())
    for _ in range(2):  # the second time over its own words
        assert report(*runs, "--out", tmp_path / "out", "--readme", readme).code == 0
        text = readme.read_bytes().decode()
        assert text.startswith(
            f"{before}{BEGIN}\n\n**chat-8: capacity 8** (6 documents, 2 seeds; intervals hold "
        )
        assert text.endswith(f"\n\n{END}{after}")
        assert "\nold\n" not in text
    closed = f"{LEARNED} closes 67% ("
    assert text.count(closed) == 2
    assert f"of the gap between the best unlearned rule and {CLAIRVOYANT} (+0.495," in text
    assert "; over the best heuristic +0.247, +0.2" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(QUALITY)
    assert len({line.count(" | ") for line in lines}) == 1
    assert f"| {LEARNED} | 0.760 | " in text
    assert "python -m memrl.evaluation report" in text


def test_pairs_have_a_table_of_their_own(made: tuple[Outcome, Path]) -> None:
    _, out = made
    rows = list(csv.DictReader((out / "paired.csv").read_text(encoding="utf-8").splitlines()))
    pairs = [pair for own in results_in(out)["conditions"] for pair in own["paired"]]
    assert [(row["policy"], row["less"]) for row in rows] == [
        (pair["policy"], pair["control"]) for pair in pairs
    ]
    for row, pair in zip(rows, pairs, strict=True):
        assert float(row["difference"]) == pair["difference"]["estimate"]
        assert float(row["t low"]) == pair["t_interval"]["low"]
        assert int(row["better in"]) == pair["sign_test"]["num_positive"]
        assert int(row["worse in"]) == pair["sign_test"]["num_negative"]


def test_figures_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, capacity=capacity) for capacity in (8, 16)]
    out = tmp_path / "out"
    assert report(*runs, "--out", out).code == 0
    (out / "figures" / "mine.svg").write_text("<svg/>")
    before = {path.name for path in (out / "figures").iterdir()}
    assert report(runs[0], "--out", out).code == 0
    left = {path.name for path in (out / "figures").iterdir()}
    drawn = {f"{own['key']}.{end}" for own in results_in(out)["figures"] for end in ("svg", "png")}
    assert left == drawn | {"mine.svg"}
    assert left < before


def test_a_verdict_rests_on_the_wider_of_both_intervals(tmp_path: Path) -> None:
    """Documents agree and seeds do not: over documents alone the difference would be sure."""
    runs = []
    for seed, gain in enumerate((0.30, -0.26, 0.28, -0.24, 0.03)):
        quality = {**QUALITY, LEARNED: QUALITY["prior rule"] + gain}
        runs.append(write_run(tmp_path, seed=seed, quality=quality))
    members = make_report([read_run(run) for run in runs], mix=False).members
    ((condition, numbers),) = members
    (pair,) = [
        own
        for own in numbers["paired"]
        if (own["policy"], own["control"]) == (LEARNED, "best heuristic")
    ]
    assert pair["difference"]["interval"]["low"] < 0 < pair["t_interval"]["low"]
    (sentence,) = verdicts(condition, numbers)
    assert "cannot be told apart" in sentence
    assert f"{pair['difference']['interval']['low']:+.3f} to " in sentence


@pytest.mark.parametrize("text", ["nothing", f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}", BEGIN])
def test_a_readme_without_a_place_is_refused_before_anything_is_written(
    tmp_path: Path, text: str
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    error = refused(tmp_path, write_run(tmp_path), "--readme", readme)
    assert "has no place for the headline" in error
    assert readme.read_text() == text
    assert "cannot be read" in refused(tmp_path, tmp_path, "--readme", tmp_path / "none.md")


def test_an_empty_provenance_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "provenance.json").write_text('{"starts": []}')
    with pytest.raises(RunError, match="which code and data"):
        read_run(run)


def test_two_processes_make_the_report_of_one(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, capacity=capacity) for capacity in (8, 16)]
    runs = [read_run(folder) for folder in folders]
    made = []
    for processes in (1, 2):
        folder = tmp_path / f"by {processes}"
        folder.mkdir()
        one = make_report(runs, mix=False, processes=processes)
        draw(one, folder, processes)
        made.append((one, folder))
    (alone, alone_in), (shared, shared_in) = made
    assert shared.members == alone.members
    assert shared.left_out == alone.left_out
    assert [drawing.key for drawing in shared.drawings] == [d.key for d in alone.drawings]
    about = {"code": {"commit": None}, "started_utc": "today"}
    assert page_text(shared, "again", about) == page_text(alone, "again", about)
    files = sorted(path.name for path in alone_in.iterdir())
    assert files == sorted(path.name for path in shared_in.iterdir())
    for name in files:
        assert (shared_in / name).read_bytes() == (alone_in / name).read_bytes()


def test_long_names_are_neither_cut_nor_touch(tmp_path: Path) -> None:
    names = [
        *(
            "prompted SmolLM2-135M-Instruct, choice",
            "prompted SmolLM2-135M-Instruct, choice at queries",
        ),
        "reader, everything that fits, newest first, of a budget of 1,500 tokens",
    ]
    quality = {**QUALITY, **dict.fromkeys(names, 0.4)}
    one = make_report([read_run(write_run(tmp_path, quality=quality))], mix=False, processes=1)
    draw(one, tmp_path, processes=1)
    drawn = {drawing.key: drawing for drawing in one.drawings}
    for key in ("quality-1", "aggregates-1", "funnel-1"):
        figure = drawn[key].figure
        with theme():
            figure.set_dpi(160)  # of the PNG file, where texts are a little wider than in the SVG
            figure.draw_without_rendering()
        labels = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
        assert len(labels) == len(quality)
        for box, above in pairwise(labels):
            assert box.x0 >= 0, key
            assert box.y1 <= above.y0, key
