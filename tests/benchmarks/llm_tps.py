"""How fast local language models read, write, call and choose, with and without known prefixes.

    PYTHONPATH=.:tests python tests/benchmarks/llm_tps.py [--models smollm2 model.gguf]
        [--dtypes float32] [--only write call choose] [--prompt-tokens 500] [--json FILE]

Prompts are made-up chats. `read` is a prompt that begins like no other, `write` the tokens of a
story behind it. `call` is a constrained call of one of the memory functions, whose schemas are in
the prompt; `choose` scores 20 actions. Both are asked `cold`, of a chat that is new, and `warm`,
of the same chat after one more message. Models take turns in every repeat. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import Seconds, spread
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memrl.llm.backend import ChatMessage, Request
from memrl.llm.local import LocalBackend
from memrl.memory.schemas import memory_functions

COLUMNS = (
    "model",
    "dtype",
    "what",
    "tokens read",
    "known",
    "written",
    "wall s",
    "CPU s",
    "tokens/s",
)
WRITTEN = 32
ACTIONS = (
    *("yield", "next"),
    *(f"store page {number}" for number in range(6)),
    *(f"retrieve candidate {number}" for number in range(12)),
)
TOOLS = tuple(function.schema() for function in memory_functions(["human", "persona"]).values())
SENTENCE = "On day {0} the user put key {1} into box {2} and said that nobody should look there. "


def chat(model: LocalBackend, number: int, tokens: int, tools: Any = ()) -> list[ChatMessage]:
    """A chat of about so many tokens that begins like no other."""
    messages = [ChatMessage("system", f"Chat {number}. You keep what matters in memory.")]
    day = 0
    while True:
        text = "".join(SENTENCE.format(day + i, number, i) for i in range(3))
        longer = [*messages, ChatMessage("user", text)]
        if len(longer) > 2 and model.count_tokens(longer, tools) > tokens:
            return messages
        messages, day = longer, day + 3


def measured(
    model: LocalBackend, number: int, tokens: int, only: Sequence[str]
) -> Iterator[tuple[str, Any, Seconds]]:
    """Every measurement once: what, its usage, its seconds."""

    def timed(what: str, ask: Any, request: Request) -> tuple[str, Any, Seconds]:
        seconds = Seconds(model._device)
        (reply,) = seconds.of(ask)([request])
        return what, reply.usage, seconds

    story = chat(model, number, tokens)
    story += [ChatMessage("user", "Tell a long story about the key and the boxes.")]
    yield timed("read", model.complete, Request(tuple(story), max_reply_tokens=1))
    if "write" in only:
        yield timed("write", model.complete, Request(tuple(story), max_reply_tokens=WRITTEN))
    more = ChatMessage("user", "Now the user says: my sister's key is green, remember it.")
    for what, ask, settings in (
        ("call", model.complete, {"tools": TOOLS, "max_reply_tokens": 64}),
        ("choose", model.score, {"choices": ACTIONS}),
    ):
        if what not in only:
            continue
        number += 1_000_000
        length = tokens + (model.count_tokens(story[:1], TOOLS) if what == "call" else 0)
        messages = chat(model, number, length, settings.get("tools", ()))
        yield timed(f"{what}, cold", ask, Request(tuple(messages), **settings))
        yield timed(f"{what}, warm", ask, Request((*messages, more), **settings))


def main() -> None:
    """Measure, print a table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["smollm2"])
    parser.add_argument("--dtypes", nargs="+", default=["auto"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--prompt-tokens", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["write", "call", "choose"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = []
    for name in options.models:
        for dtype in options.dtypes:
            seconds = Seconds()
            models.append(seconds.of(LocalBackend)(name, dtype=dtype, device=options.device))
            print(f"{name} {dtype} loaded in {seconds.wall:.1f} s, {seconds.cpu:.1f} s of CPU")
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for repeat in track(
        range(options.repeats + 1), description="Repeats", console=Console(stderr=True)
    ):
        for model in models:
            tokens = options.prompt_tokens if repeat else 60  # the first time only warms up
            for what, usage, seconds in measured(model, repeat, tokens, options.only):
                key = (model.name, model.identity["dtype"], what)
                found = {
                    "read": usage.prompt_tokens,
                    "known": usage.cached_tokens,
                    "written": usage.reply_tokens,
                    "wall_s": seconds.wall,
                    "cpu_s": seconds.cpu,
                }
                if repeat:
                    rows.setdefault(key, []).append(found)
    show(rows)
    if options.json:
        records = [{"model": m, "dtype": d, "what": w, "runs": r} for (m, d, w), r in rows.items()]
        options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


def show(rows: dict[tuple[str, str, str], list[dict[str, float]]]) -> None:
    """Print medians, lowest and highest."""
    table = Table(*COLUMNS)
    for key, runs in rows.items():

        def numbers(name: str, runs: list[dict[str, float]] = runs) -> list[float]:
            return [run[name] for run in runs]

        rate = ""
        if key[2] in ("read", "write"):
            done = [run["written" if key[2] == "write" else "read"] for run in runs]
            rate = spread([n / s for n, s in zip(done, numbers("cpu_s"), strict=True)], 1)
        counts = [f"{numbers(name)[0]:,.0f}" for name in ("read", "known", "written")]
        times = [spread(numbers(name), 2) for name in ("wall_s", "cpu_s")]
        table.add_row(*key, *counts, *times, rate)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
