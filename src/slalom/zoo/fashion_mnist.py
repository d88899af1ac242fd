"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60,000 and 10,000 labelled images of clothes, 28x28, grey.

Read from the four files of the original, as Debian's package dataset-fashion-mnist installs them. Needs only numpy.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slalom.errors import InputError

DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
IMAGE_SIZE = 28
_SPLITS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
_UNSIGNED_BYTES = 8  # the type code of the IDX format, beside the number of dimensions
_MEAN = 0.2860  # of the training images, black 0 and white 1
_DEVIATION = 0.3530


@dataclass(frozen=True, slots=True)
class Split:
    """`images`: float32 [N, 1, 28, 28], normalised to mean 0 and deviation 1; `labels`: int64 [N], 0..9."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_split(split: str, directory: Path = DEBIAN_DIRECTORY) -> Split:
    """The images of `split` ("train" or "test") with their labels, in the order of the files.

    Raises InputError where a file is missing, is not gzip, or is not the IDX file of that split.
    """
    if split not in _SPLITS:
        raise InputError(f"no split {split!r}", hint="train or test")
    prefix, count = _SPLITS[split]
    pixels = _read_idx(directory / f"{prefix}-images-idx3-ubyte.gz", (count, IMAGE_SIZE, IMAGE_SIZE))
    labels = _read_idx(directory / f"{prefix}-labels-idx1-ubyte.gz", (count,))
    if labels.max() >= len(CLASSES):
        raise InputError(f"{prefix}-labels-idx1-ubyte.gz has a label above {len(CLASSES) - 1}")
    images = (pixels.astype(np.float32) / np.float32(255) - np.float32(_MEAN)) / np.float32(_DEVIATION)
    return Split(images[:, np.newaxis], labels.astype(np.int64))


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if not path.is_file():
        raise InputError(
            f"Fashion-MNIST is not there: no {path}",
            hint="apt-get install dataset-fashion-mnist, or name the directory of its four .gz files",
        )
    header = bytes((0, 0, _UNSIGNED_BYTES, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)
    size = len(header) + math.prod(shape)
    try:
        with gzip.open(path) as file:
            data = file.read(size + 1)  # no more than one byte beyond, whatever the file unpacks to
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked") from error
    if len(data) != size or not data.startswith(header):
        raise InputError(f"{path} is not the expected file of {' x '.join(map(str, shape))} bytes")
    return np.frombuffer(data, dtype=np.uint8, offset=len(header)).reshape(shape)
