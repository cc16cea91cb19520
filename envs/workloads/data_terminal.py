"""Data sets in the terminal: where they are, what is in them, what was fetched."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from envs.workloads import describe, version_warning
from envs.workloads.catalogue import DataSet, Part
from envs.workloads.checking import Checked, tally
from envs.workloads.fetch import RECORD, Fetched
from envs.workloads.files import DATA_DIR_VARIABLE
from envs.workloads.known_files import PublishedFile

WIDTH = 100
"""Columns of text, where the output is no terminal that has its own."""

_STYLES = {"official": "", "repackaged": "", "unknown": "yellow", "damaged": "bold red"}
_MOST_PARTS = 4  # that are listed one by one


def console() -> Console:
    """For standard output; nothing in it is taken for markup."""
    is_terminal = sys.stdout.isatty()
    return Console(width=None if is_terminal else WIDTH, markup=False, highlight=False)


# ---------------------------------------------------------------------- where they are


def print_listing(data_sets: Sequence[DataSet], root: Path | None) -> None:
    """Print for each data set what of it is there, where it is published and its licence.

    Args:
        data_sets: which. root: the data folder; None where there is none.
    """
    table = Table.grid(padding=(0, 2))
    for data_set in data_sets:
        sources = list(dict.fromkeys(part.source for part in data_set.parts))
        table.add_row(Text(data_set.name, style="bold"), "here", _here(data_set, root))
        table.add_row("", "source", "; ".join(source.published for source in sources))
        table.add_row("", "licence", "; ".join(source.licence for source in sources))
        table.add_row()
    out = console()
    out.print(table)
    if root is None:
        out.print(f"No data folder to look in: pass --data-dir or set {DATA_DIR_VARIABLE}.")
        return
    number = sum(_is_here(data_set, root) for data_set in data_sets)
    missing = "; --fetch NAME downloads one" if number < len(data_sets) else ""
    out.print(f"{number} of {len(data_sets)} data sets are below {root}{missing}.", soft_wrap=True)


def _is_here(data_set: DataSet, root: Path) -> bool:
    return any(part.is_whole(root) for part in data_set.parts)


def _here(data_set: DataSet, root: Path | None) -> Text:
    """What is there of a data set, and which parts are not."""
    parts = data_set.parts
    if root is None or not any(part.present(root) for part in parts):
        return Text("nothing", style="dim")
    if len(parts) > _MOST_PARTS:
        whole = sum(part.is_whole(root) for part in parts)
        return Text(f"{whole} of {len(parts)} files", style="green")
    texts = [_part_here(part, root) for part in parts if part.present(root)]
    missing = [part.name for part in parts if not part.present(root)]
    if missing:
        texts.append(Text(f"no {', no '.join(missing)}", style="dim"))
    return Text("; ").join(texts)


def _part_here(part: Part, root: Path) -> Text:
    found, wanted = part.present(root), len(part.files)
    if len(found) < wanted:
        text = Text(f"only {len(found)} of {wanted} files", style="yellow")
    else:
        text = Text(found[0].name if wanted == 1 else f"{wanted} files", style="green")
    return Text(f"{part.name}: ") + text if part.name else text


# ---------------------------------------------------------------------- what is in them


def print_checks(checks: Sequence[Checked]) -> None:
    """Print a row for each part that was read, and below what is wrong."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    for column in ("data set", "part"):
        table.add_column(column, no_wrap=True)
    for column in ("documents", "queries,\nrequests", "repaired", "dropped", "derived"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("files")
    table.add_column("s", no_wrap=True, justify="right")
    before = ""
    for checked in checks:
        name = checked.part.source.folder
        shown = name if name != before else ""
        seconds = f"{checked.seconds:.1f}"
        table.add_row(shown, checked.part.name, *_counts(checked), _versions(checked), seconds)
        before = name
    console().print(table)


def _counts(checked: Checked) -> list[str]:
    """Documents, queries or requests, and what was repaired, dropped and derived."""
    workload = checked.workload
    if workload is None:
        return ["-"] * 5
    queries = sum(len(document.queries) for document in workload.documents)
    requests = sum(map(len, workload.streams))
    documents = "-" if workload.streams else f"{len(workload.documents):,}"
    return [documents, *(f"{count:,}" for count in (queries + requests, *tally(workload.repairs)))]


def _versions(checked: Checked) -> Text:
    if checked.damage:
        return Text("damaged", style=_STYLES["damaged"])
    counts = Counter(own["version"] for own in checked.files.values())
    versions = [Text(f"{count} {name}", style=_STYLES[name]) for name, count in counts.items()]
    return Text(", ").join(versions)


def print_details(checked: Checked) -> None:
    """Print what a part holds, what was mended and dropped, and the sha256 of each file."""
    out = console()
    title = " / ".join(filter(None, (checked.part.source.folder, checked.part.name)))
    out.rule(Text(title, style="bold"), align="left")
    out.print(f"published  {checked.part.source.published}")
    out.print(f"licence    {checked.part.source.licence}")
    if checked.workload is not None:
        # Without the warning of an unknown version, which stands at each file.
        out.print(describe(replace(checked.workload, provenance={})))
    for name, own in sorted(checked.files.items()):
        out.print(Text(f"{own['version']}  {name}", style=_STYLES[own["version"]]))
        out.print(f"    sha256 {own['sha256']}")
    out.print()


def print_problems(checks: Sequence[Checked], incomplete: Sequence[str]) -> None:
    """Print a line for all that is wrong, to standard error.

    Args:
        checks: of them what is damaged, and in one line the files of an unknown version.
        incomplete: which parts lack some of their files.
    """
    for checked in checks:
        if checked.damage:
            print(f"damaged: {checked.damage}", file=sys.stderr)
    for what in incomplete:
        print(f"incomplete: {what}: it was not read; fetch it again.", file=sys.stderr)
    whole = (checked for checked in checks if not checked.damage)
    unknown = [f"{own.part.source.folder}/{name}" for own in whole for name in own.unknown]
    if unknown:
        print(f"warning: {version_warning(unknown)}", file=sys.stderr)


# ---------------------------------------------------------------------- what was fetched


def print_fetched(file: PublishedFile, fetched: Fetched) -> None:
    """Print what became of a file that was to be fetched."""
    if fetched.state == "kept":
        what = "another version is there; move it away to fetch the published one"
    elif fetched.state == "fetched" and file.sha256 is None:
        what = f"no published sha256 is known to compare with; recorded in {RECORD}"
    else:
        what = "as published"
    if fetched.members:
        what += f"; {len(fetched.members)} files"
    print(f"{fetched.state:>9}  {fetched.name}")
    print(f"{'':9}  sha256 {fetched.sha256}\n{'':9}  {what}")
