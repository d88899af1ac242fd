"""Photos become the arrays that they should, and whatever is no photo is refused by name."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slalom.errors import ApiMisuse, InputError
from slalom.plan.steps import Preprocessing
from slalom.zoo import photos
from slalom.zoo.photos import Photo, find_photos, load_photo, sample_photos

RAW = Preprocessing(4, 4, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _save(image: Image.Image, path: Path, **options: object) -> Photo:
    image.save(path, **options)
    return Photo(path)


def _corner(image: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in image[:, 0, 0])


def test_a_photo_of_the_crop_size_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = load_photo(_save(Image.fromarray(pixels), tmp_path / "a.png"), RAW)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert np.array_equal(image, pixels.transpose(2, 0, 1).astype(np.float32))


def test_normalisation_is_float32_per_channel(tmp_path: Path) -> None:
    preprocessing = Preprocessing(4, 4, "bicubic", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    image = load_photo(_save(Image.new("RGB", (4, 4), (10, 20, 30)), tmp_path / "a.png"), preprocessing)
    mean = np.array(preprocessing.mean, np.float32)
    deviation = np.array(preprocessing.deviation, np.float32)
    expected = (np.array([10, 20, 30], np.float32) - mean) / deviation
    assert np.array_equal(image, np.broadcast_to(expected[:, None, None], (3, 4, 4)))


@pytest.mark.parametrize("size", [(12, 4), (4, 12), (2000, 4), (1, 1)])
def test_the_crop_is_the_centre(tmp_path: Path, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, RED)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste(BLUE, (left, top, left + side, top + side))
    loaded = load_photo(_save(image, tmp_path / "a.png"), RAW)
    assert loaded.shape == (3, 4, 4)
    assert np.array_equal(loaded, np.broadcast_to(np.float32(BLUE)[:, None, None], (3, 4, 4)))


def test_the_crop_leaves_the_border_of_the_resized_photo_out(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), RED)
    image.paste(GREEN, (2, 2, 6, 6))
    preprocessing = Preprocessing(4, 8, "bilinear", RAW.mean, RAW.deviation)
    loaded = load_photo(_save(image, tmp_path / "a.png"), preprocessing)
    assert np.array_equal(loaded, np.broadcast_to(np.float32(GREEN)[:, None, None], (3, 4, 4)))


def test_the_orientation_of_the_camera_is_respected(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), RED)
    image.paste(BLUE, (0, 2, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    assert _corner(load_photo(_save(image, tmp_path / "a.png", exif=exif), RAW)) == BLUE


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 0x8034, np.uint16)), (128, 128, 128)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("LA", (4, 4), (9, 255)), (9, 9, 9)),
        (
            Image.new(
                "P",
                (4, 4),
                0,
            ),
            (0, 0, 0),
        ),
    ],
    ids=["grey", "black and white", "16 bits", "transparent", "opaque", "grey with alpha", "palette"],
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path: Path, image: Image.Image, expected: tuple[int, ...]) -> None:
    assert _corner(load_photo(_save(image, tmp_path / "a.png"), RAW)) == expected


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp", "bmp", "JPG"])
def test_known_endings_are_found_and_read(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (8, 8), "white").save(tmp_path / f"a.{ending}")
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "folder.png").mkdir()
    (photo,) = find_photos(tmp_path)
    assert _corner(load_photo(photo, RAW)) == (255, 255, 255)


def test_photos_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("c.png", "a.bmp", "b.jpg"):
        Image.new("RGB", (1, 1)).save(tmp_path / name)
    assert [photo.path.name for photo in find_photos(tmp_path)] == ["a.bmp", "b.jpg", "c.png"]


def test_one_file_is_one_photo(tmp_path: Path) -> None:
    path = tmp_path / "imagenet_07_609.png"
    Image.new("RGB", (1, 1)).save(path)
    assert find_photos(path) == [Photo(path, 609)]


@pytest.mark.parametrize(
    ("name", "label"),
    [("imagenet_00_243.png", 243), ("imagenet_3_7.png", 7), ("holiday_12_5.png", None), ("imagenet_243.png", None)],
)
def test_only_names_of_the_known_form_are_labels(tmp_path: Path, name: str, label: int | None) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / name)
    assert find_photos(tmp_path)[0].label == label


@pytest.mark.parametrize("heading", ["", "filename,label\n"])
def test_a_table_of_labels_goes_before_the_names(tmp_path: Path, heading: str) -> None:
    for name in ("imagenet_00_1.png", "b.png"):
        Image.new("RGB", (1, 1)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(f"{heading}b.png, 12\n")
    assert [photo.label for photo in find_photos(tmp_path)] == [12, None]


@pytest.mark.parametrize(
    "table",
    ["b.png,1\nb.png,2\n", "b.png,1\nc.png,2\n", "b.png,1\nb.png,cat\n", "b.png\n", "b.png,-1\nb.png,-1\n", "\xff\n"],
)
def test_a_table_that_cannot_be_followed_is_refused(tmp_path: Path, table: str) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(InputError, match=r"labels\.csv"):
        find_photos(tmp_path)


def test_no_directory_and_no_photo_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        find_photos(tmp_path / "missing")
    with pytest.raises(InputError, match="no photos in"):
        find_photos(tmp_path)
    with pytest.raises(InputError, match=r"gone\.png"):
        load_photo(Photo(tmp_path / "gone.png"), RAW)


def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="GIF")
    (tmp_path / "b.jpg").write_bytes(b"")
    for name in ("a.png", "b.jpg"):
        with pytest.raises(InputError, match=name):
            load_photo(Photo(tmp_path / name), RAW)


@pytest.mark.parametrize("width", [1001, 4001])
def test_a_photo_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    photo = _save(Image.new("1", (width, 1000)), tmp_path / "large.png")
    monkeypatch.setattr(photos, "_MAXIMUM_PIXELS", 1_000_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # pillow warns above it and raises above twice that
    with pytest.raises(InputError, match=r"large\.png"):
        load_photo(photo, RAW)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp"])
def test_a_damaged_photo_is_read_or_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    pixels = np.random.default_rng(2).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=Image.Exif())
    whole = path.read_bytes()
    chance = random.Random(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole[: chance.choice((len(whole), chance.randrange(len(whole))))])
        for _ in range(chance.randrange(1, 8)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            assert load_photo(Photo(path), RAW).shape == (3, 4, 4)
        except InputError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(5, 4, "bilinear", RAW.mean, RAW.deviation),
        Preprocessing(0, 4, "bilinear", RAW.mean, RAW.deviation),
        Preprocessing(4, 4, "nearest", RAW.mean, RAW.deviation),
    ],
)
def test_preprocessing_without_meaning_is_refused(tmp_path: Path, preprocessing: Preprocessing) -> None:
    with pytest.raises(ApiMisuse):
        load_photo(_save(Image.new("RGB", (4, 4)), tmp_path / "a.png"), preprocessing)


@pytest.mark.skipif(find_spec("foolbox") is None, reason="the sample photos come with slalom[zoo]")
def test_the_sample_photos_are_twenty_and_labelled() -> None:
    samples = sample_photos()
    assert len(samples) == 20
    assert samples[0].path.name.startswith("imagenet_00_")
    assert all(photo.label is not None and photo.label < 1000 for photo in samples)


def test_absent_sample_photos_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "find_spec", lambda _name: None)
    with pytest.raises(InputError) as caught:
        sample_photos()
    assert "zoo extra" in str(caught.value.hint)
