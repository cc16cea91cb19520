from __future__ import annotations

import io
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from rich.console import Console

from memrl.config import RunConfig, run_settings
from memrl.episode_log import FUNNEL_STEPS
from memrl.evaluation import terminal
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import CLAIRVOYANT, FIFO, LEARNED
from memrl.evaluation.play import EpisodeRecord
from memrl.evaluation.summary import summarize
from memrl.evaluation.terminal import (
    COLUMNS,
    footnote,
    markdown_table,
    print_table,
    table_rows,
)
from memrl.policies.base import Kind

NUMBERS = {FIFO: 0.8125, LEARNED: 2.4321, CLAIRVOYANT: 3.9}
KINDS: dict[str, Kind] = {FIFO: "heuristic", LEARNED: "learned", CLAIRVOYANT: "bound"}
BEST = f"best heuristic (chosen on validation): {FIFO}"


def record(document: str, evidence: float) -> EpisodeRecord:
    return EpisodeRecord(
        episode=0,
        document=document,
        num_queries=4,
        num_scored=4,
        evidence=evidence,
        reward_terms={"evidence": evidence, "cost/store": -0.5},
        operations={"yield": 9, "store": 6, "retrieve": 3, "next": 1, "evict": 2, "search": 4},
        illegal=0,
        decisions=25,
        events=30,
        tokens_retrieved=50,
        tokens_read=1234,
        decision_s=0.000251,
        funnel={"absent": 1.0} | dict.fromkeys(FUNNEL_STEPS, 1.0),
    )


def results(num_documents: int, *, seeds: int = 1) -> dict[str, Any]:
    """Three policies; document i adds .1 i to their evidence. A copy: intervals take seconds."""
    return deepcopy(summarized(num_documents, seeds))


@cache
def summarized(num_documents: int, seeds: int) -> dict[str, Any]:
    entries = []
    for name, evidence in NUMBERS.items():
        records = [record(f"doc{i}", evidence + 0.1 * i) for i in range(num_documents)] * seeds
        overrides = {"evict_scope": "any", "staging": "dense"} if name == FIFO else {}
        numbers = [seed for seed in range(seeds) for _ in range(num_documents)]
        made = Entry(name, name == CLAIRVOYANT, overrides, [{}], records, numbers)
        made.kind, made.validation = KINDS[name], [0.125]
        entries.append(made)
    return summarize(entries, [FIFO], run_settings(RunConfig()))


def printed(made: dict[str, Any], width: int) -> str:
    file = io.StringIO()
    print_table(made, "held-out documents", Console(file=file, width=width))
    return file.getvalue()


def test_a_row_worked_out_by_hand() -> None:
    rows = table_rows(results(1))
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0] == [
        f"{FIFO} (evict_scope=any)",  # the staging is in the name where it matters
        "0.078",  # (.8125 - .5) / 4
        "-",
        "0.203",  # .8125 / 4
        "0.000",
        "0.125",  # on validation, the mean of the runs that were played there
        "1.5",
        "0.8",  # 3 / 4, rounded to even
        "1.8",  # (1 + 2 + 4) / 4
        "308",  # 1234 / 4
        "251",
    ]
    assert rows[1] == [BEST, *rows[0][1:]]
    assert rows[2][0] == LEARNED
    assert rows[2][4] == "0.525"  # (2.4321 - .8125) / (3.9 - .8125)
    assert rows[3][4] == "1.000"


def test_intervals_are_shown_where_there_are_any() -> None:
    made = results(6)
    interval = made["policies"][0]["reward_per_question"]["interval"]
    assert table_rows(made)[0][2] == f"{interval['low']:.3f}..{interval['high']:.3f}"
    assert all(row[2] == "-" for row in table_rows(results(5)))


def test_what_has_no_score_shows_none() -> None:
    made = results(1)
    del made["policies"][0]["normalized_score"]
    made["policies"][1]["normalized_score"] = None
    assert [row[4] for row in table_rows(made)] == ["-", "0.000", "-", "1.000"]


