from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from msc_fixtures import summary_path, summary_record, write_msc
from qa_fixtures import write_lines
from tiny_runs import called

from envs.workloads.loading import load_workload
from envs.workloads.msc import NOTE
from envs.workloads.official import measures_of
from envs.workloads.opener import QUESTION, load_openers
from envs.workloads.opener_scoring import (
    OpenerMeasures,
    OpenerScores,
    persona_lines_of,
    score_opener,
)
from envs.workloads.tables import split_tables
from memrl.conversation_config import MscConfig, OpenerConfig
from memrl.evaluation import __main__ as program
from memrl.memory.embedders import HashingEmbedder
from memrl.table import Event
from memrl.workload_config import SplitConfig, WorkloadConfig

WRITTEN = "openers of a session that no file has: what was written to open it with taken"


def test_sessions_are_told_and_the_next_one_is_to_be_opened(tmp_path: Path) -> None:
    write_msc(tmp_path)
    workload = load_openers(tmp_path, sessions=3)
    document, test = workload.documents
    assert [page.session for page in document.pages] == [0] * 4 + [1] * 2 + [2] * 3
    opener, *notes = document.queries
    assert opener.text == QUESTION
    assert opener.answers == ("The goat came back!",)
    assert (opener.category, opener.asked_after) == ("opener", 9)
    # What the later session tells is neither told nor needed.
    assert opener.needs == (1, 5)
    assert [note.needs for note in notes] == [(1,), (5,)]
    assert {(note.category, note.asked_after) for note in notes} == {(NOTE, None)}
    assert (test.document_id, test.is_test) == ("test_0", True)
    assert (workload.name, document.document_id) == ("opener", "valid_0")


def test_the_personas_of_both_may_count(tmp_path: Path) -> None:
    write_msc(tmp_path)
    opener, *notes = load_openers(tmp_path, sessions=3, about="both").documents[0].queries
    assert opener.needs == (0, 1, 5, 6, 8)
    assert [note.needs for note in notes] == [(0,), (1, 8), (5,), (6,)]
    config = WorkloadConfig(
        name="opener", data_dir=str(tmp_path), opener=OpenerConfig(about="both")
    )
    assert load_workload(config).documents[0].queries[0].needs == opener.needs


def test_after_the_last_session_the_human_opener_is_what_was_written_for_it(
    tmp_path: Path,
) -> None:
    write_msc(tmp_path)
    workload = load_openers(tmp_path, sessions=4)
    assert workload.documents[0].queries[0].answers == ("And what of 4?", "I learned number 4.")
    assert workload.repairs[WRITTEN] == 2
    write_msc(tmp_path, dialogues=(5,))
    workload = load_openers(tmp_path, sessions=4)
    assert workload.documents[0].queries[0].answers == ("A fifth time!",)
    assert WRITTEN not in workload.repairs


def test_an_opener_that_nobody_wrote_is_kept_without_a_gold_answer(tmp_path: Path) -> None:
    write_msc(tmp_path)
    bare = summary_record("valid_0", 4, followup=" ", newfact=None)
    write_lines(summary_path(tmp_path, 4), [bare])
    workload = load_openers(tmp_path, sessions=4)
    assert workload.documents[0].queries[0].answers == ()
    assert workload.repairs["openers without a human one kept"] == 1


