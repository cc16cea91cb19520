"""A replay in the terminal: step by step under the arrow keys, or as a list."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from memrl.evaluation.replay_steps import Replay, ShownPage, Step, moments_of
from memrl.page_texts import printable

_KEYS = {
    **dict.fromkeys((b"\x1b[C", b"\x1bOC", b" ", b"\r", b"\n"), "next"),
    **dict.fromkeys((b"\x1b[D", b"\x1bOD"), "back"),
    **dict.fromkeys((b"\x1b[B", b"\x1bOB"), "down"),
    **dict.fromkeys((b"\x1b[A", b"\x1bOA"), "up"),
    b"\x1b[6~": "page down",
    b"\x1b[5~": "page up",
    **dict.fromkeys((b"\x1b[H", b"\x1bOH", b"\x1b[1~"), "first"),
    **dict.fromkeys((b"\x1b[F", b"\x1bOF", b"\x1b[4~"), "last"),
    **dict.fromkeys((b"q", b"Q", b"\x1b", b""), "quit"),
}
HELP = "right: on, left: back, home, end, q: quit"
_HELP_SCROLL = "lines {} to {} of {} (up, down, page keys); "
_SCROLL_LINES = {"down": 3, "up": -3, "page down": 20, "page up": -20}
_SEQUENCE = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|(?s:.)")
_BEGUN = re.compile(rb"\x1b(\[[0-9;]*|O)?\Z")
_KEY_S = 0.05  # within which the rest of a key comes
_WIDTH = 120  # where the output is no terminal


def show(replays: Sequence[Replay], console: Console | None = None) -> None:
    """Show replays of one episode, in the order of events.

    Args:
        replays: of one policy, or of several side by side in time.
        console: where; the terminal by default.
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = console or Console(width=None if is_terminal else _WIDTH)
    steps = in_order(replays)
    summaries = [one.summary for one in replays]
    if is_terminal and os.name == "posix":
        _browse(console, steps, summaries)
        return
    for number in range(len(steps)):
        console.print(page_of(steps, number))
    for summary in summaries:
        console.print(Text(printable(summary)))


def in_order(replays: Sequence[Replay]) -> list[tuple[str, Step]]:
    """Every step with the name of its policy, event by event."""
    return [
        (replay.policy, step)
        for moment in moments_of(replays)
        for replay, own in zip(replays, moment.steps, strict=True)
        for step in own
    ]


def page_of(steps: Sequence[tuple[str, Step]], number: int) -> RenderableType:
    """One step; texts are data, and no markup or control code in them has any effect."""
    policy, step = steps[number]
    head = f"{policy} | step {number + 1} of {len(steps)} | event {step.event}"
    parts: list[RenderableType] = [
        Text(printable(head), style="bold reverse"),
        Text(printable(step.headline), style="bold"),
        *(Text(f"  - {printable(line)}", style="dim") for line in step.news),
        *(Text(f"  hidden from policies: {printable(line)}", "magenta") for line in step.truth),
        Text(f"situation: {step.situation}", style="dim"),
    ]
    if step.choices:
        parts.append(_choices(step))
    if step.reward_terms:
        earned = ", ".join(f"{name} {value:+.3f}" for name, value in step.reward_terms.items())
        parts.append(Text(f"earned by the next decision: {earned}"))
    for title, rows in (("main context", step.slots), ("candidates", step.candidates)):
        if rows:
            parts.append(_pages(title, rows))
    return Group(*parts, Text(""))


def _pages(title: str, rows: Sequence[ShownPage]) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    for column in ("row", "page", "marks"):
        table.add_column(column, no_wrap=column != "marks")
    table.add_column("text, and features that are not 0", ratio=1)
    for row in rows:
        what = Text(printable(row.text))
        what.append(f"\n{row.features}", style="dim")
        page = "" if row.page is None else str(row.page)
        table.add_row(str(row.row), page, Text("\n".join(row.marks)), what)
    return table


