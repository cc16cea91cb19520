"""Made-up conversations in the layouts of Multi-Session Chat and of Deep Memory Retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa_fixtures import write_lines

CHAT: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("Hi, I keep three goats.", "I keep three goats."),
        ("Lovely. I bake rye bread.", "I bake rye bread."),
        ("Nice weather today.", ""),
        ("It is. Bye now!", ""),
    ),
    (
        ("How is the baking going?", ""),
        ("I bought a new oven in Ulm.", "I bought an oven in Ulm."),
    ),
    (
        ("One goat ran away to the hill.", "One of my goats ran away."),
        ("Oh no, poor goat.", ""),
        ("I bake as well now.", "I bake rye bread."),
    ),
    (("The goat came back!", "My goat came back."), ("What a relief.", "")),
)
"""Sessions of turns: what is said, and what was noted of it. Two turns have one note."""
GAPS = ("6 days", "3 hours", "1 day", "7 hours")
"""The time after each session."""
BACKS = (
    ("6 days ago",),
    ("6 days 3 hours ago", " 3 hours ago"),
    ("7 days 3 hours ago", "1 day 3 hours ago", "1 day ago"),
    ("7 days 10 hours ago", "1 day 10 hours ago", "1 day 7 hours ago", " 7 hours ago"),
)
"""The time that each earlier session lies back at session 2, 3, 4 and 5."""


def summary_record(name: str, session: int, **fields: Any) -> dict[str, Any]:
    """A record of `msc_personasummary/session_<session>`."""
    turns: list[dict[str, Any]] = []
    for place, (text, note) in enumerate(CHAT[session - 1]):
        turn: dict[str, Any] = {"text": text, "id": f"bot_{place % 2}", "convai2_id": name}
        if note:
            turn |= {"persona_text": note, "problem_data": {"persona": note}}
        turns.append(turn)
    last = turns[-1].setdefault("problem_data", {})
    last |= {"prompt_time": GAPS[session - 1], "followup": f"And what of {session}?"}
    return {
        "initial_data_id": name,
        "dialog": turns,
        "followup": f"And what of {session}?",
        "newfact": f"I learned number {session}.",
        "init_personachat": {"init_personas": [["I like goats."], ["I bake."]]},
    } | fields


def previous_dialogs(session: int) -> list[dict[str, Any]]:
    """The sessions before the given one as `previous_dialogs` has them."""
    previous = []
    for place, back in enumerate(BACKS[session - 2]):
        number, unit = GAPS[place].split()
        turns = [{"text": text} for text, _ in CHAT[place]]
        times = {"time_num": int(number), "time_unit": unit, "time_back": back}
        previous.append({"personas": [[], []], "dialog": turns} | times)
    return previous


def dialogue_record(name: str, session: int, **fields: Any) -> dict[str, Any]:
    """A record of `msc_dialogue/session_<session>`; session 5 is one of its own."""
    texts = [text for text, _ in CHAT[session - 1]] if session < 5 else ["A fifth time!", "Yes."]
    return {
        "personas": [[], []],
        "init_personas": [[], []],
        "dialog": [
            {"text": text, "id": f"Speaker {place % 2 + 1}", "convai2_id": name}
            for place, text in enumerate(texts)
        ],
        "metadata": {"initial_data_id": name, "session_id": session - 1},
        "previous_dialogs": previous_dialogs(session),
    } | fields


def summary_path(folder: Path, session: int, part: str = "valid", *, ending: str = ".gz") -> Path:
    return folder / f"msc/msc_personasummary/session_{session}/{part}.txt{ending}"


def dialogue_path(folder: Path, session: int, part: str = "valid", *, ending: str = ".gz") -> Path:
    return folder / f"msc/msc_dialogue/session_{session}/{part}.txt{ending}"


def write_msc(
    folder: Path,
    names: Sequence[str] = ("valid_0",),
    tests: Sequence[str] = ("test_0",),
    *,
    dialogues: Sequence[int] = (2, 3),
) -> None:
    """Both parts, four sessions of one layout and those sessions of the other."""
    for part, own in (("valid", names), ("test", tests)):
        for session in (1, 2, 3, 4):
            records = [summary_record(name, session) for name in own]
            write_lines(summary_path(folder, session, part), records)
        for session in dialogues:
            write_lines(
                dialogue_path(folder, session, part), [dialogue_record(n, session) for n in own]
            )


def dmr_record(name: str = "valid_0", **fields: Any) -> dict[str, Any]:
    """The reconstructed layout, without session 5."""
    return {
        "metadata": {"initial_data_id": name, "session_id": 4},
        "init_personas": [[], []],
        "previous_dialogs": [
            {key: value for key, value in own.items() if key != "personas"}
            for own in previous_dialogs(5)
        ],
        "self_instruct": {
            "B": "Hey, remember that time we talked about farms? How many goats do you keep?",
            "A": "I said I keep three goats!",
        },
    } | fields


def original_dmr_record(name: str = "valid_0", **fields: Any) -> dict[str, Any]:
    """The original layout: personas, summaries and session 5 as well."""
    added = {
        "personas": [["I keep goats."], ["I bake."]],
        "personas_update1": [[], []],
        "personas_update2": [[], []],
        "summary_speaker_1": [["I keep goats."]],
        "summary_speaker_2": [["I bake."]],
        "previous_dialogs": previous_dialogs(5),
        "dialog": dialogue_record(name, 5)["dialog"],
    }
    return dmr_record(name, **(added | fields))


def asked(question: str, answer: object) -> dict[str, Any]:
    return {"self_instruct": {"B": question, "A": answer}}
