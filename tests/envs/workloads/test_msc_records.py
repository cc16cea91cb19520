from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msc_fixtures import (
    CHAT,
    dialogue_path,
    dialogue_record,
    previous_dialogs,
    summary_path,
    summary_record,
    write_msc,
)
from qa_fixtures import write, write_lines

from envs.workloads.files import DataFileMissingError, DataFormatError
from envs.workloads.msc_records import (
    GAP_DIFFERS,
    SESSION_DIFFERS,
    Conversation,
    hours_of,
    previous_sessions,
    read_conversations,
    read_turns,
)


def read(folder: Path) -> tuple[list[Conversation], dict[str, int]]:
    """Conversations of the valid part, and what was mended."""
    repairs: Counter[str] = Counter()
    conversations, _ = read_conversations(folder, None, repairs)
    valid = [own for own in conversations if own.part == "valid"]
    return valid, {what: count for what, count in repairs.items() if count}


def rewrite(folder: Path, session: int, change: Callable[[dict[str, Any]], None]) -> None:
    record = summary_record("valid_0", session)
    change(record)
    write_lines(summary_path(folder, session), [record])


# ---------------------------------------------------------------------- joining


def test_both_layouts_give_one_conversation(tmp_path: Path) -> None:
    write_msc(tmp_path)
    (conversation,), repairs = read(tmp_path)
    assert repairs == {}
    assert [len(session.turns) for session in conversation.sessions] == [4, 2, 3, 2]
    assert [session.gap_hours for session in conversation.sessions] == [144, 3, 24, 7]
    assert conversation.sessions[1].openings == ("And what of 2?", "I learned number 2.")
    assert conversation.sessions[0].turns[1].note == "I bake rye bread."


def test_the_files_that_were_read_are_named(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=(3,))
    write(summary_path(tmp_path, 2, ending=""), summary_path(tmp_path, 2).read_bytes()[:0])
    _, files = read_conversations(tmp_path, None, Counter())
    assert len(files) == 10
    assert tmp_path / "msc/msc_dialogue/session_3/test.txt.gz" in files


def test_uncompressed_files_are_read(tmp_path: Path) -> None:
    write_msc(tmp_path)
    summary_path(tmp_path, 2).unlink()
    write_lines(summary_path(tmp_path, 2, ending=""), [summary_record("valid_0", 2)])
    (conversation,), repairs = read(tmp_path)
    assert conversation.sessions[1].turns[1].note == "I bought an oven in Ulm."
    assert repairs == {}


def test_the_fifth_session_is_read_where_there_is_one(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=(5,))
    (conversation,), repairs = read(tmp_path)
    assert [turn.text for turn in conversation.sessions[4].turns] == ["A fifth time!", "Yes."]
    assert repairs == {"sessions of msc_dialogue alone, without notes": 2}  # of both parts


def test_sessions_that_one_layout_lacks_come_from_the_other(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=(4,))
    for part in ("valid", "test"):
        summary_path(tmp_path, 2, part).unlink()
    (conversation,), repairs = read(tmp_path)
    second = conversation.sessions[1]
    assert [turn.text for turn in second.turns] == [text for text, _ in CHAT[1]]
    assert {turn.note for turn in second.turns} == {""}
    assert second.gap_hours == 3
    assert repairs == {"sessions of msc_dialogue alone, without notes": 2}


def test_a_time_that_one_layout_lacks_comes_from_the_other(tmp_path: Path) -> None:
    write_msc(tmp_path)
    rewrite(tmp_path, 1, lambda record: record["dialog"][-1].pop("problem_data"))
    (conversation,), repairs = read(tmp_path)
    assert conversation.sessions[0].gap_hours == 144
    assert repairs == {}
    rewrite(tmp_path, 4, lambda record: record["dialog"][-1].pop("problem_data"))
    (conversation,), _ = read(tmp_path)
    assert conversation.sessions[3].gap_hours is None


def test_what_differs_between_the_layouts_is_counted(tmp_path: Path) -> None:
    write_msc(tmp_path)

    def change(record: dict[str, Any]) -> None:
        record["dialog"][0]["text"] = "how is the Baking going?"
        record["dialog"][-1]["problem_data"]["prompt_time"] = "5 days"

    rewrite(tmp_path, 2, change)
    (conversation,), repairs = read(tmp_path)
    assert conversation.sessions[1].turns[0].text == "how is the Baking going?"
    assert conversation.sessions[1].gap_hours == 120
    assert repairs == {SESSION_DIFFERS: 1, GAP_DIFFERS: 1}


