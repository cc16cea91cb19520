"""What an agent knows beside its memory, in `agent.json`: clocks, speakers, uses of resident pages.

Written after each message and question. What came in after the last writing is in recall.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from memrl.errors import MemrlError
from memrl.memory.paging import PagingCore
from memrl.options import PagingOptions
from memrl.run_files import replace_text

STATE_FILE = "agent.json"
_VERSION = 1


class AgentError(MemrlError):
    """A run cannot manage a chat, or a memory is none that an agent made."""


@dataclass(frozen=True)
class AgentState:
    """See the module.

    Attributes:
        unit: what main context counts.
        room: capacity, slots and archive of the run that managed it, None for no limit; empty in
            what earlier versions wrote.
        clock: messages and questions so far. queries_asked: of these.
        speakers: in order. page_speaker: place of each page's among them, -1 for none, in order of
            arrival.
        slots: page id, time in, last use and uses of every resident page.
    """

    unit: str
    room: list[float | None] = field(default_factory=list)
    clock: int = 0
    queries_asked: int = 0
    speakers: list[str] = field(default_factory=list)
    page_speaker: list[int] = field(default_factory=list)
    slots: list[list[int]] = field(default_factory=list)

    def apply(self, core: PagingCore) -> None:
        """Set the clocks and uses of a core whose queue has been taken up."""
        core.clock = self.clock
        for page_id, time_in, last_use, uses in self.slots:
            if core.is_resident(page_id):
                slot = core.slot_of(page_id)
                core.slot_time_in[slot], core.slot_last_use[slot] = time_in, last_use
                core.slot_uses[slot] = uses

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        record = {"version": _VERSION, **asdict(self)}
        # ASCII, so that any speaker comes back as it was, lone surrogates included.
        replace_text(folder / STATE_FILE, json.dumps(record) + "\n")


def slots_of(core: PagingCore) -> list[list[int]]:
    """`AgentState.slots` of a core."""
    slots = [core.slot_of(page_id) for page_id in core.queue]
    return [
        [core.slot_page[n], core.slot_time_in[n], core.slot_last_use[n], core.slot_uses[n]]
        for n in slots
    ]


def load_state(folder: Path, options: PagingOptions) -> AgentState | None:
    """Read it; None where there is none.

    Raises:
        AgentError: if it is damaged, or the memory counts in another unit than the options or has
            another room.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record.pop("version")
        if version != _VERSION:
            raise ValueError(f"version {version}, not {_VERSION}")
        state = AgentState(**record)
        numbers = [state.clock, state.queries_asked, *state.page_speaker]
        numbers += [number for slot in state.slots for number in slot]
        if not all(isinstance(number, int) for number in numbers):
            raise ValueError("a number is no integer")
        if not all(isinstance(speaker, str) for speaker in state.speakers):
            raise ValueError("a speaker is no text")
        if not all(-1 <= place < len(state.speakers) for place in state.page_speaker):
            raise ValueError("a page has a speaker that there is not")
        if any(len(slot) != 4 for slot in state.slots):
            raise ValueError("a slot is incomplete")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"{path} is damaged or of another version ({error}): restore it from a copy."
        ) from error
    if state.unit != options.unit:
        raise AgentError(
            f"The memory {folder} counts in {state.unit}, the run in {options.unit}: open another "
            "folder, or take a run that counts alike."
        )
    if state.room and state.room != room_of(options):
        raise AgentError(
            f"The memory {folder} has room for {_told(state.room)}, the run for "
            f"{_told(room_of(options))}, and what does not fit would be lost: open another folder, "
            "or take a run of the same capacity, slots and archive."
        )
    return state


def room_of(options: PagingOptions) -> list[float | None]:
    """`AgentState.room` of a run."""
    return [options.capacity, options.num_slots, options.archival_capacity]


def _told(room: list[float | None]) -> str:
    capacity, slots, archive = ("any" if size is None else f"{size:g}" for size in room)
    return f"{capacity} in {slots} slots and {archive} in archival"
