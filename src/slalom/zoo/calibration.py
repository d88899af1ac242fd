"""Images to calibrate a zoo network with: never the images it will be evaluated on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from slalom.errors import InputError
from slalom.plan.steps import Preprocessing
from slalom.zoo.photos import Photo, find_photos, load_photo


def calibration_photos(directory: Path | None) -> list[Photo]:
    """The photos of a directory; without one, the 40 small CIFAR photos that foolbox carries.

    Raises InputError where neither is there.
    """
    if directory is not None:
        return find_photos(directory)
    found = find_spec("foolbox")
    if found is None or found.origin is None:
        raise InputError("no photos to calibrate with", hint="give --calibration DIR, or install the zoo extra")
    return [Photo(path) for path in sorted((Path(found.origin).parent / "data").glob("cifar10*.png"))]


def load_calibration(photos: list[Photo], preprocessing: Preprocessing) -> np.ndarray:
    """The photos as float32 [N, 3, height, width]."""
    return np.stack([load_photo(photo, preprocessing) for photo in photos])
