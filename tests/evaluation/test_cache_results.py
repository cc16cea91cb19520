"""Who plays page caches, and the numbers and tables of their results."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from request_tables import cache_options, request_table
from rich.console import Console

from envs.batched import paging_group
from memrl.config import RunConfig, run_settings
from memrl.evaluation import lineup, stats, terminal
from memrl.evaluation.cache_lineup import cache_lines
from memrl.evaluation.entry import Entry
from memrl.evaluation.lineup import Arena
from memrl.evaluation.summary import summarize
from memrl.policies.base import Contestant
from memrl.policies.belady import least_faults
from memrl.policies.cache_rules import RULES, simulate
from memrl.policies.heuristics import YieldOnly
from memrl.workload_config import PageCacheConfig, SplitConfig, WorkloadConfig

CACHE = WorkloadConfig(name="page_cache", page_cache=PageCacheConfig(source="trace", trace="t"))
STRINGS = [
    (np.random.default_rng(seed).zipf(1.4, 60) % 12).tolist() if seed % 2 else [*range(8)] * 5
    for seed in range(8)
]


def settings(kind: Any) -> dict[str, Any]:
    options = cache_options(5)
    config = RunConfig(workload=CACHE, split=SplitConfig(kind=kind), paging=options)
    return run_settings(config)


SETTINGS = settings("halves")
STREAMS = SETTINGS | {"split": {"kind": "fractions"}}


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    table, options = request_table(STRINGS), cache_options(5)
    arena = Arena(table, options, paging_group)
    names = (lineup.LEARNED, lineup.LEARNED_OFFSET)
    learned: list[lineup.Line] = [[Contestant(n, YieldOnly(), kind="learned")] for n in names]
    lines = cache_lines(options, learned, torch.Generator().manual_seed(0))
    contestants = [arena.choose(line) for line in lines]
    played = arena.play(contestants)
    return [Entry.of(*pair, 0) for pair in zip(contestants, played, strict=True)]


@pytest.fixture(scope="module")
def of_blocks(entries: list[Entry]) -> dict[str, Any]:
    return summarize(entries, ["FIFO"], SETTINGS)


@pytest.fixture(scope="module")
def of_streams(entries: list[Entry]) -> dict[str, Any]:
    return summarize(entries, lineup.CACHE_CONTROLS, STREAMS)


def test_everybody_who_can_play_does(entries: list[Entry]) -> None:
    names = [entry.name for entry in entries]
    assert names == ["random", *RULES, lineup.LEARNED, "belady_min"]
    assert [entry.name for entry in entries if entry.is_privileged] == ["belady_min"]
    assert [entry.kind for entry in entries] == ["heuristic"] * 7 + ["learned", "bound"]


def test_the_best_rule_is_the_best_on_validation(
    entries: list[Entry], of_streams: dict[str, Any]
) -> None:
    """All were played on validation, which is here the table that they are scored on."""
    for entry, policy in zip(entries, of_streams["policies"], strict=True):
        (score,) = entry.validation
        mean = np.mean([record.hits / record.requests for record in entry.records])
        assert policy["name"] == "random" or score == pytest.approx(mean)
    best = max(entries[:7], key=lambda entry: entry.validation[0] or 0.0)
    assert of_streams["best_heuristic"]["settings"] == [{"policy": best.name}]
    assert list(of_streams["best_heuristic"]["verdicts"]) == [lineup.LEARNED]
    assert f"validation): {best.name} |" in terminal.markdown_table(of_streams)
    assert "reward / request" in terminal.markdown_table(of_streams)


def test_fifo_is_yield_only(entries: list[Entry], of_streams: dict[str, Any]) -> None:
    by_name = {entry.name: entry for entry in entries}
    hits = [[r.hits for r in by_name[name].records] for name in ("FIFO", lineup.LEARNED)]
    assert hits[0] == hits[1], "what plays as learned here is YieldOnly"
    assert "YIELD-only is the row 'FIFO'." in terminal.footnote(of_streams)


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"admission": "optional"}, "belady_bypass"),
        ({"unit": "tokens", "num_slots": 5}, "ARC"),
        ({"shown_slots": 2}, "belady_min"),
    ],
)
def test_the_bound_is_the_one_of_the_options(fields: dict[str, Any], bound: str) -> None:
    lines = cache_lines(cache_options(5, **fields), [], torch.Generator())
    assert lines[-1][0].name == bound
    sees_all = {"shown_slots": None} if "shown_slots" in fields else {}
    assert [line[0].overrides for line in lines] == [{}, *[sees_all] * (len(lines) - 1)]


def test_hit_ratios_are_those_of_the_requests(of_streams: dict[str, Any]) -> None:
    by_name = {policy["name"]: policy for policy in of_streams["policies"]}
    for name, rule in RULES.items():
        ratios = [simulate(rule, string, 5) / len(string) for string in STRINGS]
        assert by_name[name]["hit_ratio"]["estimate"] == pytest.approx(np.mean(ratios))
        assert by_name[name]["reward_per_question"] == by_name[name]["hit_ratio"]
    best = [1 - least_faults(string, 5) / len(string) for string in STRINGS]
    assert by_name["belady_min"]["hit_ratio"]["estimate"] == pytest.approx(np.mean(best))
    assert by_name["belady_min"]["normalized_score"] == 1
    assert by_name["FIFO"]["normalized_score"] == 0
    assert by_name[lineup.LEARNED]["by_category"]["by hand"]["episodes"] == 8
    controls = {pair["control"] for pair in of_streams["paired"]}
    assert controls == {*RULES, "best heuristic"}


def test_blocks_of_one_stream_are_resampled(
    entries: list[Entry], of_blocks: dict[str, Any], of_streams: dict[str, Any]
) -> None:
    assert of_blocks["played"]["split"] == "halves"
    method = "bootstrap of cluster means, percentile"
    hits = of_blocks["policies"][2]["hit_ratio"]
    assert hits["interval"]["method"] == of_blocks["paired"][0]["interval"]["method"] == method
    assert hits["interval"]["low"] < hits["estimate"] < hits["interval"]["high"]
    again = summarize([entries[2]], [], SETTINGS)["policies"][0]["hit_ratio"]
    assert again == hits, "the resamples are seeded"
    assert of_streams["policies"][2]["hit_ratio"]["interval"]["method"] == "t over clusters"


def test_few_blocks_get_no_interval() -> None:
    rng = np.random.default_rng(0)
    values, blocks = [0.1, 0.2, 0.3, 0.4, 0.5], list("abcde")
    assert stats.summarize_clusters(values, blocks, resampling=rng).interval is None
    assert stats.summarize_differences(values, blocks, resampling=rng).interval is None


def test_the_table_shows_hit_ratios(of_blocks: dict[str, Any]) -> None:
    results = of_blocks
    file = io.StringIO()
    console = Console(file=file, width=184)
    terminal.print_table(results, "caches", console)
    terminal.print_paired(results, console)
    terminal.print_details(results, console)
    text = " ".join(file.getvalue().split())  # long lines are wrapped
    for part in ("hit ratio", "decisions / request", "belady_min", "8 blocks, 1 seed", "by hand"):
        assert part in text
    assert "page_cache (t), 500 requests an episode; capacity 5 pages" in text
    assert "bootstrap over blocks" in text
    assert "stores / q" not in text
    rows = terminal.table_rows(results)
    assert {len(row) for row in rows} == {len(terminal.columns(results))}
    markdown = terminal.markdown_table(results)
    assert "| policy | hit ratio |" in markdown
    assert "By category: hit ratio." in markdown
    narrow = io.StringIO()
    terminal.print_table(results, "caches", Console(file=narrow, width=60))
    assert "hit ratio 0." in narrow.getvalue()


def test_the_footnote_of_streams(of_streams: dict[str, Any]) -> None:
    note = terminal.footnote(of_streams)
    assert "8 streams, 1 seed" in note
    assert "Student's t over streams" in note
