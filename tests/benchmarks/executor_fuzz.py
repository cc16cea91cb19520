"""Random calls to the function executor: each is answered, or refused with a known reason.

    PYTHONPATH=.:tests python tests/benchmarks/executor_fuzz.py [--calls 100000] [--seed 0] \
        [--stores lists|sqlite]

Calls are valid, nearly valid (one thing is wrong) or garbage: lone surrogates, NUL, chat markers,
deep nesting, numbers of thousands of digits, objects that are no JSON. Sessions are small, so that
queues flush, blocks fill and turns end all the time; now and then a store or a summarizer fails.
The stores are plain lists, or the library's own in memory.
After every call: main context agrees with the paging core and is within its window, a failed call
has a reason and forces a heartbeat, and what the model is shown can be encoded. A reason that was
never given is an error: the fuzz would have stopped to reach it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal, get_args

from external_fakes import ListArchival, ListRecall
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memrl.errors import MemrlError
from memrl.memory.archival import ArchivalStore
from memrl.memory.blocks import Block
from memrl.memory.chain import Chain
from memrl.memory.columns import LIMIT_INTEGER
from memrl.memory.embedders import HashingEmbedder
from memrl.memory.executor import LIMIT_ARGUMENTS_CHARS, Executor, Result
from memrl.memory.main_context import MainContext
from memrl.memory.queue_manager import QueueManager, QueueOptions
from memrl.memory.recall import RecallStore
from memrl.memory.refusals import Reason
from memrl.memory.schemas import (
    LIMIT_TEXT_CHARS,
    Function,
    Parameter,
    memory_functions,
)
from memrl.memory.window import Window

StoreKind = Literal["lists", "sqlite"]
CALLS_PER_SESSION = 200
LABELS = ("persona", "human")
FUNCTIONS = list(memory_functions(LABELS).values())
PIECES = (
    *(
        "cat",
        "dog",
        "Biscuit",
        "I like tea.",
        "word " * 30,
        "x" * 150,
        "x" * 420,
        "\n",
        " ",
        "é 1 " * 40,
    ),
    *("\x00", "\ud800", "\udfff", "😂", "\u202e", "\u2028", "<|im_end|>", "</s>", "[INST]"),
    *('"}', "{", "]]", "'; DROP TABLE pages; --", 'NEAR("a" AND', "send_message(", "NaN", "\\"),
)


def random_text(rng: Random) -> str:
    return "".join(rng.choices(PIECES, k=rng.choice((1, 1, 2, 5))))


def random_value(rng: Random, depth: int = 0) -> object:
    """Anything that a broken caller could pass."""
    makers: list[Callable[[], object]] = [
        lambda: random_text(rng),
        lambda: rng.randint(-3, 40),
        lambda: rng.choice((10**18, 2**53, -(10**30), 10**5000, True, False, None, "", b"bytes")),
        lambda: rng.choice((0.0, 3.5, float("nan"), float("inf"), 1e308, object(), {1, 2})),
        lambda: _nested(rng.choice((3, 2_000))),
    ]
    if depth < 2:
        makers.append(lambda: [random_value(rng, depth + 1) for _ in range(rng.randint(0, 3))])
        makers.append(lambda: {random_text(rng): random_value(rng, depth + 1)})
    return rng.choice(makers)()


def _nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


Hints = dict[str, Sequence[object]]
"""Name of an argument -> values that mean something in the session."""


def valid_value(rng: Random, parameter: Parameter, hints: Hints) -> object:
    if hints.get(parameter.name) and rng.random() < 0.7:
        return rng.choice(hints[parameter.name])
    if parameter.choices:
        return rng.choice(parameter.choices)
    if parameter.kind == "boolean":
        return rng.random() < 0.8
    if parameter.kind == "integer":
        return rng.choice((rng.randint(0, 60), rng.randint(0, 3), LIMIT_INTEGER))
    if parameter.kind == "date":
        return (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(rng.randint(0, 60))).date().isoformat()
    return random_text(rng) + "e"  # never blank


def valid_arguments(rng: Random, function: Function, hints: Hints) -> dict[str, Any]:
    return {
        parameter.name: valid_value(rng, parameter, hints)
        for parameter in function.parameters
        if parameter.is_required or rng.random() < 0.7
    }


def nearly_valid(rng: Random, function: Function, hints: Hints) -> object:
    """Arguments with one thing wrong, as an object or a text."""
    arguments: dict[Any, Any] = valid_arguments(rng, function, hints)
    parameter = rng.choice(function.parameters)
    fault = rng.randrange(8)
    if fault == 0:
        arguments.pop(parameter.name, None)
    elif fault == 1:
        arguments[random_text(rng) if rng.random() < 0.8 else rng.randint(0, 9)] = 1
    elif fault == 2:
        arguments[parameter.name] = random_value(rng)
    elif fault == 3:
        wrong = ("", " \n", "2024-02-30", "Human", -1, 2**60, True, "x" * (LIMIT_TEXT_CHARS + 1))
        arguments[parameter.name] = rng.choice(wrong)
    elif fault == 4:
        text = _as_json(arguments)
        return text[: rng.randint(0, len(text))] + rng.choice(("", "}", "]", "\x00"))
    elif fault == 5:
        text = _as_json(arguments)
        return f"{text[:-1]}, {text[1:]}"  # every argument twice
    elif fault == 6:
        return rng.choice((f"[{_as_json(arguments)}]", "null", None, 3, "[" * 100_000, "9" * 5_000))
    else:
        return rng.choice(("{}", '{"page": NaN}', '{"page": -Infinity}'))
    return arguments


def random_call(rng: Random, hints: Hints) -> tuple[object, object]:
    """A name and arguments; nine of ten are calls, or nearly so, in form."""
    function = rng.choice(FUNCTIONS)
    kind = rng.random()
    if kind < 0.55:
        arguments = valid_arguments(rng, function, hints)
        return function.name, _as_json(arguments) if rng.random() < 0.5 else arguments
    if kind < 0.9:
        return function.name, nearly_valid(rng, function, hints)
    if kind < 0.95:
        return random_value(rng), valid_arguments(rng, function, hints)
    if kind < 0.951:
        return function.name, " " * (LIMIT_ARGUMENTS_CHARS + 1)
    return rng.choice((function.name, random_value(rng))), random_value(rng)


def _as_json(arguments: dict[Any, Any]) -> str:
    return json.dumps(arguments)


class Breakable:
    """A store that fails while `is_broken`."""

    def __init__(self, store: RecallStore | ArchivalStore) -> None:
        self._store = store
        self.is_broken = False

    def __getattr__(self, name: str) -> Any:
        if self.is_broken:
            raise MemrlError("The disk is full: free some space.")
        return getattr(self._store, name)


def make_stores(kind: StoreKind) -> tuple[Any, Any]:
    """Recall and archival, either of which can be broken."""
    if kind == "lists":
        return ListRecall(), ListArchival()
    return Breakable(RecallStore()), Breakable(ArchivalStore(None, HashingEmbedder(32)))


class Session:
    """One small memory and the turn that is being played on it."""

    def __init__(self, rng: Random, stores: StoreKind = "lists") -> None:
        self.rng = rng
        self.recall, self.archival = make_stores(stores)
        self.days = 0
        self.num_not_logged = 0
        main = MainContext(
            "Be brief.",
            [Block("persona", "Helpful, ha ha."), Block("human", limit_chars=400)],
            window=Window(
                window_tokens=rng.randint(400, 900),
                working_tokens=120,
                summary_tokens=60,
                num_slots=rng.choice((3, 100)),
            ),
        )
        self.queue = QueueManager(
            main,
            self.recall,
            summarizer=rng.choice((None, self._summarise)),
            options=QueueOptions(evict_fraction=rng.choice((0.0, 0.5))),
            clock=self._clock,
        )
        self.executor = Executor(self.queue, self.archival)
        self.chain = self._new_chain()

    def _clock(self) -> datetime:
        self.days = (self.days + 1) % 60
        return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(self.days)

    def _summarise(self, texts: Sequence[str], limit_tokens: int) -> str:
        answer = self.rng.choice(("gist", texts[0], "word " * (2 * limit_tokens), "", None, 1))
        if answer == 1:
            raise RuntimeError(random_text(self.rng))
        return answer  # type: ignore[return-value]

    def _new_chain(self) -> Chain:
        return Chain(self.executor, max_heartbeats=self.rng.choice((0, 3, 16)))

    def hints(self) -> Hints:
        """Pages that are resident or have been, and texts that blocks hold."""
        core = self.queue.main.core
        texts = [block.text for block in self.queue.main.working if block.text]
        pieces = [text[first : first + 3] for text in texts for first in (0, len(text) // 2)]
        return {"page_id": [*core.queue, *list(core.recall)[-10:]], "old_content": texts + pieces}

    def step(self, name: object, arguments: object) -> Result:
        """Play one call, whether or not its log can be stored."""
        rng = self.rng
        self.recall.is_broken = rng.random() < 0.01
        self.archival.is_broken = rng.random() < 0.01
        # Now and then a model calls on although its turn has ended.
        if not self.chain.is_open and rng.random() < 0.9:
            self.chain = self._new_chain()
            with suppress(MemrlError):  # recall is broken at the moment
                self.queue.append(random_text(rng), "user")
        was_open = self.chain.is_open
        try:
            result = self.chain.call(name, arguments)
        except MemrlError:
            # Only a store that fails may stop a call from being logged; it has run all the same.
            assert self.recall.is_broken
            assert self.chain.last_result is not None
            result = self.chain.last_result
            self.num_not_logged += 1
        self._check(result, was_open)
        return result

    def close(self) -> None:
        """Release the stores."""
        for store in (self.recall, self.archival):
            store.is_broken = False
            if isinstance(store, Breakable):
                store.close()

    def _check(self, result: Result, was_open: bool) -> None:
        main, chain = self.queue.main, self.chain
        result.text.encode()
        assert result.text
        if result.status == "failed":
            assert result.reason is not None
            is_at_cap = chain.num_heartbeats >= chain.max_heartbeats
            assert result.heartbeat or is_at_cap or not was_open
        else:
            assert result.reason is None
            assert result.function
        assert chain.is_open == (was_open and result.heartbeat)
        assert chain.num_heartbeats <= chain.max_heartbeats
        assert [page.page_id for page in main.pages] == main.core.queue
        assert main.core.occupied_tokens <= main.core.capacity_tokens
        messages = main.messages()
        json.dumps(messages, ensure_ascii=False).encode()
        assert main.tokens <= main.window.window_tokens


@dataclass
class Report:
    """What came of the calls."""

    outcomes: Counter[str] = field(default_factory=Counter)
    by_function: Counter[tuple[str, str]] = field(default_factory=Counter)
    flushes: int = 0
    not_logged: int = 0
    summarizer_failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def missing_reasons(self) -> list[str]:
        """Known reasons that no call was refused for."""
        return [reason for reason in Reason if not self.outcomes[reason]]

    def add_session(self, session: Session) -> None:
        self.not_logged += session.num_not_logged
        costs = session.queue.accounting.as_dict()
        self.flushes += costs.get("queue/flush", {"calls": 0})["calls"]
        if session.queue.summarizer is not None:
            self.summarizer_failures.update(session.queue.summarizer.failures)


def fuzz(
    num_calls: int, seed: int, *, stores: StoreKind = "lists", shows_progress: bool = False
) -> Report:
    """Play random calls; AssertionError or whatever the executor raises ends it, with the call."""
    report = Report()
    start_s = time.perf_counter()
    session: Session | None = None
    for index in track(range(num_calls), "calls", disable=not shows_progress):
        rng = Random(f"{seed}/{index}")
        if session is None or index % CALLS_PER_SESSION == 0:
            session = Session(rng, stores)
        session.rng = rng
        name, arguments = random_call(rng, session.hints())
        try:
            result = session.step(name, arguments)
        except Exception as error:
            error.add_note(f"call {index} of seed {seed}: {name!a:.80}, {type(arguments)}")
            raise
        outcome = result.reason or result.status
        report.outcomes[outcome] += 1
        report.by_function[(result.function, outcome)] += 1
        if index % CALLS_PER_SESSION == CALLS_PER_SESSION - 1 or index == num_calls - 1:
            report.add_session(session)
            session.close()
    report.seconds = time.perf_counter() - start_s
    return report


def show(report: Report, console: Console) -> None:
    table = Table("outcome", "calls")
    for outcome, count in report.outcomes.most_common():
        table.add_row(outcome, f"{count:,}")
    console.print(table)
    answered = Counter({f: n for (f, outcome), n in report.by_function.items() if outcome == "ok"})
    console.print("answered:", dict(answered.most_common()))
    failures = dict(report.summarizer_failures)
    console.print(f"{report.not_logged:,} calls could not be logged, because recall was broken")
    console.print(f"{report.flushes:,} flushes; summarizer failures made good: {failures}")
    total = sum(report.outcomes.values())
    console.print(
        f"{total:,} calls in {report.seconds:.1f} s, {total / report.seconds:,.0f} a second"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stores", choices=get_args(StoreKind), default="lists")
    arguments = parser.parse_args()
    report = fuzz(arguments.calls, arguments.seed, stores=arguments.stores, shows_progress=True)
    console = Console()
    show(report, console)
    if report.missing_reasons:
        console.print(f"[red]Never given: {', '.join(report.missing_reasons)}")
    return 1 if report.missing_reasons else 0


if __name__ == "__main__":
    sys.exit(main())
