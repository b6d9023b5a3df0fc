"""Texts on packages: read from frames as cameras take them, matched with what products are called, and weighed beside what the image looks like."""

import importlib.util
import io

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from guidelens.data.images.packaging_text import TextReader
from guidelens.errors import ConfigError
from guidelens.inference.packaging_text import PackageWords, TextWeights, with_text
from serve.frame_texts import FrameTexts
from serve.messages import RecognizeReply

BRANDS = [["Bravo"], ["Bravo"], ["Arla Ko"], []]
TITLES = [["Bravo Äpple Juice", "Bravo 苹果汁"], ["Bravo Orange Juice", "Bravo 橙汁"], ["Arla Standard Milk", "Arla 全脂牛奶"], ["Leek", "韭葱"]]


def package(*lines: str) -> bytes:
    """A green carton with white print, a little turned and blurred."""
    image = Image.new("RGB", (700, 900), (60, 130, 70))
    pen = ImageDraw.Draw(image)
    for place, line in enumerate(lines):
        pen.text((90, 180 + 150 * place), line, fill=(250, 250, 245), font=ImageFont.load_default(size=80))
    sink = io.BytesIO()
    image.rotate(4, fillcolor=(90, 80, 70)).filter(ImageFilter.GaussianBlur(1.2)).save(sink, "JPEG", quality=80)
    return sink.getvalue()


def test_the_product_named_on_a_package_is_answered_where_the_image_leans_to_another() -> None:
    reader, words = TextReader(), PackageWords(BRANDS, TITLES)
    texts = [line.text for line in reader.read(package("BRAVO", "orange juice"))]
    rows, chances = with_text(np.array([2, 0, 1], np.int32), np.array([0.45, 0.3, 0.2], np.float32), words.features(texts), TextWeights())
    assert rows[0] == 1 and chances[0] > 0.5 and chances.sum() <= 1 + 1e-6
    assert reader.read(package()) == reader.read(package("BRAVO")[:900]) == ()


@pytest.mark.parametrize(
    ("texts", "named"), [(["BRAV0", "APPLEJUICE"], 0), (["ÄPPLE"], 0), (["Arl4 Stamdard"], 2), (["纯鲜橙汁"], 1), (["有机全脂牛奶"], 2)]
)  # fmt: skip
def test_words_are_found_in_both_languages_without_spaces_and_with_slips(texts: list[str], named: int) -> None:
    features = PackageWords(BRANDS, TITLES).features(texts)
    assert int(np.argmax(features[:, :2].sum(axis=1))) == named


def test_a_text_that_names_nothing_changes_nothing() -> None:
    assert not PackageWords(BRANDS, TITLES).features(["2 for 30", "LE", "www"]).any()


def test_a_product_beyond_the_images_first_is_reached_by_its_words() -> None:
    rows, _ = with_text(
        np.array([3, 2], np.int32), np.array([0.4, 0.35], np.float32), PackageWords(BRANDS, TITLES).features(["Bravo", "Orange"]), TextWeights()
    )
    assert rows[0] == 1


def test_a_frame_is_read_where_the_time_that_is_left_allows() -> None:
    items = pl.DataFrame({"brand": ["Bravo", "Arla Ko"], "title": ["Bravo Apple Juice", "Arla Standard Milk"], "title_zh": ["Bravo 苹果汁", None]})
    seen = RecognizeReply(np.zeros(4, np.float32), True, np.array([1, 0], np.int32), np.array([0.45, 0.4], np.float32))
    texts, frame = FrameTexts(items), package("BRAVO", "apple")
    assert texts.read(seen, frame, budget_s=0.0) is seen
    read = texts.read(seen, frame, budget_s=np.inf)
    assert (read.rows[0], read.evidence, read.texts) == (0, ("image", "text"), ("BRAVO", "apple"))
    other = texts.read(seen, package("SUMMER"), budget_s=np.inf)
    assert (other.rows.tolist(), other.evidence, other.texts) == ([1, 0], ("image",), ("SUMMER",))


def test_without_the_package_the_error_names_setting_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"serve\.read_text=unsure .* pip install guidelens\[ocr\]"):
        TextReader()