def test_conversations_with_too_few_sessions_are_dropped(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b"), dialogues=())
    for session in (3, 4):
        write_lines(summary_path(tmp_path, session), [summary_record("b", session)])
    workload = load_openers(tmp_path, sessions=3)
    assert [document.document_id for document in workload.documents] == ["b", "test_0"]
    assert workload.repairs["conversations with too few sessions dropped"] == 1
    assert len(load_openers(tmp_path, sessions=2).documents) == 3


def test_an_episode_asks_for_the_opener_alone(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b", "c"), ("d",))
    config = WorkloadConfig(
        name="opener",
        data_dir=str(tmp_path),
        embedder="hashing:16",
        msc=MscConfig(conversations_per_part=2),
        opener=OpenerConfig(sessions=2),
    )
    workload = load_workload(config)
    assert [document.document_id for document in workload.documents] == ["a", "b", "d"]
    split = SplitConfig(kind="published", validation_frac=0.5)
    tables = split_tables(workload, split, config)
    table = tables.test
    page, query = int(Event.MESSAGE), int(Event.QUERY)
    assert table.event_kind.tolist() == [[page] * 6 + [query]]
    assert table.text.queries[0] == QUESTION
    assert table.text.answers[0] == ["One goat ran away to the hill."]
    assert persona_lines_of(workload.documents[2]) == (
        *("I bake rye bread.", "I bought an oven in Ulm."),
    )


def test_a_conversation_of_which_nothing_was_noted_is_left_out(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b"))
    dull = summary_record("a", 1, dialog=[{"text": "Hi.", "id": "bot_0"}])
    write_lines(summary_path(tmp_path, 1), [dull, summary_record("b", 1)])
    config = WorkloadConfig(name="opener", data_dir=str(tmp_path), opener=OpenerConfig(sessions=1))
    workload = load_workload(config)
    assert [document.document_id for document in workload.documents] == ["b", "test_0"]
    assert workload.repairs["documents left out: its question pays no evidence"] == 1


# ---------------------------------------------------------------------- scores


class Plane:
    """Texts are directions in a plane, in degrees."""

    name, dimension = "plane", 2

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_scores_of_a_case_computed_by_hand() -> None:
    """Lines at 0, 60, 90 and 180 degrees from the opener, a human opener at 120."""
    scores = score_opener("10", ["100", "10", "190", "70"], ["130"], Plane())
    assert scores.sim_1 == pytest.approx(1.0, abs=1e-6)
    assert scores.sim_3 == pytest.approx((1.0 + 0.5 + 0.0) / 3, abs=1e-6)
    assert scores.sim_h == pytest.approx(-0.5, abs=1e-6)


def test_of_several_human_openers_the_closest_counts() -> None:
    scores = score_opener("0", ["60"], ["90", "60", "180"], Plane())
    assert scores.sim_h == pytest.approx(0.5, abs=1e-6)


def test_fewer_than_three_lines_are_all_taken() -> None:
    scores = score_opener("0", ["60", "90"], ["0"], Plane())
    assert scores.sim_1 == pytest.approx(0.5)
    assert scores.sim_3 == pytest.approx(0.25)


def test_what_is_not_there_has_no_score() -> None:
    assert score_opener("0", [], [], Plane()) == OpenerScores(None, None, None)


def test_the_human_opener_is_closest_to_itself() -> None:
    lines = ["I keep three goats.", "I bake rye bread.", "I bought an oven in Ulm."]
    human = "How are the goats that you keep?"
    embedder = HashingEmbedder(64)
    own = score_opener(human, lines, [human], embedder)
    other = score_opener("Did it rain much?", lines, [human], embedder)
    assert own.sim_h == pytest.approx(1.0)
    assert own.sim_1 is not None
    assert other.sim_1 is not None
    assert own.sim_1 > other.sim_1
    assert score_opener(lines[1], lines, [human], embedder).sim_1 == pytest.approx(1.0)


def test_an_opener_is_scored_by_the_notes_of_its_conversation(tmp_path: Path) -> None:
    write_msc(tmp_path)
    workload = load_openers(tmp_path, sessions=3)
    score = measures_of(workload, "hashing:64")
    opener = workload.documents[0].queries[0]
    line = persona_lines_of(workload.documents[0])[0]
    scores = score("opener", opener, line, support=[0])
    assert list(scores) == ["sim_1", "sim_3", "sim_h"]
    assert scores["sim_1"] == pytest.approx(1.0)
    expected = score_opener(
        line, persona_lines_of(workload.documents[0]), opener.answers, HashingEmbedder(64)
    )
    assert scores == asdict(expected)
    # Nothing said is like nothing at all, whatever the model makes of an empty text.
    assert set(score("opener", opener, " ").values()) == {0.0}
    without = replace(workload.documents[0], queries=(replace(opener, answers=()),))
    assert OpenerMeasures([without], "hashing:64")(without.queries[0], "") == {
        "sim_1": None,
        "sim_3": None,
        "sim_h": None,
    }


def test_a_file_of_openers_is_scored_by_the_program(tmp_path: Path) -> None:
    write_msc(tmp_path)
    said = tmp_path / "said.jsonl"
    said.write_text('{"query_id": "valid_0/opener", "answer": "The goat came back!"}')
    settings = {
        "workload.name": "opener",
        "workload.data_dir": str(tmp_path),
        "workload.embedder": "hashing:64",
        "split.kind": "published",
    }
    outcome = called(
        *(program.main, "memrl.evaluation", "answers", str(said), "--out", str(tmp_path / "out")),
        *(part for name, value in settings.items() for part in (f"--{name}", value)),
    )
    assert outcome.code == 0, outcome.err
    assert "sim_3" in outcome.out
    record = json.loads((tmp_path / "out" / "answer_scores.json").read_text())
    assert record["scores"]["all"]["measures"]["sim_h"]["mean"] == pytest.approx(1.0)


# ---------------------------------------------------------------------- real data


def test_the_whole_data_set(data_dir: Path) -> None:
    workload = load_openers(data_dir, sessions=3)
    assert len(workload.documents) == 735
    assert all(len(document.queries[0].answers) == 1 for document in workload.documents)
    needed = [len(document.queries[0].needs) for document in workload.documents]
    pages = [len(document.pages) for document in workload.documents]
    assert (round(np.mean(needed)), round(np.mean(pages))) == (13, 38)
    assert WRITTEN not in workload.repairs
    assert load_openers(data_dir, sessions=4).repairs[WRITTEN] == 735
