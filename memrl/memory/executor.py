"""The function executor: runs what a model calls, or says in a sentence why not.

Packer et al., arXiv 2310.08560v2, section 2.3: arguments are checked, results and errors go back to
the model, and a failed call is followed by another turn of the model, so that it can mend it. No
text of a model makes the executor raise; an exception from it is a defect of memrl or of a store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from memrl.errors import MemrlError
from memrl.memory.accounting import Operation
from memrl.memory.display import json_line
from memrl.memory.external import Archival
from memrl.memory.queue_manager import QueueManager
from memrl.memory.refusals import Reason, RefusedError, quoted
from memrl.memory.results import DEFAULT_PAGE_SIZE, Hit, SearchPage
from memrl.memory.schemas import HEARTBEAT, memory_functions

LIMIT_ARGUMENTS_CHARS = 1_000_000
"""Most characters of a call's arguments; longer ones are refused unread."""
LIMIT_HIT_CHARS = 4_000
"""Most characters of a hit that search results show; no page of results overflows a window."""
HIT_MARKER = " [cut here: retrieve the page for more]"
_SPOKEN = ("user", "assistant")  # calls, results and alerts would find themselves


@dataclass(frozen=True, slots=True)
class Result:
    """What a call has come to.

    Attributes:
        function: name of the function, or "" if there is none of the name called.
        status: "failed" if it was refused; then nothing has changed.
        text: for the model. reason: why it failed, or None.
        heartbeat: whether the model is to be run again at once: it asked, or the call failed.
        hits: of a search, with their page ids. total: hits on all pages of a search, else None.
        page: which page of results these are, None where there are none.
        message: what `send_message` says to the user, else None.
        evicted: pages that left main context to make room, oldest first.
    """

    function: str
    status: Literal["ok", "failed"]
    text: str
    reason: Reason | None = None
    heartbeat: bool = False
    hits: tuple[Hit, ...] = ()
    total: int | None = None
    page: int | None = None
    message: str | None = None
    evicted: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a handler has to say."""

    text: str
    found: SearchPage | None = None
    message: str | None = None
    evicted: tuple[int, ...] = ()


_Handler = Callable[[dict[str, Any], Operation], _Answer]


class Executor:
    """Runs calls on one memory.

    Args:
        queue: main context and recall. archival: passages.
        names: functions that may be called; None for all.
        page_size: hits on a page of results.

    Attributes:
        functions: those that may be called, by name.
        refusals: how often each reason was given.

    Raises:
        ValueError: if a name is no function's, or the page size is not positive.
    """

    def __init__(
        self,
        queue: QueueManager,
        archival: Archival,
        *,
        names: Sequence[str] | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> None:
        if page_size < 1:
            raise ValueError(f"page_size must be at least 1, got {page_size}.")
        every = memory_functions(queue.main.working.labels)
        unknown = [name for name in names or () if name not in every]
        if unknown:
            raise ValueError(f"There are no functions {unknown}: choose from {', '.join(every)}.")
        self.queue = queue
        self.archival = archival
        self.page_size = page_size
        self.functions = {
            name: function for name, function in every.items() if names is None or name in names
        }
        self.refusals: Counter[Reason] = Counter()
        self._handlers: dict[str, _Handler] = {
            "send_message": self._send_message,
            "core_memory_append": self._core_memory_append,
            "core_memory_replace": self._core_memory_replace,
            "conversation_search": self._conversation_search,
            "conversation_search_date": self._conversation_search_date,
            "archival_memory_insert": self._archival_memory_insert,
            "archival_memory_search": self._archival_memory_search,
            "retrieve": self._retrieve,
            "evict": self._evict,
        }

    def tools(self) -> list[dict[str, Any]]:
        """The functions that may be called, as OpenAI tools."""
        return [function.schema() for function in self.functions.values()]

    def execute(self, name: object, arguments: object) -> Result:
        """Run one call.

        Args:
            name: as the model gave it. arguments: a JSON text or what it stands for.

        Returns:
            The result; a failed one for anything that is not a call.
        """
        known = name if isinstance(name, str) and name in self.functions else ""
        # One row for all unknown names: a model could make up any number of them.
        kind = f"function/{known or 'unknown'}"
        queue = self.queue
        with queue.accounting.measure(kind, queue.main.core.counts) as operation:
            try:
                if not known:
                    self._refuse_function(name)
                checked = _parsed(arguments)
                self.functions[known].check(checked)
                answer = self._handlers[known](checked, operation)
            except MemrlError as error:
                operation.is_failure = True
                return self.refused(known, error)
        return Result(
            function=known,
            status="ok",
            text=answer.text,
            heartbeat=bool(checked.get(HEARTBEAT, False)),
            hits=answer.found.hits if answer.found else (),
            total=answer.found.total if answer.found else None,
            page=answer.found.page if answer.found else None,
            message=answer.message,
            evicted=answer.evicted,
        )

    def refused(self, function: str, error: MemrlError) -> Result:
        """Count a refusal and make its result."""
        reason = error.reason if isinstance(error, RefusedError) else Reason.STORE_FAILED
        self.refusals[reason] += 1
        return Result(function, "failed", f"Failed: {error}", reason, heartbeat=True)

    def _refuse_function(self, name: object) -> NoReturn:
        shown = quoted(name) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise RefusedError(
            Reason.UNKNOWN_FUNCTION,
            f"There is no function {shown}: call one of {', '.join(self.functions)}.",
        )

    # ------------------------------------------------------------------ handlers

    def _send_message(self, arguments: dict[str, Any], _: Operation) -> _Answer:
        return _Answer("The message was sent.", message=arguments["message"])

    def _core_memory_append(self, arguments: dict[str, Any], operation: Operation) -> _Answer:
        label, content = arguments["name"], arguments["content"]
        block = self.queue.append_block(label, content)
        operation.stored(content)
        return _Answer(
            f"Block {label} has {len(block.text):,} of {block.limit_chars:,} characters."
        )

    def _core_memory_replace(self, arguments: dict[str, Any], operation: Operation) -> _Answer:
        label, new = arguments["name"], arguments["new_content"]
        block = self.queue.replace_in_block(label, arguments["old_content"], new)
        operation.stored(new)
        return _Answer(
            f"Block {label} has {len(block.text):,} of {block.limit_chars:,} characters."
        )

    def _conversation_search(self, arguments: dict[str, Any], _: Operation) -> _Answer:
        return self._shown(
            self.queue.recall.search(
                arguments["query"],
                page=arguments.get("page", 0),
                page_size=self.page_size,
                roles=_SPOKEN,
            )
        )

    def _conversation_search_date(self, arguments: dict[str, Any], _: Operation) -> _Answer:
        return self._shown(
            self.queue.recall.search_date(
                arguments["start_date"],
                arguments["end_date"],
                page=arguments.get("page", 0),
                page_size=self.page_size,
                roles=_SPOKEN,
            )
        )

    def _archival_memory_insert(self, arguments: dict[str, Any], operation: Operation) -> _Answer:
        self.archival.insert(arguments["content"], time=self.queue.now())
        operation.stored(arguments["content"])
        return _Answer("The text is in archival storage.")

    def _archival_memory_search(self, arguments: dict[str, Any], _: Operation) -> _Answer:
        return self._shown(
            self.archival.search(
                arguments["query"], page=arguments.get("page", 0), page_size=self.page_size
            )
        )

    def _retrieve(self, arguments: dict[str, Any], _: Operation) -> _Answer:
        arrival = self.queue.retrieve(arguments["page_id"])
        evicted = arrival.flush.evicted if arrival.flush else ()
        text = f"Page {arguments['page_id']} is in this context now."
        if evicted:
            text += f" {len(evicted)} older messages have left it."
        return _Answer(text, evicted=evicted)

    def _evict(self, arguments: dict[str, Any], _: Operation) -> _Answer:
        self.queue.evict(arguments["page_id"])
        return _Answer(f"Page {arguments['page_id']} has left this context.")

    def _shown(self, found: SearchPage) -> _Answer:
        """The hits, one JSON object a line, under MemGPT's kind of header (figure 6)."""
        last_page = max(0, found.num_pages - 1)
        lines = [
            f"Showing {len(found.hits)} of {found.total} results (page {found.page}/{last_page})."
        ]
        for hit in found.hits:
            # A passage that was written, not seen, has no page to name.
            page = {} if hit.page_id is None else {"page_id": hit.page_id}
            shown = {"time": hit.time.isoformat(timespec="seconds"), "role": hit.role}
            text = self.queue.main.display(hit.text[:LIMIT_HIT_CHARS])
            text += HIT_MARKER if len(hit.text) > LIMIT_HIT_CHARS else ""
            lines.append(json_line(page | shown | {"text": text}))
        return _Answer("\n".join(lines), found=found)


