"""Rollouts without a look at the host: the same as `memrl.algos.rollout`, in buffers of fixed size.

One step observes, draws an action for every row that has a decision, writes down what is learned
from, and plays it; it may be compiled, or captured as a CUDA graph (`memrl.algos.tiers`). Whether
all rows have ended is asked once in `CHECK_EVERY` steps.

A step of fixed shape plays a limited number of forced moves, so a row may have to wait for its next
decision; its random numbers are counted by decisions, not by steps, so that it draws what it draws
in the eager rollout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from memrl.actions import Op
from memrl.algos.dataset import INPUTS, DecisionDataset
from memrl.algos.decisions import KINDS, shown_alone
from memrl.algos.rollout import DivergedError, Logits, Rollout
from memrl.algos.tiers import TieredStep, compiled
from memrl.device_memory import RowMemory, naming_what_fits
from memrl.draws import random_uniforms
from memrl.groups import FixedShapeGroup
from memrl.policies.network import log_policy, sample_actions
from memrl.policy_gradient_config import Tier

CHECK_EVERY = 32  # steps
_GROWTH = 1.25


class _Kept:
    """Decisions of one kind, packed without gaps; what does not fit goes into a last, unused row.

    Attributes:
        columns: (capacity + 1, ...) by name. count: () int64, decisions so far.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self.columns: dict[str, Tensor] = {}
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    def write(self, meant: Tensor, columns: dict[str, Tensor]) -> None:
        """Append the rows that are meant, (B,) bool; columns are (B, ...)."""
        place = self.count + meant.cumsum(0) - 1
        place = torch.where(meant, place.clamp(max=self.capacity), self.capacity)
        for name, values in columns.items():
            self.columns[name][place] = values
        self.count += meant.sum()

    def allocate(self, columns: dict[str, Tensor]) -> None:
        """Make room for columns like these."""
        for name, values in columns.items():
            self.columns[name] = values.new_zeros((self.capacity + 1, *values.shape[1:]))