def _choices(step: Step) -> Table:
    table = Table(title="legal actions", title_justify="left", expand=True)
    for column in ("", "action", "score"):
        table.add_column(column, no_wrap=True, justify="right" if column == "score" else "left")
    table.add_column("about", ratio=1, no_wrap=True, overflow="ellipsis")
    for choice in step.choices:
        score = "-" if choice.score is None else f"{choice.score:+.4f}"
        table.add_row(
            ">" if choice.is_chosen else "",
            choice.name,
            score,
            Text(printable(choice.about)),
            style="bold green" if choice.is_chosen else None,
        )
    return table


# ---------------------------------------------------------------------- keys


def _browse(console: Console, steps: Sequence[tuple[str, Step]], summaries: list[str]) -> None:
    def draw(number: int, top: int) -> int:
        lines, top = window_of(console, page_of(steps, number), top)
        console.clear()
        console.print(lines, end="")
        return top

    descriptor = sys.stdin.fileno()
    with console.screen(hide_cursor=True), _KeysAtOnce(descriptor):
        walk(len(steps), draw, Keys(lambda: os.read(descriptor, 1024), partial(_more, descriptor)))
    for summary in summaries:
        console.print(Text(printable(summary)))


def window_of(console: Console, page: RenderableType, top: int) -> tuple[Group, int]:
    """As many lines of a page as the console has rows, the last of which is for help.

    Args:
        console: what it is shown on. page: any. top: number of the first line.

    Returns:
        The lines with the help, and the number of the first one, which may be less than `top`.
    """
    lines = console.render_lines(page, pad=False)
    rows = max(console.height - 1, 1)
    top = min(top, max(len(lines) - rows, 0))
    shown = lines[top : top + rows]
    scrolls = len(lines) > rows
    where = _HELP_SCROLL.format(top + 1, top + len(shown), len(lines)) if scrolls else ""
    texts = [Segments([*line, Segment.line()]) for line in shown]
    return Group(*texts, Text(where + HELP, style="dim", end="", no_wrap=True)), top


def walk(num_steps: int, draw: Callable[[int, int], int], read: Callable[[], bytes]) -> None:
    """Draw step after step as keys say, until the one that quits or the end of the input.

    Args:
        num_steps: how many there are.
        draw: shows one of them from a line on, and says from which it could.
        read: what the terminal sends for the next key, b"" at its end.
    """
    number = top = 0
    while True:
        top = draw(number, top)
        key = _KEYS.get(read())
        if key == "quit":
            return
        if key in _SCROLL_LINES:
            top = max(top + _SCROLL_LINES[key], 0)
            continue
        places = {"next": number + 1, "back": number - 1, "first": 0, "last": num_steps - 1}
        if key in places:
            number, top = min(max(places[key], 0), num_steps - 1), 0


class Keys:
    """One key a call, of what a terminal sends: several at once, or a key in parts.

    Args:
        read: waits for bytes; b"" at the end of the input. has_more: whether more is there, or
            comes at once: after a lone escape that tells a key from the beginning of one.
    """

    def __init__(self, read: Callable[[], bytes], has_more: Callable[[], bool]) -> None:
        self._read, self._has_more = read, has_more
        self._waiting: list[bytes] = []

    def __call__(self) -> bytes:
        """The next key, b"" at the end of the input."""
        if not self._waiting:
            sent = self._read()
            while _BEGUN.search(sent) and self._has_more():
                more = self._read()
                if not more:
                    break
                sent += more
            self._waiting = _SEQUENCE.findall(sent) or [b""]
        return self._waiting.pop(0)


def _more(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], _KEY_S)[0])


class _KeysAtOnce:
    """A terminal that hands over each key at once and shows none, until the block ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        import termios  # of POSIX systems alone
        import tty

        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor, termios.TCSANOW)

    def __exit__(self, *_: object) -> None:
        import termios

        termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)
