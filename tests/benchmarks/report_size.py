"""How long a report over many episode records takes, and how much memory.

    PYTHONPATH=.:tests python tests/benchmarks/report_size.py

Run folders are made up: policies x seeds x episodes are at least as many records as asked for.
Writing them is not counted. Peak memory is that of the whole process, imports included.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import Seconds
from run_folders import QUALITY, write_run

from memrl.evaluation.report.build import write_files
from memrl.evaluation.report.contents import make_report
from memrl.evaluation.report.folders import read_run
from memrl.provenance import collect_provenance

NUM_SEEDS, NUM_DOCUMENTS, NUM_POLICIES = 5, 50, 14


def main() -> None:
    """Print the seconds of each part, and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    arguments = parser.parse_args()
    of_document = -(-arguments.records // (NUM_SEEDS * NUM_POLICIES * NUM_DOCUMENTS))
    others = {f"rule {number}": 0.3 for number in range(NUM_POLICIES - len(QUALITY))}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = [
            write_run(
                root,
                seed=seed,
                documents=NUM_DOCUMENTS,
                episodes=of_document,
                quality=QUALITY | others,
            )
            for seed in range(NUM_SEEDS)
        ]
        reading, counting, writing = Seconds(), Seconds(), Seconds()
        runs = [reading.of(read_run)(folder) for folder in folders]
        report = counting.of(make_report)(runs, mix=False)
        provenance = collect_provenance(sys.argv, {}, {})
        writing.of(write_files)(report, root / "out", provenance)
    count = sum(len(entry.records) for run in runs for entry in run.entries)
    parts = {"read": reading, "numbers": counting, "figures and files": writing}
    told = ", ".join(f"{name} {own.wall:.1f} ({own.cpu:.1f})" for name, own in parts.items())
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux: in KiB
    print(f"{count:,} records, wall (CPU) seconds: {told}; peak {peak_gb:.2f} GB")


if __name__ == "__main__":
    main()
