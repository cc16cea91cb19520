"""The data sets: what is there, what is in it, and how to get it.

    python -m envs.workloads                        # all data sets: here? published where, licence
    python -m envs.workloads --check                # reads all that is there
    python -m envs.workloads locomo babi            # reads these, with repairs and sha256
    python -m envs.workloads --fetch musique        # downloads what the loader reads
    python -m envs.workloads --fetch '2wikimultihopqa/2wiki*'            # some of the files
    python -m envs.workloads --fetch 'lost_in_the_middle/qa_data/20*'    # large ones: by name only

A file's version is known by its sha256: official as published, repackaged for a known part or other
form, unknown otherwise. Fetching checks it, goes on where it was cut, and replaces nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from envs.workloads.catalogue import DATA_SETS, DataSet
from envs.workloads.checking import Checked, check
from envs.workloads.data_terminal import (
    print_checks,
    print_details,
    print_fetched,
    print_listing,
    print_problems,
)
from envs.workloads.fetch import chosen_files, fetch
from envs.workloads.files import DATA_DIR_VARIABLE, find_data_file
from memrl.errors import MemrlError
from memrl.progress import progress_bar, transfer_bar


class UsageError(MemrlError):
    """The command line asks for what there is not."""


def named(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        UsageError: there is none.
    """
    for data_set in DATA_SETS:
        if data_set.name == name:
            return data_set
    names = ", ".join(data_set.name for data_set in DATA_SETS)
    raise UsageError(f"There is no data set {name!r}; there are {names}.")


def fetch_files(wanted: Sequence[str], root: Path) -> list[DataSet]:
    """Fetch data sets, or some files of them (`<data set>/<pattern>`); returns the data sets."""
    chosen = []
    for want in wanted:
        name, _, pattern = want.partition("/")
        data_set = named(name)
        source = data_set.parts[0].source  # all of a data set lie in one folder
        chosen.append((data_set, source, chosen_files(source, pattern or None)))
    for data_set, source, files in chosen:
        licences = dict.fromkeys(part.source.licence for part in data_set.parts)
        print(f"{data_set.name} (licence: {'; '.join(licences)})")
        for file in files:
            with transfer_bar(file.name) as show:
                fetched = fetch(source, file, root, show)
            print_fetched(file, fetched)
    return list(dict.fromkeys(data_set for data_set, _, _ in chosen))


def check_all(data_sets: Sequence[DataSet], root: Path) -> list[Checked]:
    """Read all parts whose files are there."""
    parts = [part for data_set in data_sets for part in data_set.parts if part.is_whole(root)]
    checks = []
    with progress_bar("reading", len(parts)) as advance:
        for part in parts:
            checks.append(check(part, root))
            advance(1)
    return checks


def check_named(data_sets: Sequence[DataSet], root: Path) -> list[Checked]:
    """Read data sets, of each at least one part.

    Raises:
        DataFileMissingError: of one no part is there.
    """
    for data_set in data_sets:
        if not any(part.is_whole(root) for part in data_set.parts):
            part = max(data_set.parts, key=lambda part: len(part.present(root)))
            for names in part.files:
                find_data_file(root, part.source, names)
    return check_all(data_sets, root)


def incomplete_parts(data_sets: Sequence[DataSet], root: Path) -> list[str]:
    """What of each part is there, of those of which some files are there and others are not."""
    return [
        f"{data_set.name} {part.name}".rstrip()
        + f" has {len(part.present(root))} of {len(part.files)} files"
        for data_set in data_sets
        for part in data_set.parts
        if 0 < len(part.present(root)) < len(part.files)
    ]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m envs.workloads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets to read")
    parser.add_argument(
        "--check", action="store_true", help="read the data sets named, or all that are there"
    )
    parser.add_argument(
        "--fetch", nargs="+", metavar="NAME[/PATTERN]", help="data sets, or files, to download"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"the data folder; without it the one that {DATA_DIR_VARIABLE} names",
    )
    return parser.parse_intermixed_args()  # names stand before or after --check


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; exit status 1 where something is damaged or missing."""
    given = arguments.data_dir or os.environ.get(DATA_DIR_VARIABLE)
    asked = [named(name) for name in arguments.names]
    reads = bool(asked or arguments.check)
    if not given:
        if reads or arguments.fetch:
            raise UsageError(f"No data folder: pass --data-dir or set {DATA_DIR_VARIABLE}.")
        print_listing(DATA_SETS, None)
        return 0
    root = Path(given).expanduser()
    fetched = fetch_files(arguments.fetch, root) if arguments.fetch else []
    if not reads:
        print_listing(fetched or DATA_SETS, root)
        return 0
    if not root.is_dir():
        raise UsageError(
            f"There is no data folder {root}: create it, or pass --data-dir or set "
            f"{DATA_DIR_VARIABLE} to the one that holds the data sets."
        )
    checks = check_named(asked, root) if asked else check_all(DATA_SETS, root)
    incomplete = incomplete_parts(asked or DATA_SETS, root)
    if not checks and not incomplete:
        raise UsageError(f"No data set is below {root}: --fetch NAME downloads one.")
    if asked:
        for checked in checks:
            print_details(checked)
    print_checks(checks)
    print_problems(checks, incomplete)
    return int(bool(incomplete) or any(checked.damage for checked in checks))


def main() -> int:
    """Exit status 0, 1 on errors, 130 after Ctrl-C."""
    try:
        return run(parse_arguments())
    except (MemrlError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
