"""Whom the learned policies have to beat, and whether they do.

The opponent is the best heuristic. Which one that is, every run chooses on its own validation
episodes, as it chooses every other free number; none is picked after a look at test. All that is
neither learned nor privileged is eligible, YIELD-only and random too: where doing nothing is the
best rule, a policy that beats some worse one has shown nothing.

Seeds and folds that are put together may have chosen different heuristics. The opponent is then
played by each run's own choice on that run's episodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from memrl.evaluation.entry import Entry

BEST_HEURISTIC = "best heuristic"
"""Name of the opponent, as a row and as a control."""
BEST_UNLEARNED = "best unlearned rule"
"""The same among rules that fit nothing to the training documents."""

Verdict = Literal["beats", "does not beat", "cannot be told apart from"]


def best_heuristic(
    entries: Sequence[Entry], name: str = BEST_HEURISTIC, without: Collection[str] = ()
) -> Entry | None:
    """What the heuristics chosen on validation left on test, put together over the runs.

    Args:
        entries: all contestants, played on the same episodes of the same runs.
        name: of the entry. without: names of heuristics that are not eligible.

    Returns:
        An entry whose `settings` name each run's choice as `policy`, beside the settings of that;
        the highest reward per question on validation, the first among equals. None where a run
        played no heuristic on validation.
    """
    pool = [entry for entry in entries if entry.kind == "heuristic" and entry.name not in without]
    chosen: list[Entry] = []
    for run in range(len(entries[0].settings)):
        scores = [-np.inf if (own := e.validation[run]) is None else own for e in pool]
        if not pool or max(scores) == -np.inf:
            return None
        chosen.append(pool[int(np.argmax(scores))])
    return Entry(
        name=name,
        is_privileged=False,
        overrides={},
        settings=[{"policy": e.name} | e.settings[run] for run, e in enumerate(chosen)],
        records=[chosen[run].records[place] for place, run in enumerate(pool[0].runs)],
        seeds=pool[0].seeds,
        runs=pool[0].runs,
        validation=[e.validation[run] for run, e in enumerate(chosen)],
    )


def verdict_of(interval: Mapping[str, Any] | None) -> Verdict:
    """What an interval of the difference, learned less heuristic, says.

    Args:
        interval: with `low` and `high`; None where there are too few clusters for one.
    """
    if interval is None or interval["low"] <= 0 <= interval["high"]:
        return "cannot be told apart from"
    return "beats" if interval["low"] > 0 else "does not beat"


def verdicts(
    policies: Sequence[Mapping[str, Any]], paired: Sequence[Mapping[str, Any]]
) -> dict[str, Verdict]:
    """Name of each learned policy -> its verdict; `policies` and `paired` of the results."""
    learned = {policy["name"] for policy in policies if policy["kind"] == "learned"}
    return {
        pair["policy"]: verdict_of(pair["interval"])
        for pair in paired
        if pair["control"] == BEST_HEURISTIC and pair["policy"] in learned
    }


def title(best: Mapping[str, Any]) -> str:
    """Name of the best heuristic's row, which says what was chosen; by how many runs, if several.

    Args:
        best: `best_heuristic` of the results.
    """
    counts = Counter(settings["policy"] for settings in best["settings"])
    if len(counts) == 1:
        return f"{BEST_HEURISTIC} (chosen on validation): {next(iter(counts))}"
    chosen = ", ".join(f"{count} x {name}" for name, count in counts.most_common())
    return f"{BEST_HEURISTIC} (chosen on validation by each run): {chosen}"


def sentences(results: Mapping[str, Any], cluster: str) -> list[str]:
    """One sentence for each learned policy: whether it beats the best heuristic.

    Args:
        results: of `memrl.evaluation.summary.summarize`. cluster: what one is called.
    """
    best = results["best_heuristic"]
    if best is None:
        return ["No heuristic was scored on validation, so there is no best one to compare with."]
    unit = "request" if results["played"]["workload"] == "page_cache" else "question"
    pairs = {p["policy"]: p for p in results["paired"] if p["control"] == BEST_HEURISTIC}
    made = []
    for policy, verdict in best["verdicts"].items():
        pair = pairs[policy]
        interval, differences = pair["interval"], pair["cluster_differences"].values()
        count, better = len(differences), sum(value > 0 for value in differences)
        if interval is None:
            rests_on = f"over {count} {cluster}{'s' if count > 1 else ''}, too few for an interval"
        else:
            worse = sum(value < 0 for value in differences)
            rests_on = (
                f"95 % interval {interval['low']:+.3f} to {interval['high']:+.3f} over {count} "
                f"{cluster}s, better in {better} and worse in {worse} of them"
            )
        made.append(
            f"{policy} {verdict} the {BEST_HEURISTIC}: {pair['estimate']:+.3f} reward / {unit}, "
            f"{rests_on}."
        )
    return made