class StaticRollouts:
    """Plays rollouts of one group, again and again, in the same buffers.

    Args:
        group: where they are played. logits: of the policy that plays.
        victim_alone: see `memrl.algos.decisions.shows_victim_alone`.
        tier: a resolved one. backend: of `torch.compile`.
        first_row: number of the group's first row, where the group is a part of several.

    Raises:
        DeviceMemoryError: if the buffers of so many rows do not fit on the device.
    """

    def __init__(
        self,
        group: FixedShapeGroup,
        logits: Logits,
        *,
        victim_alone: bool,
        tier: Tier,
        backend: str = "inductor",
        first_row: int = 0,
    ) -> None:
        self._group = group
        self._logits = logits
        self._victim_alone = victim_alone
        self._tier: Tier = tier
        self._backend = backend
        rows, device = group.num_envs, group.device
        self._row = torch.arange(rows, device=device)
        self._stream = self._row + first_row
        self._seed = torch.zeros((), dtype=torch.int64, device=device)
        self._time = torch.zeros((), dtype=torch.int64, device=device)
        self._running = torch.zeros(rows, dtype=torch.bool, device=device)
        self._is_finite = torch.ones((), dtype=torch.bool, device=device)
        self._drawn = torch.zeros(rows, dtype=torch.int64, device=device)
        self._now = torch.zeros(rows, dtype=torch.int64, device=device)
        self._buffer_bytes = 0.0
        # A guess to begin with: as many decisions at queries as pages that arrive, which is what a
        # policy plays that has learned nothing. More is made room for when it is needed, but then
        # all that has been compiled for these shapes is compiled again.
        events = CHECK_EVERY * math.ceil(int(group.table.episode_num_events.max()) / CHECK_EVERY)
        self._allocate(2 * events, {"pressure": rows * events, "query": rows * events})

    @property
    def tier(self) -> Tier:
        """The tier in use; it may be lower than the one that was asked for."""
        return self._step.tier

    def _allocate(self, num_steps: int, capacity: dict[str, int]) -> None:
        """Make buffers for so many steps, and for so many decisions of each kind."""
        rows, device = self._group.num_envs, self._group.device
        terms = len(self._group.reward_names)
        with naming_what_fits(device, rows, self._group_and_buffers):
            kinds = dict(self._columns(*self._acted()))
            self._buffer_bytes = num_steps * (8.0 * terms + 9.0)  # reward, clock, chose
            for kind, columns in kinds.items():
                decision = sum(values.nbytes for values in columns.values()) / rows
                self._buffer_bytes += capacity[kind] / rows * decision
            self._reward = torch.zeros((num_steps, rows, terms), dtype=torch.float64, device=device)
            self._clock = torch.zeros((num_steps, rows), dtype=torch.int64, device=device)
            self._chose = torch.zeros((num_steps, rows), dtype=torch.bool, device=device)
            self._kept = {kind: _Kept(size, device) for kind, size in capacity.items()}
            for kind, columns in kinds.items():
                self._kept[kind].allocate(columns)
        step = compiled(self._make_step, self._backend)
        self._step = TieredStep(self._make_step, step, self._state, self._tier)

    def _group_and_buffers(self) -> RowMemory:
        """Bytes of a row, while the buffers are being made."""
        held, needed = self._group.row_memory
        return RowMemory(held, needed + self._buffer_bytes)

    def _all_of_it(self) -> RowMemory:
        """Bytes of a row when they are there."""
        held, needed = self._group_and_buffers()
        return RowMemory(held + self._buffer_bytes, needed)

    def _state(self) -> Sequence[Tensor]:
        own = [self._time, self._running, self._is_finite, self._drawn, self._now]
        own += [self._reward, self._clock, self._chose]
        for kept in self._kept.values():
            own += [kept.count, *kept.columns.values()]
        return [*own, *self._group.state()]

    # ------------------------------------------------------------------ a step

    def _acted(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is seen, as it is kept, and `action`, `log_prob` and `chooses`, all (B, ...)."""
        observation = self._group.observation()
        mask = observation["action_mask"]
        halves = {name: observation[name].half() for name in INPUTS}
        logits = self._logits({name: values.float() for name, values in halves.items()})
        chooses = self._running & mask[:, 1:].any(dim=1)
        self._is_finite &= (logits.isfinite() | ~chooses[:, None]).all()
        log_probs = log_policy(logits, mask)
        uniforms = random_uniforms(self._seed, self._stream, self._drawn)
        action = sample_actions(log_probs, uniforms)
        log_prob = log_probs.gather(1, action[:, None])[:, 0]
        acted = {"action": action, "log_prob": log_prob, "chooses": chooses}
        return {**halves, "action_mask": mask}, acted

    def _columns(
        self, seen: dict[str, Tensor], acted: dict[str, Tensor]
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """By kind, what is kept of each row that made a decision of it."""
        action = acted["action"]
        shared = {
            "log_prob": acted["log_prob"],
            "step": self._time.expand(len(action)),
            "row": self._row,
            "number": self._drawn,
        }
        yield "query", {**seen, "action": action, **shared}
        num_rows = self._group.layout.num_rows
        pressed = {**seen, "candidates": seen["candidates"][:, :0]}
        mask = seen["action_mask"][:, : self._group.layout.start(Op.RETRIEVE)]
        if self._victim_alone:
            slot, mask = shown_alone(mask, num_rows)
            shown = slot[:, None, None].expand(-1, 1, seen["slots"].shape[2])
            pressed["slots"] = seen["slots"].gather(1, shown)
            action = torch.where(action < 2, action, 2 + (action - 2) // num_rows)
        yield "pressure", {**pressed, "action_mask": mask, "action": action, **shared}

    def _make_step(self) -> None:
        with torch.no_grad():
            seen, acted = self._acted()
            chooses, at_query = acted["chooses"], self._group.at_query()
            for kind, columns in self._columns(seen, acted):
                meant = chooses & (at_query if kind == "query" else ~at_query)
                self._kept[kind].write(meant, columns)
            self._drawn += chooses
            result = self._group.advance(torch.where(chooses, acted["action"], 0))
            paid = torch.where(self._running[:, None], result.reward_terms, 0.0)
            place = self._time[None]
            self._reward.index_copy_(0, place, paid[None])
            self._clock.index_copy_(0, place, self._now[None])
            self._chose.index_copy_(0, place, chooses[None])
            self._now += torch.where(self._running, result.elapsed_events, 0)
            self._running &= ~result.terminated
            self._time += 1

    # ------------------------------------------------------------------ a rollout

    def play(
        self, episodes: Sequence[int], seed: int, on_step: Callable[[], None] | None = None
    ) -> Rollout:
        """Play one episode in every row; see `memrl.algos.rollout.roll_out`.

        Args:
            episodes: B numbers. seed: of the random numbers. on_step: called now and then.

        Raises:
            DivergedError: if a logit is not finite.
            DeviceMemoryError: if so many rows do not fit on the device.
        """
        with naming_what_fits(self._group.device, self._group.num_envs, self._all_of_it):
            return self._played(episodes, seed, on_step)

    def _played(
        self, episodes: Sequence[int], seed: int, on_step: Callable[[], None] | None
    ) -> Rollout:
        chosen = torch.tensor(list(episodes), dtype=torch.int64, device=self._group.device)
        while not self._plays(chosen, seed, on_step):
            steps, counts = len(self._clock), {}
            if bool(self._running.any()):
                steps *= 2
            for kind, kept in self._kept.items():
                wanted = math.ceil(_GROWTH * int(kept.count))
                counts[kind] = max(kept.capacity, wanted)
            self._tier = self._step.tier  # what failed once is not tried again
            self._allocate(steps, counts)
        steps = int(self._time)
        decisions = {kind: DecisionDataset() for kind in KINDS}
        for kind, kept in self._kept.items():
            if int(kept.count):
                columns = {name: values[: int(kept.count)] for name, values in kept.columns.items()}
                # The order of the eager rollout, where no row waits.
                order = (columns.pop("number") * len(self._row) + columns["row"]).argsort()
                columns = {name: values[order] for name, values in columns.items()}
                inputs = {name: columns.pop(name) for name in INPUTS}
                decisions[kind].append(inputs, columns.pop("action_mask"), **columns)
        grids = (self._reward, self._clock, self._chose)
        return Rollout(decisions, *(grid[:steps].cpu().numpy() for grid in grids))

    def _plays(self, episodes: Tensor, seed: int, on_step: Callable[[], None] | None) -> bool:
        """Play into the buffers as they are; whether they were large enough."""
        self._group.begin(episodes)
        self._seed.fill_(seed)
        self._running.fill_(True)
        self._is_finite.fill_(True)
        for tensor in (self._time, self._drawn, self._now):
            tensor.zero_()
        for kept in self._kept.values():
            kept.count.zero_()
        for _ in range(len(self._clock) // CHECK_EVERY):
            for _ in range(CHECK_EVERY):
                self._step()
            if on_step is not None:
                on_step()
            if not bool(self._is_finite):
                raise DivergedError("the logits of the policy in play are not finite")
            if not bool(self._running.any()):
                return all(int(kept.count) <= kept.capacity for kept in self._kept.values())
        return False
