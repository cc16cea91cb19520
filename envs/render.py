"""Two views of an episode in progress: text for a terminal, and an image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from envs.process import PagingProcess, Phase
from memrl.actions import Op
from memrl.memory.paging import EMPTY
from memrl.page_texts import printable

TEXT_WIDTH = 76
"""Characters of a page's text shown in the terminal view."""

_BACKGROUND, _INK, _FAINT, _EMPTY_CELL = "#ffffff", "#1b1b1f", "#75757d", "#eeeef2"
_ARRIVING, _RETRIEVED, _VICTIM, _RESIDENT = "#d9731a", "#2b7bba", "#c23b3b", "#b9b9c4"
_CANDIDATE, _STORED = "#7b6fc4", "#1f7a45"
_LEGEND = (
    ("arriving", _ARRIVING),
    ("retrieved for this query", _RETRIEVED),
    ("victim", _VICTIM),
    ("resident", _RESIDENT),
    ("candidate", _CANDIDATE),
)
_MARKS = "marks: v victim, s stored, r retrieved for this query, a arriving, f focus"
_CELL, _GAP, _LEFT, _COLUMNS, _BAR, _LINE = 34, 6, 16, 16, 5, 22
_WIDTH = 2 * _LEFT + _COLUMNS * (_CELL + _GAP) - _GAP


def render_ansi(process: PagingProcess) -> str:
    """Return the episode as plain text: row, marks, number and text of each page that is shown."""
    pages = process.table.text.pages[process.table.episode_pages(process.episode)]

    def lines_of(rows: list[int]) -> list[str]:
        return [
            f"  {row:>3} {_marks(process, page)} {page:>4} {_clip(pages[page])}"
            for row, page in enumerate(rows)
            if page != EMPTY
        ]

    lines = [_headline(process), f"{_occupancy(process)}:", *lines_of(process.slot_pages())]
    if process.phase is Phase.QUERY:
        lines += [f"{_results(process)}:", *lines_of(process.candidates())]
    lines += [_footer(process), _MARKS]
    return "\n".join(lines)


