"""Plays `LockstepPaging` and the reference model side by side and compares all that can be seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from reference_core import ModelWorld
from reference_features import model_globals, model_rows
from reference_model import ModelEpisode, Move
from table_fixtures import random_action

from envs.lockstep import LockstepPaging
from memrl.actions import ActionLayout, Op
from memrl.episode_log import FUNNEL_STEPS, REWARD_TERMS
from memrl.memory.paging import EMPTY
from memrl.observation import FEATURES, GLOBALS, LIMIT
from memrl.options import PagingOptions
from memrl.table import EpisodeTable


def mask_of(moves: set[Move], layout: ActionLayout) -> npt.NDArray[np.bool_]:
    """The mask in which exactly these moves are legal, by the documented order of actions."""
    rows = layout.num_rows
    start = {Op.YIELD: 0, Op.NEXT: 1, Op.EVICT: 2, Op.STORE: 2 + rows, Op.SEARCH: 2 + 2 * rows}
    start[Op.RETRIEVE] = 2 + 3 * rows
    mask = np.zeros(2 + 3 * rows + layout.num_candidates, dtype=bool)
    for op, argument in moves:
        mask[start[op] + argument] = True
    return mask


def move_of(action: int, layout: ActionLayout) -> Move:
    if action < 2:
        return Op(action), 0
    if action >= 2 + 3 * layout.num_rows:
        return Op.RETRIEVE, action - 2 - 3 * layout.num_rows
    block, row = divmod(action - 2, layout.num_rows)
    return (Op.EVICT, Op.STORE, Op.SEARCH)[block], row


class SideBySide:
    """B episodes of a table in both worlds."""

    def __init__(self, table: EpisodeTable, options: PagingOptions, episodes: list[int]) -> None:
        self.table, self.options, self.episodes = table, options, episodes
        self.lockstep = LockstepPaging(table, options, len(episodes))
        self.layout = self.lockstep.layout
        self.observation = self.lockstep.reset(episodes)
        self.models = [
            ModelEpisode(ModelWorld.from_table(table, episode), options) for episode in episodes
        ]
        self.is_over = [False] * len(episodes)
        self.num_decisions = 0
        self.check_all()

    def play(self, rng: np.random.Generator, p_illegal: float, max_steps: int = 10_000) -> None:
        """Play random actions to the end of every episode, comparing at every step."""
        for _ in range(max_steps):
            if all(self.is_over):
                return
            masks = self.observation["action_mask"].numpy()
            self.step([random_action(mask, rng, p_illegal=p_illegal) for mask in masks])
        raise AssertionError("the episodes do not end")

    def step(self, actions: list[int]) -> None:
        clocks = [model.passed for model in self.models]
        illegal = [model.illegal for model in self.models]
        result = self.lockstep.step(np.array(actions))
        self.observation = result.observation
        for row, model in enumerate(self.models):
            if self.is_over[row]:
                assert not result.reward_terms[row].any()
                assert not result.terminated[row]
                continue
            self.num_decisions += 1
            terms = model.step(move_of(actions[row], self.layout))
            assert set(terms) <= set(REWARD_TERMS)
            expected = [terms.get(name, 0.0) for name in REWARD_TERMS]
            paid = result.reward_terms[row]
            assert np.abs(paid - expected).max() < 1e-12, (paid.tolist(), expected)
            assert result.terminated[row] == (model.phase == "end")
            assert result.illegal[row] == (model.illegal > illegal[row])
            assert result.elapsed_events[row] == model.passed - clocks[row]
            self.is_over[row] = bool(result.terminated[row])
            self.check(row)

    def check_all(self) -> None:
        for row in range(len(self.models)):
            self.check(row)

    def check(self, row: int) -> None:
        """Compare pages, tiers, log, mask and observation of one row."""
        model, process = self.models[row], self.lockstep.process(row)
        core = process.core
        assert core.queue == model.core.main
        assert core.archive == model.core.archive
        assert list(core.recall) == model.core.recall
        assert core.occupied_tokens <= core.capacity_tokens
        assert core.num_resident <= core.num_slots
        assert process.slot_pages() == self._spread(model.rows(), self.layout.num_rows)
        log = self.lockstep.log(row)
        assert log.operations == model.operations
        assert log.illegal == model.illegal
        answers = [
            (a.query, a.evidence, a.absent, [getattr(a, step) for step in FUNNEL_STEPS])
            for a in log.answers
        ]
        assert answers == model.answers
        assert log.tokens_retrieved == model.tokens_retrieved
        assert log.tokens_read == model.tokens_read
        assert (log.requests, log.hits) == (model.requests, model.hits)
        legal = mask_of(model.legal(), self.layout)
        mask = self.observation["action_mask"][row].numpy()
        assert np.array_equal(mask, legal), {
            move_of(int(action), self.layout): f"mask says {mask[action]}"
            for action in np.flatnonzero(mask != legal)
        }
        if model.phase == "end":
            assert not legal[1:].any()
            return
        candidates = self._spread(model.candidates(), self.layout.num_candidates)
        assert process.candidates() == candidates
        assert process.ranking == model.ranking
        self._check_features(row)

    def _check_features(self, row: int) -> None:
        episode, model = self.episodes[row], self.models[row]
        slots, candidates = model_rows(model, self.table, episode)
        situation = {0: model_globals(model, self.table, episode)}
        for key, names, rows in (
            ("slots", FEATURES, slots),
            ("candidates", FEATURES, candidates),
            ("globals", GLOBALS, situation),
        ):
            seen = self.observation[key][row]
            assert seen.dtype == torch.float32
            seen = seen.reshape(-1, len(names))
            expected = np.zeros(seen.shape)
            for index, features in rows.items():
                assert len(features) == len(names)
                expected[index] = [features[name] for name in names]
            expected = expected.clip(-LIMIT, LIMIT)
            wrong = np.abs(seen.numpy() - expected) > 1e-5
            assert not wrong.any(), [
                (key, int(i), names[j], float(seen[i, j]), float(expected[i, j]))
                for i, j in np.argwhere(wrong)
            ]

    @staticmethod
    def _spread(rows: dict[int, int], length: int) -> list[int]:
        return [rows.get(row, EMPTY) for row in range(length)]
