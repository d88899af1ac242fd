"""Accuracy on Fashion-MNIST: the float network, and the same network at every protection level.

    python examples/fashion_mnist.py [--images COUNT] [--dataset DIRECTORY] [--cache DIRECTORY]

The network is trained on first use (about two minutes) and kept in the cache. Scales are calibrated on training images;
accuracy is measured on the test images. Every level must give the same numbers, bit for bit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slalom.errors import SlalomError
from slalom.importer import compile as compile_network
from slalom.plan import Plan
from slalom.session import Session
from slalom.trusted.policy import Protection
from slalom.zoo.fashion_mnist import CLASSES, DEBIAN_DIRECTORY, Split, load_split
from slalom.zoo.fashion_net import trained_network

CALIBRATION_COUNT = 512
BATCH_SIZE = 250


@dataclass(frozen=True)
class Row:
    """One way of running the network: its logits [N, 10] and the images per second it took."""

    name: str
    logits: np.ndarray
    images_per_second: float


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table to stdout, and what it is doing to stderr; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        return _measure(options)
    except SlalomError as error:
        _report(f"error: {error}")
        if error.hint is not None:
            _report(f"hint: {error.hint}")
        return error.exit_code


def _measure(options: argparse.Namespace) -> int:
    test = load_split("test", options.dataset)
    train = load_split("train", options.dataset)
    test = Split(test.images[: options.images], test.labels[: options.images])
    network = trained_network(lambda: train, options.cache, _report)
    calibration = torch.from_numpy(train.images[:CALIBRATION_COUNT])
    plan = compile_network(network, (calibration[:2],), calibration.split(64), name="fashion_net", classes=CLASSES)
    rows = [_run_float(network, test)]
    for level in options.levels or list(Protection):
        _report(f"running at protection {level}")
        rows.append(_run_protected(plan, level, test))
    _print_table(rows, test.labels)
    if any(not np.array_equal(row.logits, rows[1].logits) for row in rows[2:]):
        _report("error: the levels do not agree bit for bit")
        return 1
    return 0


def _run_float(network: nn.Module, split: Split) -> Row:
    begin = time.perf_counter()
    with torch.inference_mode():
        logits = [network(batch).numpy() for batch in torch.from_numpy(split.images).split(BATCH_SIZE)]
    return Row("float", np.concatenate(logits), len(split.images) / (time.perf_counter() - begin))


def _run_protected(plan: Plan, level: Protection, split: Split) -> Row:
    logits: list[np.ndarray] = []
    seconds = 0.0
    with Session(plan, protection=level) as session:
        for start in range(0, len(split.images), BATCH_SIZE):
            batch = split.images[start : start + BATCH_SIZE]
            session.prepare_masks(len(batch))
            begin = time.perf_counter()
            outputs = session.run(batch)
            seconds += time.perf_counter() - begin
            logits.append(outputs[0] if isinstance(outputs, tuple) else outputs)
    return Row(level.value, np.concatenate(logits), len(split.images) / seconds)


def _print_table(rows: Sequence[Row], labels: np.ndarray) -> None:
    expected = rows[0].logits.argmax(axis=1)
    print(f"{len(labels)} test images   accuracy   same class as float   images/s")
    for row in rows:
        answers = row.logits.argmax(axis=1)
        accuracy, agreement = np.mean(answers == labels), np.mean(answers == expected)
        print(f"{row.name:<18} {accuracy:>9.2%} {agreement:>21.2%} {row.images_per_second:>10.0f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="accuracy on Fashion-MNIST at every protection level")
    parser.add_argument("--dataset", type=Path, default=DEBIAN_DIRECTORY, help="directory of the four .gz files")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where the trained weights are kept")
    parser.add_argument("--images", type=_count, default=10_000, help="how many of the 10,000 test images")
    parser.add_argument("--levels", type=Protection, nargs="+", metavar="LEVEL", help=", ".join(Protection))
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def _report(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
