"""What every legal operation would gain over YIELD: training labels from the known needs.

    RETRIEVE  share of the present needs it newly covers, less what its eviction loses, less its
              cost
    NEXT      what the next candidates hold, less what the present ones hold, times
              `staging_realization`, less its cost
    SEARCH    the same for the candidates that the page as focus would stage
    STORE     shares of later queries that need the page while it would be absent and before the
              archive drops it, less retrieving it then, less `room_price` times what the page
              that a full archive drops for it is worth in the same way (`memrl.algos.room`); all
              times `realization`, less its cost
    EVICT     what losing the victim would cost, less what losing this page would; at a query,
              where YIELD evicts nothing, less its cost

What candidates hold is the best share of an absent need among them, less retrieving it. Staging
others gives up the present ones (there is no way back to them), so it is their difference that
counts; going round in circles then sums to nothing but its cost. `realization` and
`staging_realization` are the shares of such later value that a policy which errs will realise; the
second is smaller, because a candidate that does not resemble the query, or is no longer compared
with it, is hard to recognise.

Where a route leads to the evidence (`Query.route`), its next page counts beside the evidence:
retrieving it is worth the share of an absent need, less the SEARCHes and RETRIEVEs that the route
still takes after it (0 at least). RETRIEVE of it gains that less its cost; for NEXT and SEARCH it
is held by the candidates as evidence is, less retrieving it. So SEARCH from the page before it
gains, which stages it. Each page of a route names the next one, so nothing is taken off by
`staging_realization`. That the operation budget may end before the route does is not looked at.

As elsewhere, NEXT looks at the next candidates only, not at all that later turns would show. (With
all of them, nearly every NEXT leads to the target at some price, and the network learns worse when
to stop: nested key-value retrieval, validation reward .73 instead of .81 after two rounds.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from memrl.actions import ActionLayout, Op
from memrl.algos.evidence import Evidence
from memrl.algos.room import archive_events, pushed_out_of_archive
from memrl.foresight import future_value, is_in, shares
from memrl.memory.paging import EMPTY
from memrl.options import PagingOptions
from memrl.privileged import PrivilegedState
from memrl.staging import places_from_pages
from memrl.state import PagingState, TableTensors

_MOST_SCORES = 2**22  # looked up at once; bounds the memory that searches take


def gain_labels(
    privileged: PrivilegedState,
    table: TableTensors,
    options: PagingOptions,
    *,
    realization: float,
    staging_realization: float,
    room_price: float,
) -> Tensor:
    """Gain of each action over YIELD, in reward.

    Args:
        privileged: the hidden truth of B decision points.
        table: the tensors of their table.
        options: resolved options.
        realization, staging_realization, room_price: see the module docstring.

    Returns:
        (B, A) float32; meaningful for legal actions only, 0 for YIELD.
    """
    state, reward = privileged.state, options.reward
    layout = ActionLayout(state.slot_page.shape[1], state.candidate_page.shape[1])
    victim = state.victim_rows()
    victim_page = torch.where(victim, state.slot_page, EMPTY).amax(dim=1, keepdim=True)  # (B, 1)
    gains = torch.zeros((len(victim), layout.num_actions), device=victim.device)
    if options.store_scope == "any":
        value = _stored_value(
            privileged, options, state.slot_page, _queue_place(state), realization
        )
    else:
        now = torch.zeros_like(victim_page)
        value = victim * _stored_value(privileged, options, victim_page, now, realization)
    price = realization * room_price * pushed_out_of_archive(privileged, options)
    gains[:, layout.block(Op.STORE)] = value - price[:, None] - reward.store
    if options.evict_scope == "any" or options.admission == "optional":
        loss = _loss(privileged, options, state.slot_page, realization)  # (B, N)
        victim_loss = _loss(privileged, options, victim_page, realization)
        gains[:, layout.block(Op.EVICT)] = torch.where(
            state.at_query[:, None], -reward.evict - loss, victim_loss - loss
        )
    asked = state.at_query.nonzero()[:, 0]  # nothing else is legal anywhere else
    if len(asked):
        truth = privileged.rows(asked)
        evidence = Evidence.of(truth, reward)
        turned, searched = _restaging_gains(truth, table, options, evidence, staging_realization)
        gains[asked, Op.NEXT] = turned
        gains[asked, layout.block(Op.SEARCH)] = searched
        lost = _pushed_out_loss(truth, options, victim_page[asked], realization)
        retrieved = evidence.gained(truth.state.candidate_page) - lost - reward.retrieve
        if reward.tokens:
            retrieved -= reward.tokens * _candidate_tokens(truth, table, options)
        gains[asked, layout.block(Op.RETRIEVE)] = retrieved
    return gains


def _restaging_gains(
    privileged: PrivilegedState,
    table: TableTensors,
    options: PagingOptions,
    evidence: Evidence,
    staging_realization: float,
) -> tuple[Tensor, Tensor]:
    """(B,) gains of NEXT and (B, N) of SEARCH, both at queries."""
    trusted = torch.where(evidence.route.has_route, 1.0, staging_realization)  # (B,)
    held = evidence.held(privileged.state.candidate_page)
    turned = evidence.held(_next_page(privileged, options)) - held
    searched = _held_by_search(privileged, table, options, evidence) - held[:, None]
    reward = options.reward
    return trusted * turned - reward.next, trusted[:, None] * searched - reward.search


def _pushed_out_loss(
    privileged: PrivilegedState, options: PagingOptions, victim_page: Tensor, realization: float
) -> Tensor:
    """(B, K) what the pages cost that FIFO evicts to let each candidate in; victim_page: (B, 1)."""
    state = privileged.state
    slot_page, slot_size = state.slot_page[:, :-1], state.slot_size[:, :-1]
    over_tokens = slot_size.sum(dim=1, keepdim=True) + state.candidate_size - int(options.capacity)
    is_full = (slot_page >= 0).all(dim=1, keepdim=True)
    if options.unit == "pages":  # one page makes room for one page
        victim_loss = _loss(privileged, options, victim_page, realization)
        return ((over_tokens > 0) | is_full) * victim_loss
    loss = _loss(privileged, options, slot_page, realization)
    order = torch.where(slot_page >= 0, state.slot_sequence[:, :-1], torch.iinfo(torch.int64).max)
    order = order.argsort(dim=1)
    freed = slot_size.gather(1, order).cumsum(dim=1)  # (B, N - 1) by the first n victims
    lost = torch.nn.functional.pad(loss.gather(1, order).cumsum(dim=1), (1, 0))
    num_victims = (freed[:, None] < over_tokens[..., None]).sum(dim=-1) + (over_tokens > 0)
    num_victims = torch.maximum(num_victims, is_full.long()).clamp(max=slot_page.shape[1])
    return lost.gather(1, num_victims)


def _candidate_tokens(
    privileged: PrivilegedState, table: TableTensors, options: PagingOptions
) -> Tensor:
    """(B, K) tokens that each candidate brings in; one larger than main context is truncated."""
    state = privileged.state
    first = table.page_offset[state.document] + state.first_page
    tokens = table.page_tokens[first[:, None] + state.candidate_page.clamp(min=0)]
    return tokens.clamp(max=int(options.capacity)) if options.unit == "tokens" else tokens


def _queue_place(state: PagingState) -> Tensor:
    """(B, N) place in the FIFO queue, 0 for the victim; 0 where nothing is resident.

    Every event brings at most one page, which pushes out about one: the place is also about the
    number of events for which the page stays.
    """
    resident = state.slot_page >= 0
    resident[:, -1] = False
    order = torch.where(resident, state.slot_sequence, torch.iinfo(torch.int64).max)
    return torch.where(resident, order.argsort(dim=1).argsort(dim=1), 0)


def _stored_value(
    privileged: PrivilegedState,
    options: PagingOptions,
    page: Tensor,
    absent_after: Tensor,
    realization: float,
) -> Tensor:
    """(B, M) what an archived copy of each page is expected to bring."""
    value = future_value(
        privileged,
        page,
        absent_after=absent_after,
        evidence_weight=options.reward.evidence,
        retrieve_cost=options.reward.retrieve,
        archive_events=archive_events(privileged, options),
    )
    return realization * value


def _loss(
    privileged: PrivilegedState, options: PagingOptions, page: Tensor, realization: float
) -> Tensor:
    """(B, M) what taking each page out of main context now would cost."""
    state = privileged.state
    archived = state.archived.gather(1, page.clamp(min=0))
    now = torch.zeros_like(page)
    always = torch.full_like(state.clock, torch.inf, dtype=torch.float32)
    gone, kept = (
        future_value(
            privileged,
            page,
            absent_after=now,
            evidence_weight=options.reward.evidence,
            retrieve_cost=cost,
            archive_events=always,
        )
        for cost in (0.0, options.reward.retrieve)
    )
    later = torch.where(archived, gone - kept, realization * gone)
    present = shares(privileged.needs)[:, None] * is_in(page, privileged.needs)
    return later + options.reward.evidence * present


def _next_page(privileged: PrivilegedState, options: PagingOptions) -> Tensor:
    """(B, K) the hits that NEXT would show, -1 where there are none."""
    ranking, state = privileged.ranking, privileged.state
    place = torch.arange(state.candidate_page.shape[1], device=ranking.device)
    place = place + (privileged.result_page[:, None] + 1) * len(place)
    page = ranking.gather(1, place.clamp(max=ranking.shape[1] - 1))
    shows = place < ranking.shape[1]
    if options.stage_from == "archival":  # a full archive may have dropped some since
        shows &= state.archived.gather(1, page.clamp(min=0))
    return torch.where(shows, page, EMPTY)


def _held_by_search(
    privileged: PrivilegedState,
    table: TableTensors,
    options: PagingOptions,
    evidence: Evidence,
) -> Tensor:
    """(B, N) what the first K hits would hold if each slot's page became the focus.

    Searches are scored only where something worth retrieving can be reached at all.
    """
    state, num_candidates = privileged.state, options.num_candidates
    wanted = torch.cat([evidence.absent, evidence.route.target[:, None]], dim=1)
    reachable = wanted != EMPTY
    if options.stage_from == "archival":
        reachable &= state.archived.gather(1, wanted.clamp(min=0))
    worth = (evidence.gained(wanted) - options.reward.retrieve).clamp(min=0.0)
    held = worth.new_zeros((*wanted.shape, state.slot_page.shape[1]))
    episode, column = (reachable & (worth > 0)).nonzero(as_tuple=True)
    if not num_candidates or not len(episode):
        return held.amax(dim=1)
    at_once = max(_MOST_SCORES // (held.shape[2] * state.archived.shape[1]), 1)
    for one, other in zip(torch.split(episode, at_once), torch.split(column, at_once), strict=True):
        searching = state.rows(one)
        focus, page = searching.slot_page, wanted[one, other]
        place = places_from_pages(searching, table, options, focus.clamp(min=0), page)
        shows = (place < num_candidates) & (focus >= 0)
        held[one, other] = shows * worth[one, other, None]
    return held.amax(dim=1)