def test_what_follows_a_missing_session_is_dropped(tmp_path: Path) -> None:
    write_msc(tmp_path, ("valid_0", "valid_1", "valid_2"), dialogues=())
    write_lines(summary_path(tmp_path, 2), [summary_record("valid_0", 2)])
    write_lines(summary_path(tmp_path, 1), [summary_record(f"valid_{n}", 1) for n in (0, 1)])
    conversations, repairs = read(tmp_path)
    lengths = {own.conversation_id: len(own.sessions) for own in conversations}
    assert lengths == {"valid_0": 4, "valid_1": 1}
    assert repairs == {
        "sessions after one that is missing dropped": 4,
        "conversations without a first session dropped": 1,
    }


def test_a_conversation_of_both_parts_does_not_test(tmp_path: Path) -> None:
    write_msc(tmp_path, ("a", "b"), ("b", "c"))
    repairs: Counter[str] = Counter()
    conversations, files = read_conversations(tmp_path, None, repairs)
    assert [(own.conversation_id, own.part) for own in conversations] == [
        *(("a", "valid"), ("b", "valid"), ("c", "test"))
    ]
    assert repairs["conversations of the test part that are in valid dropped"] == 1
    assert len(files) == 12


# ---------------------------------------------------------------------- dirty records


def test_repeated_and_nameless_records_are_dropped(tmp_path: Path) -> None:
    write_msc(tmp_path)
    other = summary_record("valid_0", 2, dialog=[{"text": "Another one."}])
    nameless = summary_record("", 1)
    write_lines(summary_path(tmp_path, 2), [summary_record("valid_0", 2), other, nameless, 7])
    (conversation,), repairs = read(tmp_path)
    assert conversation.sessions[1].turns[0].text == "How is the baking going?"
    assert repairs == {
        "records of a conversation that its file has already dropped": 1,
        "records without the id of a conversation dropped": 2,
    }


def test_lines_that_are_no_json_are_dropped(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=())
    write_lines(summary_path(tmp_path, 1, ending=""), [summary_record("valid_0", 1)])
    line = summary_path(tmp_path, 1, ending="").read_bytes()
    write(summary_path(tmp_path, 1), line + b"{broken\n\n" + b'{"text": "\xff"}\n')
    (conversation,), repairs = read(tmp_path)
    assert len(conversation.sessions) == 4
    assert repairs == {"lines of valid.txt.gz that are not JSON dropped": 2}


def test_dirty_turns_are_mended() -> None:
    repairs: Counter[str] = Counter()
    turns = read_turns(
        [
            {"text": " Hello. ", "id": "48106", "persona_text": "  "},  # a worker's number
            {"text": "Hi.", "id": "Speaker 2", "persona_text": None},
            {"text": " "},
            {"text": "Well.", "id": ["bot_0"], "persona_text": " I am well. "},
            "no turn",
            {"text": "So.", "id": "bot_0"},
        ],
        repairs,
    )
    assert [(turn.text, turn.speaker, turn.note) for turn in turns] == [
        *(("Hello.", 0, ""), ("Hi.", 1, ""), ("Well.", 1, "I am well."), ("So.", 0, ""))
    ]
    assert repairs == {"turns without text dropped": 2}
    assert read_turns(None, repairs) == ()


def test_sessions_without_turns_are_dropped(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=())
    records = [summary_record("valid_0", 4, dialog=[]), summary_record("valid_1", 4)]
    write_lines(summary_path(tmp_path, 4), records)
    conversations, repairs = read(tmp_path)
    assert [len(own.sessions) for own in conversations] == [3]
    assert repairs["sessions without turns dropped"] == 1


def test_a_session_id_that_counts_from_1_is_noted(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=(2,))
    metadata = {"initial_data_id": "valid_0", "session_id": 2}
    write_lines(dialogue_path(tmp_path, 2), [dialogue_record("valid_0", 2, metadata=metadata)])
    (conversation,), repairs = read(tmp_path)
    assert len(conversation.sessions) == 4
    assert repairs == {"records whose session_id is not their folder's kept": 1}


