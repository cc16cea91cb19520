from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from msc_fixtures import CHAT, asked, dmr_record, original_dmr_record, write_msc
from qa_fixtures import write, write_lines
from table_fixtures import random_action

from envs.paging import PagingEnv
from envs.workloads.dmr import find_evidence, load_dmr, says_not_told, whose_words
from envs.workloads.episodes import told_episodes
from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.loading import load_workload
from envs.workloads.msc import NOTE
from envs.workloads.msc_records import Turn
from envs.workloads.tables import split_tables
from memrl.config import ConfigurationError
from memrl.conversation_config import DmrConfig
from memrl.documents import Document, Workload
from memrl.memory.embedders import HashingEmbedder
from memrl.options import PagingOptions
from memrl.policies.prior import page_is_needed
from memrl.table import EpisodeTable, Event
from memrl.table_build import build_table, fit_lexical_statistics
from memrl.workload_config import SplitConfig, WorkloadConfig

RECONSTRUCTED = "msc_self_instruct_reconstructed.jsonl.gz"
ORIGINAL = "msc_self_instruct.jsonl"
FULL = "derived evidence: a turn that holds all of the answer's words"
HALF = "derived evidence: a turn that holds at least half of the answer's words"
NONE = "answers that no turn holds half of kept (no evidence recall)"
NOT_TOLD = "answers that say that it was not mentioned kept: unanswerable"


def load(folder: Path, *records: object, name: str = RECONSTRUCTED) -> Workload:
    write_lines(folder / "dmr" / name, records)
    return load_dmr(folder)


def only(folder: Path, question: str, answer: object) -> Document:
    (document,) = load(folder, dmr_record(**asked(question, answer))).documents
    return document


def test_a_record_is_a_conversation_with_a_question_at_its_end(tmp_path: Path) -> None:
    workload = load(tmp_path, dmr_record())
    (document,) = workload.documents
    assert [page.text for page in document.pages] == [text for own in CHAT for text, _ in own]
    assert [page.session for page in document.pages] == [0] * 4 + [1] * 2 + [2] * 3 + [3] * 2
    assert [page.role for page in document.pages] == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1]
    assert document.pages[9].timestamp == "7 days 3 hours after the first session"
    (query,) = document.queries
    assert query.text.endswith("How many goats do you keep?")
    assert query.answers == ("I said I keep three goats!",)
    assert (query.needs, query.asked_after, query.category) == ((0,), 11, "dmr")
    assert (document.document_id, document.is_test) == ("valid_0", False)
    assert workload.repairs == {FULL: 1}


def test_the_original_layout_has_a_fifth_session(tmp_path: Path) -> None:
    (document,) = load(tmp_path, original_dmr_record(), name=ORIGINAL).documents
    assert [page.text for page in document.pages][11:] == ["A fifth time!", "Yes."]
    assert [page.role for page in document.pages][11:] == [0, 1]
    assert document.pages[11].timestamp == "7 days 10 hours after the first session"
    assert document.queries[0].asked_after == 13


def test_the_original_file_is_read_first(tmp_path: Path) -> None:
    load(tmp_path, dmr_record("a"))
    workload = load(tmp_path, original_dmr_record("b"), name=ORIGINAL)
    assert [document.document_id for document in workload.documents] == ["b"]
    assert list(workload.provenance["files"]) == [ORIGINAL]  # type: ignore[call-overload]


# ---------------------------------------------------------------------- evidence


def turns(*texts: str) -> list[Turn]:
    return [Turn(text, place % 2) for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("answer", "page", "share"),
    [
        ("Rye bread!", 1, 1.0),  # of speaker 2 alone
        ("Three goats!", 0, 1.0),
        ("A goat.", 0, 1.0),  # stems; the earliest of speaker 1's
        ("Yes, I mentioned that I said bread.", 1, 1.0),  # words that speak of the chat
        ("Bread and honey.", 1, 0.5),
        ("Bread, honey and milk.", 1, 1 / 3),
        ("Honey.", 0, 0.0),
        ("The Who!", 0, 0.0),  # no content word
    ],
)
def test_the_turn_with_most_of_the_answer_is_its_evidence(
    answer: str, page: int, share: float
) -> None:
    chat = turns("I keep three goats.", "I bake rye bread.", "A goat ate it.", "My goat?")
    found, held = find_evidence(answer, chat, 0)
    assert found == page
    assert held == pytest.approx(share)


