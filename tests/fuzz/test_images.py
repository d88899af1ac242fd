"""Whatever a photo file holds: an InputError, or finite numbers that the trusted side can take."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from slalom.arithmetic.dispatch import make_dispatch
from slalom.plan.steps import Preprocessing
from slalom.trusted.faces import quantise_images
from slalom.trusted.model import make_model
from slalom.zoo.photos import Photo, load_photo
from tests.devices import plan_of
from tests.fuzz.fuzzing import Budget, fuzz, number_words
from tests.mutation import mutate

SIZE = 6  # what the network takes
PREPROCESSING = Preprocessing(SIZE, SIZE, "bicubic", (124.0, 117.0, 104.0), (59.0, 57.0, 58.0))
GIB = 2**30


def photo_files() -> dict[str, bytes]:
    """A small photo in every format and mode that is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    colour = Image.fromarray(pixels[..., :3].copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    deep = Image.fromarray((pixels[..., 0].astype(np.uint16) << 8).copy())
    images = {
        "jpeg": (colour, "JPEG", {"quality": 80, "exif": exif}),
        "progressive": (colour, "JPEG", {"progressive": True}),
        "grey": (colour.convert("L"), "JPEG", {}),
        "png": (Image.fromarray(pixels), "PNG", {}),
        "palette": (colour.quantize(16), "PNG", {"transparency": 3}),
        "deep": (deep, "PNG", {}),
        "webp": (colour, "WEBP", {"lossless": True}),
        "bmp": (colour, "BMP", {}),
        "bits": (colour.convert("1"), "BMP", {}),
    }
    files = {}
    for name, (image, form, options) in images.items():
        with io.BytesIO() as file:
            image.save(file, form, **options)
            files[name] = file.getvalue()
    return files


def test_changed_photos_are_refused_or_read(fuzz_seconds: float, tmp_path: Path) -> None:
    files, model = photo_files(), make_model(plan_of("residual"))
    path, dispatch = tmp_path / "photo", make_dispatch(threads=1)

    def attempt(random: np.random.Generator) -> str:
        name = list(files)[int(random.integers(len(files)))]
        path.write_bytes(mutate(files[name], random, number_words(random)))
        pixels = load_photo(Photo(path), PREPROCESSING)
        assert pixels.dtype == np.float32
        activation = quantise_images(model, pixels[None], dispatch)
        assert activation.shape == (1, SIZE, SIZE, 3)
        return f"{name} read"

    for name, content in files.items():
        path.write_bytes(content)
        assert np.isfinite(load_photo(Photo(path), PREPROCESSING)).all(), name
    outcomes = fuzz(attempt, Budget(fuzz_seconds, 2 * GIB))
    assert all(outcome.startswith("InputError") or outcome.endswith(" read") for outcome in outcomes)
    assert outcomes.total() > 20 * fuzz_seconds
    assert len(outcomes) > 8
