"""Accuracy on Fashion-MNIST: trains a small network on first use and measures it on the 10,000 test images.

python examples/fashion_mnist.py [--dataset DIRECTORY] [--cache DIRECTORY]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slalom.errors import SlalomError
from slalom.zoo.fashion_mnist import DEBIAN_DIRECTORY, load_split
from slalom.zoo.fashion_net import accuracy, trained_network


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the accuracy to stdout, and what it is doing to stderr; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        _measure(options.dataset, options.cache)
    except SlalomError as error:
        _report(f"error: {error}")
        if error.hint is not None:
            _report(f"hint: {error.hint}")
        return error.exit_code
    return 0


def _measure(dataset: Path, cache: Path) -> None:
    test = load_split("test", dataset)
    network = trained_network(lambda: load_split("train", dataset), cache, _report)
    print(f"float network: {accuracy(network, test):.2%} of {len(test.labels)} test images")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="accuracy on Fashion-MNIST")
    parser.add_argument("--dataset", type=Path, default=DEBIAN_DIRECTORY, help="directory of the four .gz files")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where the trained weights are kept")
    return parser


def _report(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