def test_of_several_turns_the_speakers_own_and_the_earliest_wins() -> None:
    chat = turns("So?", "Goats!", "Goats?", "Goats.", "Goats: we keep some.")
    assert find_evidence("Goats", chat, 0)[0] == 2
    assert find_evidence("Goats", chat, 1)[0] == 1
    assert find_evidence("We keep goats", chat, 1)[0] == 4, "more of the answer beats the speaker"


@pytest.mark.parametrize(
    ("question", "speaker"),
    [
        ("Hey, remember that time we talked about my dog? What is the name of yours?", 0),
        ("Hey, remember that time we talked about dogs? What did you say yours is called?", 0),
        ("Hey, remember that time we talked about dogs? Can you remind me what it was?", 0),
        ("Hey, remember that time we talked about dogs? What breed did I tell you I have?", 1),
        ("Hey, remember that time we talked about dogs? What is the name of mine?", 1),
        ("Hey, remember that time we talked about dogs? My dog's name?", 1),
        ("Hey, remember that time we talked? Where did you suggest I should go?", 0),
    ],
)
def test_whose_words_a_question_asks_for(question: str, speaker: int) -> None:
    assert whose_words(question) == speaker


def test_the_question_says_whose_turn_is_meant(tmp_path: Path) -> None:
    told = "Remember when we talked about bread?"
    yours, mine = f"{told} What do you do?", f"{told} What did I tell you?"
    assert only(tmp_path, yours, "We bake!").queries[0].needs == (4,)
    assert only(tmp_path, mine, "You bake!").queries[0].needs == (1,)


def test_how_much_evidence_was_found_is_counted(tmp_path: Path) -> None:
    workload = load(
        tmp_path,
        *(
            dmr_record(f"valid_{number}", **asked("What?", answer))
            for number, answer in enumerate(
                ["Three goats!", "Goats and sheep", "Sheep", "I didn't mention that.", None]
            )
        ),
    )
    missing = "questions without an answer kept (no evidence recall)"
    assert workload.repairs == {FULL: 1, HALF: 1, NONE: 1, NOT_TOLD: 1, missing: 1}
    assert [document.queries[0].needs for document in workload.documents] == [
        *((0,), (0,), (), (), ())
    ]
    assert [document.queries[0].answerable for document in workload.documents] == [
        *(True, True, True, False, True)
    ]
    assert workload.documents[3].queries[0].answers == ("I didn't mention that.",)
    assert workload.documents[4].queries[0].answers == ()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("You didn't suggest any.", True),
        ("You actually didn't mention the name of it.", True),
        ("We did not discuss my favourite tree.", True),
        ("I never said.", True),
        ("You haven\u2019t told me.", True),
        ("I didn't mention a young goat, I said I liked older ones.", False),
        ("No, I never made an account.", False),
        ("I don't eat meat.", False),
        ("He didn't win.", False),
        ("Not bread!", False),
        ("", False),
    ],
)
def test_answers_that_say_that_it_was_not_told(answer: str, expected: bool) -> None:
    assert says_not_told(answer) == expected


# ---------------------------------------------------------------------- dirty records and errors


def test_dirty_records_are_mended_or_dropped(tmp_path: Path) -> None:
    workload = load(
        tmp_path,
        dmr_record("valid_0", **asked("How many?", 3)),
        dmr_record("valid_0", **asked("Which?", "Rye bread")),
        dmr_record("valid_1", **asked(" ", "Rye bread")),
        dmr_record("valid_2", self_instruct=None),
        dmr_record("valid_3", previous_dialogs=[]),
        dmr_record("valid_4", previous_dialogs=[{"dialog": "none"}]),
        dmr_record("valid_5", metadata=None),
        "no record",
    )
    assert [document.document_id for document in workload.documents] == ["valid_0", "dmr-6"]
    assert workload.documents[0].queries[0].answers == ("3",)
    assert workload.repairs == {
        "numeric answers turned into text": 1,
        "records of a conversation that is there already dropped": 1,
        "records without a question or without turns dropped": 5,
        "conversations without an id named by their place": 1,
        FULL: 2,
        NONE: 1,
    }