def test_validation_is_the_mean_of_the_runs_that_were_played_there() -> None:
    made = results(1)
    made["policies"][0]["validation"] = [0.25, None, 0.75]
    made["policies"][1]["validation"] = [None, None]
    assert [row[5] for row in table_rows(made)] == ["0.500", "0.125", "-", "0.125"]


@pytest.mark.parametrize(
    ("documents", "seeds", "sentence"),
    [
        (1, 1, "1 document, 1 seed, 1 episodes per seed."),
        (3, 2, "3 documents, 2 seeds, 3 episodes per seed."),
    ],
)
def test_the_footnote_says_what_numbers_rest_on(documents: int, seeds: int, sentence: str) -> None:
    note = footnote(results(documents, seeds=seeds))
    assert f". {sentence}" in note
    assert "no interval" in note


def test_the_footnote_says_where_intervals_come_from() -> None:
    note = footnote(results(6))
    assert note.startswith(
        "chat, ask interleaved; capacity 24 pages, archive 60, stage_from archival"
    )
    assert "6 documents" in note
    assert "Student's t over documents" in note
    assert "no interval" not in note


def test_markdown_has_a_line_per_policy() -> None:
    lines = markdown_table(results(6)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    assert cells[0] == list(COLUMNS)
    assert [set(cell) <= set("-:") for cell in cells[1]] == [True] * len(COLUMNS)
    assert cells[2:] == table_rows(results(6))
    assert lines[6] == ""
    assert lines[7] == footnote(results(6))
    assert lines[8] == ""
    assert lines[9] == (
        f"- {LEARNED} beats the best heuristic: +0.405 reward / question, 95 % interval +0.405 to "
        "+0.405 over 6 documents, better in 6 and worse in 0 of them."
    )


@pytest.mark.parametrize("width", [200, 80])
def test_the_verdict_stands_under_the_table(width: int) -> None:
    text = " ".join(printed(results(2), width).split())
    assert (
        f"{LEARNED} cannot be told apart from the best heuristic: +0.405 reward / question, over 2 "
        "documents, too few for an interval."
    ) in text
    assert BEST in text or width == 200, "the wide table breaks the name"


def test_the_footnote_names_the_landmarks() -> None:
    made = results(6)
    assert f"YIELD-only is the row '{FIFO}'." in footnote(made)
    assert "No bound" not in footnote(made)
    made["policies"] = made["policies"][1:2]
    assert "YIELD-only" not in footnote(made)
    assert "No bound is known for these options." in footnote(made)


@pytest.mark.parametrize("width", [200, 120, 80, 60])
def test_no_number_is_lost_on_a_narrow_console(width: int) -> None:
    made = results(6)
    text = printed(made, width)
    assert "held-out documents" in text
    for row in table_rows(made):
        for number in row[1:]:
            for part in number.split(".."):
                assert part in text, (part, text)


def test_policies_can_be_told_apart_on_a_narrow_console() -> None:
    text = printed(results(6), 80)
    for name in NUMBERS:
        assert name.split(",")[0] in text


def test_headings_are_whole_on_the_default_console(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(results(6), "held-out documents")
    text = capsys.readouterr().out
    for heading in COLUMNS:
        assert heading in text
    assert f"{FIFO} (evict_scope=any)" in text
    assert "…" not in text


def test_differences_of_the_learned_policy_are_printed() -> None:
    file = io.StringIO()
    terminal.print_paired(results(6), Console(file=file, width=160))
    text = file.getvalue()
    assert LEARNED in text
    assert "+0.405" in text  # (2.4321 - .8125) / 4 in each document
    assert "6/6" in text
    assert "0.031" in text  # the sign test of 6 equal signs: 2 / 2^6
    assert text.count("+0.40") >= 12, "less the best heuristic, and less the control that it is"
    assert CLAIRVOYANT not in text
