"""Photos from files as the float32 arrays that a network takes. Needs pillow and numpy, and no torch."""

from __future__ import annotations

import csv
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from slalom.errors import ApiMisuse, InputError
from slalom.plan.steps import Preprocessing

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # no other decoder is let at the bytes, whatever the file is called
_MAXIMUM_PIXELS = 100_000_000
_LABELS_FILE = "labels.csv"
_LABELLED_NAME = re.compile(r"imagenet_\d+_(\d{1,9})")
_LABEL = re.compile(r"\d{1,9}")
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, TypeError, IndexError, KeyError, struct.error)


@dataclass(frozen=True, slots=True)
class Photo:
    """A file, and the class it shows where that is known."""

    path: Path
    label: int | None = None


def find_photos(directory: Path) -> list[Photo]:
    """The photos in `directory` (not below it) by file name, or the one photo that `directory` itself is; never empty.

    Labels come from a `labels.csv` beside them (file name, class number; a heading is allowed), or else from names of
    the form `imagenet_NN_LABEL`. Raises InputError where there is no photo, or where labels.csv cannot be followed.
    """
    if directory.is_file():
        return [Photo(directory, _label_in_name(directory))]
    if not directory.is_dir():
        raise InputError(f"no photos at {directory}: there is no such directory")
    paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in _ENDINGS and path.is_file())
    if not paths:
        raise InputError(f"no photos in {directory}", hint=f"known endings: {', '.join(sorted(_ENDINGS))}")
    table = directory / _LABELS_FILE
    if not table.is_file():
        return [Photo(path, _label_in_name(path)) for path in paths]
    labels = _read_labels(table)
    return [Photo(path, labels.get(path.name)) for path in paths]


def sample_photos() -> list[Photo]:
    """The 20 labelled ImageNet photos of the package foolbox; raises InputError where it is not installed."""
    spec = find_spec("foolbox")  # finds the files without running the package
    directory = Path(spec.origin).parent / "data" if spec is not None and spec.origin is not None else None
    if directory is None or not directory.is_dir():
        raise InputError("the sample photos are not installed", hint="install the zoo extra, see the README")
    photos = [photo for photo in find_photos(directory) if photo.label is not None]
    if not photos:
        raise InputError("the package foolbox holds no sample photos", hint="install the zoo extra, see the README")
    return photos


def load_photo(photo: Photo, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The photo as float32 [3, crop_size, crop_size]: its centre, resized, `(rgb - mean) / deviation`.

    The part of the photo that a resized centre crop shows is resized at once, so that no crop is larger in between. The
    camera's orientation is respected, transparency is laid on white, grey becomes three channels. Raises InputError,
    with the file's name, where the file is missing, broken, of another format or of more than 100 million pixels.
    """
    size = preprocessing.crop_size
    if not 0 < size <= preprocessing.resize_size or preprocessing.interpolation not in _FILTERS:
        raise ApiMisuse("preprocessing must crop at most what it resizes to, by bicubic or bilinear interpolation")
    image = _read_image(photo.path)
    side = min(image.size) * size / preprocessing.resize_size
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    image = image.resize((size, size), _FILTERS[preprocessing.interpolation], box=box)
    mean = np.array(preprocessing.mean, dtype=np.float32)
    deviation = np.array(preprocessing.deviation, dtype=np.float32)
    pixels = (np.asarray(image, dtype=np.float32) - mean) / deviation
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _read_image(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a large or odd file: what cannot be read raises
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > _MAXIMUM_PIXELS:
                    raise InputError(f"{path} has {image.width}x{image.height} pixels, more than 100 million")
                return _as_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has far more than 100 million pixels") from error
    except FileNotFoundError as error:
        raise InputError(f"no photo at {path}") from error
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read as a photo", hint="jpeg, png, webp and bmp can") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, of which pillow would clip all but the darkest
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _label_in_name(path: Path) -> int | None:
    match = _LABELLED_NAME.fullmatch(path.stem)
    return int(match[1]) if match else None


def _read_labels(table: Path) -> Mapping[str, int]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a table") from error
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if number == 1 and len(row) == 2 and not _LABEL.fullmatch(row[1]):
            continue  # the heading
        if len(row) != 2 or not _LABEL.fullmatch(row[1]):
            raise InputError(f"{table}, row {number}: expected a file name and a class number")
        if row[0] in labels or not (table.parent / row[0]).is_file():
            raise InputError(f"{table}, row {number}: {row[0]} is named twice or is not a file beside it")
        labels[row[0]] = int(row[1])
    return labels
