"""From bytes to a product: decoder, encoder and recognizer together, on drawn things and on real photos."""

import csv
import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from guidelens.config import RecognizerConfig
from guidelens.data.images.decoding import decode_image
from guidelens.encoders.image import ImageEncoder, load_image_encoder
from guidelens.models.recognizer import Recognizer
from guidelens.models.recognizer_fit import fit_recognizer

DATA = Path(os.environ.get("GUIDELENS_DATA", Path(__file__).parents[2].parent / "shared/data")) / "grocery-store" / "dataset"
NUM_THINGS, VIEWS = 6, 6
COLOURS = [(200, 40, 40), (40, 140, 60), (40, 60, 200), (220, 180, 40), (150, 50, 170), (60, 170, 180)]


@cache
def encoder() -> ImageEncoder:
    return load_image_encoder()


def jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def embed(photos: Sequence[bytes]) -> np.ndarray:
    return np.concatenate([encoder().embed(decode_image(photo)[None]) for photo in photos])


def thing(number: int, view: int) -> bytes:
    """A shape with a label on it, on a plain table, from one of several sides."""
    random = np.random.default_rng(100 * number + view)
    image = Image.new("RGB", (360, 300), tuple(int(v) for v in random.integers(150, 250, 3)))
    pen = ImageDraw.Draw(image)
    cx, cy, r = 180 + int(random.integers(-20, 20)), 150 + int(random.integers(-20, 20)), 85 + int(random.integers(-12, 12))
    if number % 2:
        pen.rounded_rectangle((cx - r, cy - r, cx + r, cy + r), 20, fill=COLOURS[number])
    else:
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=COLOURS[number])
    for stripe in range(number % 3 + 1):
        pen.line((cx - r // 2, cy - 30 + 25 * stripe, cx + r // 2, cy - 30 + 25 * stripe), fill=(255, 255, 255), width=7)
    return jpeg(image.rotate(float(random.uniform(-20, 20)), fillcolor=image.getpixel((0, 0))))


@cache
def drawn_shop() -> Recognizer:
    rows = np.repeat(np.arange(NUM_THINGS), VIEWS)
    photos = [thing(number, view) for number in range(NUM_THINGS) for view in range(VIEWS)]
    return fit_recognizer(embed(photos), rows, np.zeros(len(rows), bool), NUM_THINGS, RecognizerConfig(), 0)


def test_drawn_things_are_recognised_from_new_sides() -> None:
    rows = np.repeat(np.arange(NUM_THINGS), 3)
    answers = drawn_shop().recognize(embed([thing(number, VIEWS + view) for number in range(NUM_THINGS) for view in range(3)]))
    assert np.mean([answer.product_rows[0] == row for answer, row in zip(answers, rows, strict=True)]) >= 0.8
    assert np.mean([answer.in_catalogue for answer in answers]) >= 0.75


def empty_scenes() -> dict[str, bytes]:
    """What a camera sees when it points at nothing; none is drawn the way the recognizer's own backgrounds are."""
    random = np.random.default_rng(3)
    shade = np.linspace(90, 200, 400)[None, :, None] * np.array([1.0, 0.95, 0.9]) + random.normal(0, 4, (300, 400, 3))
    bricks = np.full((300, 400, 3), (150, 80, 60), np.uint8)
    for course in range(0, 300, 30):
        bricks[course : course + 3] = 190
        for brick in range(course // 30 % 2 * 35, 400, 70):
            bricks[course : course + 30, brick : brick + 3] = 190
    smear = (
        Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((400, 300), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(15))
    )
    return {
        "shaded wall": jpeg(Image.fromarray(shade.clip(0, 255).astype(np.uint8))),
        "static": jpeg(Image.fromarray(random.integers(0, 255, (300, 400, 3), dtype=np.uint8))),
        "black": jpeg(Image.new("RGB", (400, 300))),
        "white": jpeg(Image.new("RGB", (400, 300), (255, 255, 255))),
        "bricks": jpeg(Image.fromarray(bricks)),
        "out of focus": jpeg(smear),
        "gray grain": jpeg(Image.fromarray(cv2.cvtColor(random.normal(128, 25, (300, 400)).clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB))),
    }


@pytest.mark.parametrize("scene", sorted(empty_scenes()))
def test_an_empty_scene_is_not_in_the_catalogue(scene: str) -> None:
    assert not drawn_shop().recognize(embed([empty_scenes()[scene]]))[0].in_catalogue


@pytest.mark.shared_data
@pytest.mark.skipif(not DATA.is_dir(), reason="the grocery photos are not here; set GUIDELENS_DATA to the folder that holds grocery-store")
def test_real_groceries_are_recognised_by_photos_of_other_visits() -> None:
    """Every sixth training photo of each product, against every third photo of val: a floor, not the reported figure."""
    train, val = (_listed(name) for name in ("train", "val"))
    seen = [one for number in range(81) for one in [pair for pair in train if pair[1] == number][::6]]
    asked = val[::3]
    rows = np.array([number for _, number in seen])
    recognizer = fit_recognizer(embed([(DATA / path).read_bytes() for path, _ in seen]), rows, np.zeros(len(rows), bool), 81, RecognizerConfig(), 0)
    answers = recognizer.recognize(embed([(DATA / path).read_bytes() for path, _ in asked]))
    assert np.mean([answer.product_rows[0] == number for answer, (_, number) in zip(answers, asked, strict=True)]) >= 0.55
    assert np.mean([number in answer.product_rows for answer, (_, number) in zip(answers, asked, strict=True)]) >= 0.8
    assert np.mean([answer.in_catalogue for answer in answers]) >= 0.75
    walls = [empty_scenes()[name] for name in ("shaded wall", "static", "bricks")]
    assert not any(answer.in_catalogue for answer in recognizer.recognize(embed(walls)))


def _listed(name: str) -> list[tuple[str, int]]:
    with (DATA / f"{name}.txt").open(encoding="utf-8") as lines:
        return [(row[0].strip(), int(row[1])) for row in csv.reader(lines)]
