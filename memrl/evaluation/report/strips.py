"""One episode as a strip: what lay in each slot while it was played, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memrl.evaluation.report.drawing import (
    GRID,
    INK,
    SERIES,
    Drawing,
    new_figure,
    save,
    theme,
    wrapped,
)
from memrl.evaluation.strip import EpisodeStrip, PlayedStrip, Stay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREEN, _RED = SERIES[0], SERIES[1], SERIES[2], SERIES[4]
_BARS: dict[str, tuple[str, Callable[[Stay], bool]]] = {
    "page": (GRID, lambda stay: not stay.is_retrieved),
    "retrieved page": (_BLUE, lambda stay: stay.is_retrieved and stay.is_needed is not False),
    "retrieved, not needed": (_ORANGE, lambda stay: stay.is_needed is False),
}
_ASIDE = 0.32  # of a slot
_LANE = -1.6  # where answers stand, above the first slot
_PANEL_IN = (1.3, 0.06)  # height of a policy: at least, and of a slot
_MOST_IN = 3.0


def strip(drawn: EpisodeStrip, run: str, key: str) -> Drawing:
    """Slots by events for each player, the first one above.

    Args:
        drawn: the episode. run: folder that it comes from.
    """
    panel = min(max(_PANEL_IN[0], _PANEL_IN[1] * drawn.num_slots + 0.5), _MOST_IN)
    count = len(drawn.players)
    figure = new_figure(panel * count + 0.75)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, player in zip(panels, drawn.players, strict=True):
        _draw(axes, player)
        axes.set_title(wrapped(f"{player.policy}: return {player.episode_return:.2f}", 60))
        axes.set_ylim(drawn.num_slots - 0.4, _LANE - 1.0)
        axes.set_yticks(range(0, drawn.num_slots, max(1, drawn.num_slots // 4)))
        axes.set_xlim(0, drawn.events + 1)
        axes.set_ylabel("slot")
        axes.grid(visible=False)
    panels[-1].set_xlabel("events")
    panels[-1].locator_params(axis="x", integer=True)
    named = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend([*named.values()], [*named], loc="outside lower left", ncols=3, handlelength=1.2)
    told = [_told(player) for player in drawn.players]
    return Drawing(
        key,
        f"Episode {drawn.episode} of {run}, from {drawn.document}, slot by slot; decision by "
        f"decision by python -m memrl.evaluation.replay {run} --episode {drawn.episode}",
        f"{'; '.join(told)}.",
        ["policy", "event", "what", "slot", "page"],
        [row for player in drawn.players for row in _rows(player)],
        figure,
    )


def save_strip(played: EpisodeStrip, run: Path) -> Path:
    """Draw a strip as `strip.svg` and `strip.png` into the folder of its run; the latter's path."""
    with theme():
        return save(strip(played, run.as_posix(), "strip"), run)[1]


def _draw(axes: Axes, player: PlayedStrip) -> None:
    """Bars for pages in slots, and marks for what happened to them."""
    for label, (color, which) in _BARS.items():
        stays = [stay for stay in player.stays if which(stay)]
        if stays:
            axes.barh(
                [stay.slot for stay in stays],
                [max(stay.last - stay.first, 0.5) for stay in stays],
                left=[stay.first for stay in stays],
                height=0.8,
                color=color,
                linewidth=0,
                label=label,
            )
    for is_kept, color in ((True, INK), (False, _RED)):
        label = _how_it_left(player, is_kept=is_kept)
        gone = [(stay.last, stay.slot) for stay in player.stays if stay.is_kept is is_kept]
        _mark(axes, gone, "|", color, label, size=4)
    # A page is stored just before it leaves: beside each other they are both seen.
    stores = [(own.event, own.slot - _ASIDE) for own in player.stores]
    _mark(axes, stores, "^", _GREEN, "store", size=2.2)
    answers = [(own.event, own.evidence) for own in player.answers if own.evidence is not None]
    for low, high, marker, color, label in (
        (1.0, 1.0, "o", _GREEN, "all evidence there"),
        (1e-9, 1.0 - 1e-9, "D", _BLUE, "a part of it"),
        (0.0, 0.0, "x", _RED, "miss"),
    ):
        places = [(event, _LANE) for event, own in answers if low <= own <= high]
        _mark(axes, places, marker, color, label)
    if _is_cache(player):
        came = [(stay.first, _LANE) for stay in player.stays]
        _mark(axes, came, "x", _ORANGE, "miss, the page came in")
    passed_by = [(event, _LANE) for event in player.passed_by]
    _mark(axes, passed_by, "+", _RED, "the page was not let in")


def _is_cache(player: PlayedStrip) -> bool:
    """Whether pages were requested and nothing was asked."""
    return not player.answers


def _how_it_left(player: PlayedStrip, *, is_kept: bool) -> str:
    if _is_cache(player):
        return "evicted"
    return "evicted, stored" if is_kept else "evicted, lost"


def _mark(
    axes: Axes,
    places: Sequence[tuple[float, float]],
    marker: str,
    color: str,
    label: str,
    size: float = 3,
) -> None:
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, linestyle="none", marker=marker, markersize=size, color=color, label=label)


def _told(player: PlayedStrip) -> str:
    if _is_cache(player):
        evicted = sum(stay.is_kept is not None for stay in player.stays)
        return f"{player.policy} lets {len(player.stays)} pages in and evicts {evicted}"
    lost = sum(stay.is_kept is False for stay in player.stays)
    retrieved = sum(stay.is_retrieved for stay in player.stays)
    useless = sum(stay.is_needed is False for stay in player.stays)
    in_vain = f" ({useless} of them not needed)" if useless else ""
    paid = [own.evidence for own in player.answers if own.evidence is not None]
    return (
        f"{player.policy} stores {len(player.stores)} pages, loses {lost} that it did not store, "
        f"retrieves {retrieved}{in_vain} and has {sum(paid):.2f} of the evidence of {len(paid)} "
        "questions"
    )


def _rows(player: PlayedStrip) -> list[list[str]]:
    """What happened, in order."""
    happened: list[tuple[int, str, str, str]] = []
    for own in player.stores:
        happened.append((own.event, "store", str(own.slot), str(own.page)))
    happened += [(event, "not let in", "-", "-") for event in player.passed_by]
    for stay in player.stays:
        if stay.is_retrieved:
            what = "retrieve, not needed" if stay.is_needed is False else "retrieve"
            happened.append((stay.first, what, str(stay.slot), str(stay.page)))
        if stay.is_kept is not None:
            how = _how_it_left(player, is_kept=stay.is_kept)
            happened.append((stay.last, how, str(stay.slot), str(stay.page)))
    for answer in player.answers:
        if answer.evidence is not None:
            happened.append((answer.event, f"answered, evidence {answer.evidence:.2f}", "-", "-"))
    return [[player.policy, str(event), *rest] for event, *rest in sorted(happened)]