def render_rgb(process: PagingProcess) -> npt.NDArray[np.uint8]:
    """Return the episode as an (H, W, 3) uint8 image; its size is the same all episode long.

    A cell is a slot or a candidate row with the number of its page; colour says what the page is, a
    bar below that archival holds it, a frame that a search chose it as focus. The framed cell after
    the slots is for the arriving page.
    """
    slots, candidates = process.slot_pages(), process.candidates()
    height = 6 * _LINE + _height_of(len(slots)) + _height_of(len(candidates))
    image = Image.new("RGB", (_WIDTH, height), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    _write(draw, 12, _headline(process), _INK)
    top = 12 + _LINE
    for label, rows in ((_occupancy(process), slots), (_results(process), candidates)):
        if rows:
            _write(draw, top, label, _FAINT)
            _cells(draw, top + _LINE, process, rows)
            top += _LINE + _height_of(len(rows))
    x, y = _place(len(slots) - 1, 12 + 2 * _LINE)
    draw.rectangle((x, y, x + _CELL, y + _CELL), outline=_ARRIVING, width=2)
    _write(draw, top, _footer(process), _INK)
    _legend(draw, top + _LINE + 4)
    return np.asarray(image)


# ---------------------------------------------------------------------- what is said


def _headline(process: PagingProcess) -> str:
    place = f"event {process.event} of episode {process.episode}"
    if process.phase is Phase.PRESSURE:
        return f"{place}: page {process.arriving} has arrived and does not fit"
    if process.phase is Phase.END:
        return f"{place}: the end"
    row = int(process.table.query_offset[process.document]) + int(process.query or 0)
    return f"{place}: {_clip(process.table.text.queries[row], 2 * TEXT_WIDTH)}"


def _occupancy(process: PagingProcess) -> str:
    core = process.core
    used = f"{core.occupied_tokens} of {core.capacity_tokens} {process.options.unit}"
    return f"main context: {used}, {core.num_resident} of {core.num_slots} slots"


def _results(process: PagingProcess) -> str:
    if process.phase is not Phase.QUERY:
        return "candidates: none"
    focus = "the query" if process.focus_is_query else f"page {process.focus_page}"
    return (
        f"candidates: {len(process.ranking)} hits for {focus}, "
        f"page {process.result_page + 1} of the results"
    )


def _footer(process: PagingProcess) -> str:
    log, core = process.log, process.core
    if log.requests:
        return (
            f"requests {log.requests} | hit ratio {log.hits / log.requests:.2f} | "
            f"evictions {core.counts.pages_out}"
        )
    paid = [answer.evidence for answer in log.answers if answer.evidence is not None]
    recall = f"{sum(paid) / len(paid):.2f}" if paid else "-"
    operations = ", ".join(
        f"{op.name.lower()} {log.operations[op]}" for op in Op if op is not Op.YIELD
    )
    return (
        f"archival {core.num_archived} | queries {len(log.answers)} | evidence recall {recall} | "
        f"{operations}"
    )


def _is_searched(process: PagingProcess, page: int) -> bool:
    """Whether a SEARCH at the present query made the page its focus."""
    at_query = process.phase is Phase.QUERY and not process.focus_is_query
    return at_query and page == process.focus_page


def _marks(process: PagingProcess, page: int) -> str:
    return "".join(
        mark if applies else "."
        for mark, applies in (
            ("v", page == process.core.victim),
            ("s", process.core.is_archived(page)),
            ("r", page in process.retrieved),
            ("a", page == process.arriving),
            ("f", _is_searched(process, page)),
        )
    )


def _clip(text: str, width: int = TEXT_WIDTH) -> str:
    """Put a text on one line of at most `width` characters, without control codes of a terminal."""
    flat = printable(text)
    return flat if len(flat) <= width else flat[: width - 3] + "..."


# ---------------------------------------------------------------------- what is drawn


def _height_of(num_cells: int) -> int:
    return -(-num_cells // _COLUMNS) * (_CELL + _GAP) + _GAP


def _place(position: int, top: int) -> tuple[int, int]:
    line, column = divmod(position, _COLUMNS)
    return _LEFT + column * (_CELL + _GAP), top + line * (_CELL + _GAP)


def _write(draw: ImageDraw.ImageDraw, top: int, text: str, color: str) -> None:
    """Write one line, cut where the image ends."""
    font = ImageFont.load_default(size=14)
    room = _WIDTH - 2 * _LEFT
    shown = text
    while draw.textlength(shown, font=font) > room:
        text = text[:-1]
        shown = f"{text.rstrip()}..."
    draw.text((_LEFT, top), shown, fill=color, font=font)


def _color(process: PagingProcess, page: int) -> str:
    if page == process.arriving:
        return _ARRIVING
    if not process.core.is_resident(page):
        return _CANDIDATE
    if page in process.retrieved:
        return _RETRIEVED
    return _VICTIM if page == process.core.victim else _RESIDENT


def _cells(draw: ImageDraw.ImageDraw, top: int, process: PagingProcess, pages: list[int]) -> None:
    font = ImageFont.load_default(size=12)
    for position, page in enumerate(pages):
        x, y = _place(position, top)
        if page == EMPTY:
            draw.rectangle((x, y, x + _CELL, y + _CELL), fill=_EMPTY_CELL)
            continue
        color = _color(process, page)
        draw.rectangle((x, y, x + _CELL, y + _CELL), fill=color)
        if process.core.is_archived(page):
            draw.rectangle((x, y + _CELL - _BAR, x + _CELL, y + _CELL), fill=_STORED)
        if _is_searched(process, page):
            draw.rectangle((x, y, x + _CELL, y + _CELL), outline=_INK, width=3)
        ink = _INK if color == _RESIDENT else _BACKGROUND
        draw.text((x + _CELL / 2, y + _CELL / 2 - 2), str(page), fill=ink, font=font, anchor="mm")


def _legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    font = ImageFont.load_default(size=12)
    x = float(_LEFT)
    for label, color in (*_LEGEND, ("stored", _STORED), ("focus", _BACKGROUND)):
        if label == "stored":
            draw.rectangle((x, top + 12 - _BAR, x + 12, top + 12), fill=color)
        elif label == "focus":
            draw.rectangle((x, top, x + 12, top + 12), outline=_INK, width=2)
        else:
            draw.rectangle((x, top, x + 12, top + 12), fill=color)
        draw.text((x + 17, top - 1), label, fill=_INK, font=font)
        x += 32 + draw.textlength(label, font=font)
