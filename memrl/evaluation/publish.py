"""A small copy of a finished run that others can use: what was learned, and nothing of training.

It is a run folder to `memrl.agent`, `memrl.evaluation.replay` and `transfer`: the weights that
validation chose, the page scorer, the rules, what was chosen for each policy, and where it comes
from. Optimiser, snapshots, episodes and the machine are left out.

What it holds tells something of the training documents: lexical statistics have their words, and
weights were fitted to them. Publish only what their licence allows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from memrl.checkpoint import load_checkpoint, save_checkpoint
from memrl.run_checkpoint import POLICY_GRADIENT
from memrl.run_files import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    RESULTS_FILE,
    RunError,
    append_start,
    read_starts,
    replace_text,
    strict_json,
)
from memrl.saved import load_run
from memrl.world import WORLD_FILE

_TENSORS = ("best.", "scorer.", f"{POLICY_GRADIENT}.best.")
_STATE = ("best", "scorer")
_OF_A_POLICY = ("name", "kind", "is_privileged", "settings", "validation", "reward_per_question")
_OF_A_START = ("started_utc", "code", "versions", "seeds", "data")
_AS_THEY_ARE = (CONFIG_FILE, WORLD_FILE, "results.md")


def publish(run: Path, out: Path) -> int:
    """Write the small copy.

    Args:
        run: folder of a finished run. out: the new folder.

    Returns:
        Its size in bytes.

    Raises:
        RunError: if `run` is no run or `out` is there already or cannot be written.
        CheckpointError: if the run is not finished, or its files are damaged.
    """
    load_run(run)  # what cannot be loaded is of no use to others
    if out.exists():
        raise RunError(f"{out} is there already: name a new folder.")
    tensors, state = load_checkpoint(run)
    results = json.loads((run / RESULTS_FILE).read_text(encoding="utf-8"))
    starts = [_part(start, _OF_A_START) for start in read_starts(run / PROVENANCE_FILE)]
    try:
        out.mkdir(parents=True)
        for name in _AS_THEY_ARE:
            if (run / name).exists():  # runs of earlier versions have no world
                shutil.copyfile(run / name, out / name)
        for start in starts:
            append_start(out / PROVENANCE_FILE, start)
        policies = [_part(policy, _OF_A_POLICY) for policy in results["policies"]]
        small = {"schema": results["schema"], "policies": policies}
        replace_text(out / RESULTS_FILE, strict_json(small, indent=1) + "\n")
        kept = {name: own for name, own in tensors.items() if name.startswith(_TENSORS)}
        save_checkpoint(out, kept, _small_state(state))
    except OSError as error:
        raise RunError(f"The copy cannot be written to {out} ({error}).") from error
    load_run(out)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _small_state(state: dict[str, Any]) -> dict[str, Any]:
    small = _part(state, _STATE)
    if POLICY_GRADIENT in state:
        small[POLICY_GRADIENT] = _part(state[POLICY_GRADIENT], _STATE)
    return small


def _part(whole: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: whole[key] for key in keys if key in whole}
