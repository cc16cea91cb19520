"""`FixedShapePaging`: a step without a look at the host, for compilers and captured graphs.

Everything is computed for all rows and written where it is meant; a step plays at most `rounds`
rounds of forced moves and makes at most `max_searches` searches. A row that has then no decision
yet *waits*: its action of the next step is ignored, its forced moves go on, and what it has earned
is paid when it reaches a decision or its episode ends. Decision by decision, a row's episode is the
same as in `BatchedPaging`, for any number of rounds and of searches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from envs.batched_episodes import EpisodeRows
from envs.batched_rows import Rows
from envs.draws import EpisodeDraws
from envs.lockstep import GroupStep
from memrl.episode_log import REWARD_TERMS
from memrl.options import PagingOptions
from memrl.table import EpisodeTable

# In a step of generated chats one row in fourteen searches if it only yields, and three in ten
# under random legal play.
_ROWS_PER_SEARCH = 4


class FixedShapePaging(EpisodeRows):
    """B rows that begin the next episode by themselves, if they are told which.

    Args:
        table, options, num_envs, device, compact: see `EpisodeRows`.
        rounds: most rounds of forced moves in a step; 1 or more.
        max_searches: most searches in a step, 1 or more, because they cost the most; a row that is
            to search waits for its turn. None for a quarter of the rows.
        draws: say what each row plays next; None lets rows that have ended stay so.
    """

    def __init__(
        self,
        table: EpisodeTable,
        options: PagingOptions,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        rounds: int = 2,
        max_searches: int | None = None,
        draws: EpisodeDraws | None = None,
        compact: bool = False,
    ) -> None:
        if rounds < 1:
            raise ValueError(f"rounds must be 1 or more, got {rounds}.")
        if max_searches is not None and max_searches < 1:
            raise ValueError(f"max_searches must be 1 or more, got {max_searches}.")
        most = min(max_searches or math.ceil(num_envs / _ROWS_PER_SEARCH), num_envs)
        super().__init__(
            table, options, num_envs, device, rounds, max_searches=most, compact=compact
        )
        self._draws = draws
        self._all = torch.arange(num_envs, device=self.device)
        # The clock at the row's latest decision, -1 before the first one of its episode.
        self._decided_at = torch.full_like(self._all, -1)
        # Rows whose end has been reported; none where the next episode begins at once.
        self._has_ended = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        # What is to be reported of this step.
        self._terminated = torch.zeros_like(self._has_ended)
        self._paid = torch.zeros(
            (num_envs, len(REWARD_TERMS)), dtype=torch.float64, device=self.device
        )
        self._elapsed = torch.zeros_like(self._all)

    def begin(self, episodes: Tensor) -> None:
        """Begin the given episodes, (B,), in all rows."""
        self._process.begin(Rows(self._all), episodes)
        self._process.settle()
        self._has_ended.zero_()
        self._decided_at.fill_(-1)
        self._note_decisions()

    def advance(self, action: Tensor) -> GroupStep:
        """Play one action in every row that has a decision; rows that wait earn 0 for now.

        A row whose episode has ended stands in the next one already, if there is one.

        Args:
            action: (B,) int64 on the device; one outside the action space counts as illegal,
                because to refuse it would take a look at it.
        """
        process, batch = self._process, self._process.batch
        plays = process.has_choice
        is_action = (action >= 0) & (action < self.layout.num_actions)
        action = torch.where(is_action, action, 0)
        is_legal = is_action & process.mask.gather(1, action[:, None])[:, 0]
        illegal = plays & ~is_legal
        action = torch.where(illegal, 0, action)
        self._terminated.zero_()
        self._paid.zero_()
        self._elapsed.zero_()
        process.play(
            self._op_of[action],
            self._argument_of[action],
            plays,
            illegal,
            waiting=~plays & ~batch.due & ~batch.ended & ~batch.to_search,
            between=self._begin_next,
        )
        # What was earned before the first decision is paid with it, as in the other environments.
        self._pay(process.has_choice & (self._decided_at >= 0))
        self._note_decisions()
        return GroupStep(self._paid, self._terminated, illegal, self._elapsed)

    def _begin_next(self) -> None:
        """Pay rows that have ended, and put them before the first event of their next episode.

        At most once a step: a step reports one end.
        """
        ended = self._process.batch.ended & ~self._terminated & ~self._has_ended
        self._pay(ended)
        self._terminated |= ended
        if self._draws is None:
            self._has_ended |= ended
            return
        self._process.begin(Rows(self._all, ended), self._draws.next(ended))
        self._decided_at.masked_fill_(ended, -1)

    def _note_decisions(self) -> None:
        process = self._process
        self._decided_at.copy_(
            torch.where(process.has_choice, process.batch.clock, self._decided_at)
        )

    def _pay(self, rows: Tensor) -> None:
        """Report what the given rows, (B,) bool, have earned; rows that restarted keep theirs."""
        batch = self._process.batch
        rows = rows & ~self._terminated
        self._paid += self._process.take_earned(rows)
        has_decided = rows & (self._decided_at >= 0)
        self._elapsed += torch.where(has_decided, batch.clock - self._decided_at, 0)

    def state(self) -> list[Tensor]:
        """Every tensor that `advance` changes; none of them is ever replaced by another."""
        own = [self._terminated, self._paid, self._elapsed, self._process.first_to_search]
        if self._draws is not None:
            own.append(self._draws.count)
        return [*own, *(tensor for tensor, _ in self._row_tensors().values())]

    def _row_tensors(self) -> dict[str, tuple[Tensor, int]]:
        own = {"decided_at": (self._decided_at, 0), "has_ended": (self._has_ended, 0)}
        return super()._row_tensors() | own