def test_lines_that_are_no_json_or_no_text_are_dropped(tmp_path: Path) -> None:
    load(tmp_path, dmr_record())
    path = write_lines(tmp_path / "dmr" / ORIGINAL, [dmr_record()])
    path.write_bytes(path.read_bytes() + b'{"self_instruct"\n\n{"B": "\xff"}\n')
    workload = load_dmr(tmp_path)
    assert len(workload.documents) == 1
    assert workload.repairs[f"lines of {ORIGINAL} that are not JSON dropped"] == 2


@pytest.mark.parametrize("content", ["", "[]", "{}\n", '["a"]\n7\n', b"\xff\xfd"])
def test_a_file_without_a_question_is_refused(tmp_path: Path, content: str | bytes) -> None:
    write(tmp_path / "dmr" / RECONSTRUCTED, content)
    with pytest.raises(DataFormatError, match=r"holds no conversation with a question.*hub"):
        load_dmr(tmp_path)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    load(tmp_path, dmr_record())
    path = tmp_path / "dmr" / RECONSTRUCTED
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataFormatError, match="not a whole gzip file"):
        load_dmr(tmp_path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataFileMissingError) as caught:
        load_dmr(tmp_path)
    for part in ("dmr/msc_self_instruct.jsonl", RECONSTRUCTED, "MemGPT/MSC-Self-Instruct"):
        assert part in str(caught.value)


# ---------------------------------------------------------------------- persona labels


def test_notes_of_the_same_turns_are_kept_unasked(tmp_path: Path) -> None:
    write_msc(tmp_path)
    load(tmp_path, dmr_record("valid_0"))
    (document,) = load_dmr(tmp_path, persona_labels=True).documents
    question, *notes = document.queries
    assert question == load_dmr(tmp_path).documents[0].queries[0]
    assert [(note.text, note.needs) for note in notes][:2] == [
        *(("I keep three goats.", (0,)), ("I bake rye bread.", (1, 8)))
    ]
    assert {(note.category, note.asked_after) for note in notes} == {(NOTE, None)}
    assert told_episodes([document])[0].queries == ((11, 0),)


def test_turns_without_their_like_have_no_note(tmp_path: Path) -> None:
    write_msc(tmp_path)
    record = dmr_record("valid_0")
    first = record["previous_dialogs"][0]["dialog"]
    first[0]["text"] = "hi, I KEEP three goats."  # another case is the same turn
    first[1]["text"] = "Something else."
    load(tmp_path, record, dmr_record("valid_9"))
    workload = load_dmr(tmp_path, persona_labels=True)
    one, two = workload.documents
    assert [note.needs for note in one.queries[1:]] == [(0,), (5,), (6,), (8,), (9,)]
    assert len(two.queries) == 1
    assert workload.repairs["turns that Multi-Session Chat's files lack: no note"] == 1
    assert workload.repairs["conversations that Multi-Session Chat's files lack: no notes"] == 1


def test_labels_need_the_files_of_multi_session_chat(tmp_path: Path) -> None:
    load(tmp_path, dmr_record())
    with pytest.raises(DataFileMissingError, match="msc_personasummary"):
        load_dmr(tmp_path, persona_labels=True)


def labelled_table(workload: Workload) -> EpisodeTable:
    documents = workload.documents
    statistics = fit_lexical_statistics(documents)
    episodes = told_episodes(documents)
    return build_table(documents, episodes, HashingEmbedder(16), statistics, name="dmr")