def _parsed(arguments: object) -> dict[str, Any]:
    """The arguments as an object; values are checked later, each by its parameter."""
    if isinstance(arguments, str):
        arguments = _from_json(arguments)
    if not isinstance(arguments, Mapping):
        raise RefusedError(
            Reason.NOT_AN_OBJECT,
            f"Arguments must be a JSON object, not a value of type {type(arguments).__name__}.",
        )
    return dict(arguments)


def _from_json(text: str) -> object:
    if len(text) > LIMIT_ARGUMENTS_CHARS:
        raise RefusedError(
            Reason.ARGUMENTS_TOO_LONG,
            f"The arguments have {len(text):,} characters, above the limit of "
            f"{LIMIT_ARGUMENTS_CHARS:,}: give texts in parts.",
        )
    try:
        return json.loads(text, object_pairs_hook=_without_repetitions, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at character {error.pos}"
    except RecursionError:
        problem = "nested too deeply"
    except ValueError:  # an integer with more digits than Python converts
        problem = "a number is too long"
    raise RefusedError(Reason.NOT_JSON, f"The arguments are not valid JSON: {problem}.")


def _without_repetitions(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        name = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise RefusedError(
            Reason.REPEATED_ARGUMENT, f"The argument {quoted(name)} is given more than once."
        )
    return values


def _no_constant(name: str) -> NoReturn:
    raise RefusedError(Reason.NOT_JSON, f"The arguments are not valid JSON: {name} is no number.")