def test_previous_dialogs_of_another_length_are_ignored(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=(3,))
    short = dialogue_record("valid_0", 3, previous_dialogs=previous_dialogs(2))
    write_lines(dialogue_path(tmp_path, 3), [short])
    _, repairs = read(tmp_path)
    assert repairs == {"previous_dialogs of another number of sessions ignored": 1}


# ---------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("6 days", 144),
        ("1 hour", 1),
        (" 3 hours ago", 3),
        ("6 days 3 hours ago", 147),
        ("1 day ago", 24),
        ("", None),
        ("soon", None),
        ("3 weeks", None),
        (3, None),
        (None, None),
    ],
)
def test_times_are_hours(text: object, hours: int | None) -> None:
    assert hours_of(text) == hours


def test_times_between_sessions() -> None:
    repairs: Counter[str] = Counter()
    previous = previous_dialogs(5)
    assert [own.gap_hours for own in previous_sessions(previous, repairs)] == [144, 3, 24, 7]
    for own in previous:  # the same from how far they lie back
        del own["time_num"]
    assert [own.gap_hours for own in previous_sessions(previous, repairs)] == [144, 3, 24, 7]
    del previous[1]["time_back"]
    gaps = [own.gap_hours for own in previous_sessions(previous, repairs)]
    assert gaps == [None, None, 24, 7]
    assert not repairs.total()
    previous = previous_dialogs(5)
    previous[0]["time_num"] = 5
    assert previous_sessions(previous, repairs)[0].gap_hours == 120
    assert repairs["times between sessions that contradict time_back kept"] == 1


# ---------------------------------------------------------------------- errors


def test_a_missing_session_is_one_clear_error(tmp_path: Path) -> None:
    write_msc(tmp_path, dialogues=(2,))
    summary_path(tmp_path, 3, "test").unlink()
    with pytest.raises(DataFileMissingError) as caught:
        read_conversations(tmp_path, None, Counter())
    for part in ("msc/msc_personasummary/session_3/test.txt.gz", "ParlAI", "licence"):
        assert part in str(caught.value)


def test_no_folder_at_all_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMRL_DATA", raising=False)
    with pytest.raises(DataFileMissingError, match=r"MEMRL_DATA.*msc_v0\.1\.tar\.gz"):
        read_conversations(None, None, Counter())


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    write_msc(tmp_path)
    for path in (summary_path(tmp_path, 4, "test"), dialogue_path(tmp_path, 3)):
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        with pytest.raises(DataFormatError, match="not a whole gzip file"):
            read_conversations(tmp_path, None, Counter())
        path.write_bytes(whole)


@pytest.mark.parametrize("content", ["", "[]", "[1, 2]\n3\n", '{"initial_data_id": "valid_0"}'])
@pytest.mark.parametrize("path_of", [summary_path, dialogue_path])
def test_a_file_without_a_conversation_is_refused(
    tmp_path: Path, path_of: Callable[[Path, int], Path], content: str
) -> None:
    write_msc(tmp_path)
    write(path_of(tmp_path, 2), content)
    with pytest.raises(DataFormatError, match="holds no conversation with turns"):
        read_conversations(tmp_path, None, Counter())


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write_msc(tmp_path)
    write(summary_path(tmp_path, 1), b"\xff\xfd{}\n\xff\n")
    with pytest.raises(DataFormatError, match="holds no conversation with turns"):
        read_conversations(tmp_path, None, Counter())


def test_the_times_of_the_data_set_agree(data_dir: Path) -> None:
    repairs: Counter[str] = Counter()
    conversations, _ = read_conversations(data_dir, None, repairs)
    assert {what: count for what, count in repairs.items() if count} == {SESSION_DIFFERS: 21}
    gaps = {session.gap_hours for own in conversations for session in own.sessions}
    assert gaps == {*range(1, 8), *(24 * days for days in range(1, 8))}
    opened = Counter(
        own.sessions[number + 1].turns[0].text in own.sessions[number].openings
        for own in conversations
        for number in range(3)
    )
    assert opened.total() == 2205
    assert opened[True] == 2193