def test_labels_are_seen_by_the_page_scorer_alone(tmp_path: Path) -> None:
    """The same play shows and pays the same with and without them, until a scorer is fitted."""
    write_msc(tmp_path, ("valid_0", "valid_1"))
    load(tmp_path, dmr_record("valid_0"), dmr_record("valid_1", **asked("What?", "Rye bread")))
    plain = labelled_table(load_dmr(tmp_path))
    labelled = labelled_table(load_dmr(tmp_path, persona_labels=True))
    assert page_is_needed(plain).sum() == 2
    assert page_is_needed(labelled).sum() == 2 * sum(bool(note) for own in CHAT for _, note in own)
    options = PagingOptions(capacity=3, archival_capacity=4, num_candidates=3)
    for episode in range(2):
        seen = [play(table, options, episode) for table in (plain, labelled)]
        assert seen[0] == seen[1]
        assert len(seen[0]) > 5


def play(table: EpisodeTable, options: PagingOptions, episode: int) -> list[tuple[object, ...]]:
    env, rng = PagingEnv(table, options), np.random.default_rng(episode)
    observation, _ = env.reset(options={"episode": episode})
    seen: list[tuple[object, ...]] = []
    reward, terminated = 0.0, False
    while not terminated:
        arrays = tuple(array.tobytes() for array in observation.values())
        seen.append((arrays, env.observation_text(), reward))
        action = random_action(observation["action_mask"], rng)
        observation, reward, terminated, _, _ = env.step(np.int64(action))
    return [*seen, (reward,)]


# ---------------------------------------------------------------------- tables and real data


def config_of(folder: Path, **fields: object) -> WorkloadConfig:
    config = WorkloadConfig(name="dmr", data_dir=str(folder), embedder="hashing:16", ask="end")
    return dataclasses.replace(config, **fields)  # type: ignore[arg-type]


def test_an_episode_is_a_whole_conversation_and_its_question(tmp_path: Path) -> None:
    load(tmp_path, *(dmr_record(f"valid_{number}") for number in range(4)))
    workload = load_workload(config_of(tmp_path))
    tables = split_tables(workload, SplitConfig(), config_of(tmp_path))
    table = tables.train
    page, query = int(Event.MESSAGE), int(Event.QUERY)
    assert table.event_kind.tolist() == [[page] * 11 + [query]] * 2
    assert table.episode_num_preloaded.tolist() == [0, 0]
    assert table.query_needs.tolist() == [[0], [0]]


def test_questions_that_pay_nothing_are_left_out(tmp_path: Path) -> None:
    write_msc(tmp_path, ("valid_0", "valid_1"))
    untold = dmr_record("valid_1", **asked("What?", "I didn't say."))
    load(tmp_path, dmr_record("valid_0"), untold)
    config = config_of(tmp_path, dmr=DmrConfig(persona_labels=True))
    workload = load_workload(config)
    assert [document.document_id for document in workload.documents] == ["valid_0"]
    assert workload.repairs["documents left out: its question pays no evidence"] == 1
    assert len(workload.documents[0].queries) == 6, "with its notes"
    everything = dataclasses.replace(config, include_unanswerable=True)
    assert len(load_workload(everything).documents) == 2
    load(tmp_path, untold)
    with pytest.raises(ConfigurationError, match="None of the 1 documents has a question with"):
        load_workload(config)


def test_the_whole_data_set(data_dir: Path) -> None:
    workload = load_dmr(data_dir)
    documents = workload.documents
    assert len(documents) == 365
    assert sum(len(document.pages) for document in documents) == 18_570
    assert {len(document.queries) for document in documents} == {1}
    # Words of the answer that speak of the chat are left out, and words are reduced to stems:
    # that finds more than the 72 % and 95 % of plain words.
    assert workload.repairs == {FULL: 308, HALF: 46, NONE: 7, NOT_TOLD: 4}
    sessions = Counter(
        document.pages[document.queries[0].needs[0]].session
        for document in documents
        if document.queries[0].needs
    )
    assert sessions[0] > 0.9 * sessions.total(), "what is recent is hardly ever asked for"


def test_every_turn_of_the_data_set_has_its_like(data_dir: Path) -> None:
    workload = load_dmr(data_dir, persona_labels=True)
    assert not any("lack" in what for what in workload.repairs)
    notes = [query for own in workload.documents for query in own.queries if query.category == NOTE]
    assert len({query.source_id for query in notes}) == len(notes) == 11_875
