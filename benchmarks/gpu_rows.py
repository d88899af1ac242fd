"""The rows of docs/performance.md that need a GPU, one `slalom bench` after another, each with a limit of its own.

    python benchmarks/gpu_rows.py FILE.csv [--only NETWORK,...] [--limit SECONDS] [--commit ID]

What a run that is cut off has measured is kept. Batches and parts are those at which each network was fastest.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from typing import NamedTuple


class Run(NamedTuple):
    """One run of the harness: images a request, parts of it in flight, and what is measured."""

    network: str
    batch: int
    parts: int
    levels: str
    cores: str = "all"
    baselines: str = "none"
    masks: str = "ready"


RUNS = (
    Run("resnet_50", 512, 4, "verified", baselines="gpu"),
    Run("resnet_50", 256, 2, "private"),
    Run("vgg_16", 128, 2, "verified,private", baselines="gpu,torch"),
    Run("vgg_16", 32, 1, "verified,private", cores="1", baselines="torch"),
    Run("mobilenet", 256, 2, "verified,private", baselines="gpu,torch,openvino"),
    Run("mobilenet_sep", 256, 2, "verified,private"),
    Run("vgg_16", 64, 1, "verified,private", cores="4"),
    Run("vgg_16", 128, 2, "private", masks="ready,refilling,dealt"),
)


def command(run: Run, words: argparse.Namespace) -> list[str]:
    """The command line of a run."""
    options = ["--batch-size", run.batch, "--micro-batches", run.parts, "--levels", run.levels, "--cores", run.cores]
    options += ["--baselines", run.baselines, "--masks", run.masks, "--worker-device", "cuda", "--rows-only"]
    options += ["--repeats", 5, "--seconds", 2, "--append", words.file]
    options += ["--commit", words.commit] if words.commit else []
    main = "from slalom.cli import main; main()"
    return [sys.executable, "-c", main, "bench", run.network, *map(str, options)]


def measure(run: Run, words: argparse.Namespace) -> str:
    """Runs it; how it ended."""
    begin = time.monotonic()
    process = subprocess.Popen(command(run, words))
    try:
        code = process.wait(words.limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # the rows so far are appended
        code = process.wait()
    return f"{run.network} {run.batch}/{run.parts} on {run.cores}: exit code {code}, {time.monotonic() - begin:.0f} s"


def main() -> None:
    """Measures all runs, and says how each ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=180.0)
    parser.add_argument("--commit", default="")
    words = parser.parse_args()
    chosen = [run for run in RUNS if not words.only or run.network in words.only.split(",")]
    for line in [measure(run, words) for run in chosen]:
        print(line)


if __name__ == "__main__":
    main()
