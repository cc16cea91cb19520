"""What a finished run leaves behind: its policy, its page scorer, what was chosen on validation."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memrl.checkpoint import CheckpointError, load_checkpoint, load_module
from memrl.config import RunConfig, parse_config
from memrl.policies.base import Contestant
from memrl.policies.network import GreedyGain, SetNetwork
from memrl.policies.prior import PageScorer
from memrl.run_checkpoint import POLICY_GRADIENT
from memrl.run_files import read_config


@dataclass(frozen=True)
class SavedRun:
    """A finished run.

    Attributes:
        config: its resolved configuration.
        policy: greedy play of gain regression's weights that validation chose.
        policy_gradient: the same for its policy gradient, if the run learned by one.
        scorer: the page scorer of its training documents.
        settings: name of a contestant -> what was chosen for it on validation.
        validation: name of a contestant -> its reward per question there.
    """

    config: RunConfig
    policy: GreedyGain
    policy_gradient: GreedyGain | None
    scorer: PageScorer
    settings: dict[str, dict[str, Any]]
    validation: dict[str, float | None]

    def chosen(self, line: Sequence[Contestant]) -> Contestant:
        """The contestant of a line that the run chose on its validation, with its score there.

        Raises:
            CheckpointError: if the line does not hold what was chosen.
        """
        name, settings = line[0].name, self.settings.get(line[0].name, {})
        same = [one for one in line if dict(one.settings) == settings]
        if not same:
            raise CheckpointError(
                f"The run chose {settings} for {name!r}, which its configuration does not try: "
                "score it again with train.py --resume true, without its results.json."
            )
        return replace(same[0], validation=self.validation.get(name))


def load_run(folder: Path) -> SavedRun:
    """Load a finished run folder.

    Raises:
        RunError: if this is not the folder of a run.
        CheckpointError: if the run is not finished, or its files are damaged or of another version.
    """
    results = folder / "results.json"
    if not results.exists():
        raise CheckpointError(
            f"The run {folder} has no results.json: it is not finished; go on with "
            "train.py --resume true."
        )
    read_config(folder)
    config = _config_of(folder)
    tensors, state = load_checkpoint(folder)

    def policy(prefix: str, margin: float) -> GreedyGain:
        size = config.network
        network = SetNetwork(size.hidden, size.dropout, size.slot_pool)
        load_module(network, tensors, prefix)
        return GreedyGain(network, config.learner.gain_scale, margin)

    if "scorer.weight" not in tensors or "scorer" not in state:
        raise CheckpointError(
            f"The checkpoint of {folder} has no page scorer: it is not one of train.py."
        )
    weight = tensors["scorer.weight"].numpy().astype(np.float64)
    try:
        policies = json.loads(results.read_text(encoding="utf-8"))["policies"]
        settings = {policy["name"]: policy["settings"][0] for policy in policies}
        validation = {policy["name"]: policy["validation"][0] for policy in policies}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{results} is damaged, or of another version: delete it and score the run again with "
            "train.py --resume true."
        ) from error
    return SavedRun(
        config=config,
        policy=policy("best.", config.learner.gain_margin),
        policy_gradient=policy(f"{POLICY_GRADIENT}.best.", 0.0)
        if POLICY_GRADIENT in state
        else None,
        scorer=PageScorer(weight, state["scorer"]["bias"], state["scorer"]["penalty"]),
        settings=settings,
        validation=validation,
    )


def _config_of(folder: Path) -> RunConfig:
    """The configuration of a run, whose mistakes are an error and not the end of the program."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            # Where a served model was is the machine's, and nobody asks it again.
            asks_nobody = ["--llm.backend", "local"]
            return parse_config(["--config", str(folder / "config.yaml"), *asks_nobody])
    except SystemExit as error:
        reason = said.getvalue().strip().splitlines()[-1:] or ["no reason given"]
        raise CheckpointError(
            f"{folder / 'config.yaml'} is none of this version ({reason[0]}): load the run with "
            "the memrl that wrote it."
        ) from error
