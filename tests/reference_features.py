"""The slow, obvious model of the observation: one feature of one row at a time, by name."""

from __future__ import annotations

from reference_model import SCALE, ModelEpisode

from memrl.table import QUERY_SURFACE, SURFACE, EpisodeTable

Features = dict[str, float]


def model_rows(
    model: ModelEpisode, table: EpisodeTable, episode: int
) -> tuple[dict[int, Features], dict[int, Features]]:
    """Features of the slot rows and of the candidate rows that hold a page."""
    slots = {}
    for row, page in model.rows().items():
        arrives = page == model.arriving
        came_in = model.passed if arrives else model.came_in[page]
        uses = [] if arrives else model.uses[page]
        slots[row] = _static(model, table, episode, page) | {
            "age": (model.passed - came_in) / model.options.time_scale,
            "since_last_use": (model.passed - max([came_in, *uses])) / model.options.time_scale,
            "uses": len(uses) / 4,
            "retrieved": page in model.retrieved,
            "victim": bool(model.core.main) and page == model.core.main[0],
            "arriving": arrives,
            "from_recall": 0,
            "rank": 0,
        }
    candidates = {}
    for row, page in model.candidates().items():
        only_recall = page not in model.core.archive
        candidates[row] = _static(model, table, episode, page) | {
            "age": 0,
            "since_last_use": 0,
            "uses": 0,
            "retrieved": 0,
            "victim": 0,
            "arriving": 0,
            "from_recall": only_recall,
            "rank": 1 / (1 + row),
        }
        if only_recall:
            candidates[row]["dense"] = 0
    return slots, candidates


def _static(model: ModelEpisode, table: EpisodeTable, episode: int, page: int) -> Features:
    world, focus = model.world, model.focus
    assert focus is not None
    seen = model.core.recall

    def near(scores: list[int], other: int) -> float:
        inside = 0 <= other < len(world.page_tokens)
        return scores[other] / SCALE if inside and model.available(other) else 0.0

    row = table.episode_pages(episode).start + page
    surface = zip(SURFACE, table.page_surface[row].tolist(), strict=True)
    return dict(surface) | {
        "occupied": 1,
        "tokens_share": model.core.size[page] / model.core.capacity,
        "written_ago": len(seen[seen.index(page) + 1 :]) / model.options.time_scale,
        "stored": page in model.core.archive,
        "dense": world.dense[focus][page] / SCALE,
        "lexical": world.lexical[focus][page] / SCALE,
        "previous_dense": near(world.dense[focus], page - 1),
        "next_dense": near(world.dense[focus], page + 1),
        "previous_lexical": near(world.lexical[focus], page - 1),
        "next_lexical": near(world.lexical[focus], page + 1),
        "names_speaker": world.speaker[page] in world.names[focus],
        "prior": float(table.page_prior[row]) / 4,
    }


def model_globals(model: ModelEpisode, table: EpisodeTable, episode: int) -> Features:
    """Entries of `globals`."""
    core, options, focus = model.core, model.options, model.focus
    assert focus is not None
    places = 4 * core.num_slots if core.archival_capacity is None else core.archival_capacity
    at_query = model.phase == "query"
    if focus[0] == "query":
        query_row = int(table.query_offset[table.episode_document[episode]]) + focus[1]
        surface = dict(zip(QUERY_SURFACE, table.query_surface[query_row].tolist(), strict=True))
    else:
        row = table.episode_pages(episode).start + focus[1]
        surface = dict(zip(SURFACE, table.page_surface[row].tolist(), strict=True))
    more = at_query and 0 < options.num_candidates < len(model.ranking) - model.shown_from
    return {
        "under_pressure": model.phase == "pressure",
        "at_query": at_query,
        "focus_is_page": at_query and focus[0] == "page",
        "occupancy": core.occupied() / core.capacity,
        "slots_used": len(core.main) / core.num_slots,
        "archive_fill": len(core.archive) / places if places else 0,
        "elapsed_events": model.passed / options.time_scale,
        "pages_arrived": len(core.recall) / options.time_scale,
        "queries_asked": model.asked / 10,
        "operations_used": model.spent / options.operation_budget,
        "retrieved_share": len(model.retrieved) / 4,
        "candidates_share": len(model.candidates()) / max(options.num_candidates, 1),
        "more_candidates": more,
    } | {f"focus_{name}": surface[name] for name in QUERY_SURFACE}
