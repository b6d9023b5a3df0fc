"""Bar codes: read from frames as cameras take them, matched with products, and weighed beside what the image looks like."""

import io

import numpy as np
import polars as pl
import pytest
from coded_frames import CODE, frame_with_code
from PIL import Image

from guidelens.data.images.barcodes import gtin, retail_codes
from guidelens.inference.barcodes import MISREAD, BarcodeIndex, with_barcodes


@pytest.mark.parametrize(("turned", "format_"), [(0, "JPEG"), (12, "JPEG"), (90, "JPEG"), (180, "PNG"), (270, "WEBP")])
def test_a_code_on_a_package_is_read_however_the_phone_is_held(turned: float, format_: str) -> None:
    assert retail_codes(frame_with_code(CODE, turned, format_)) == ("0" + CODE,)


def test_a_frame_without_a_code_yields_none_and_a_cut_off_one_does_not_fail() -> None:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(8).integers(0, 255, (400, 400, 3), dtype=np.uint8)).save(sink, "JPEG")
    assert retail_codes(sink.getvalue()) == ()
    assert isinstance(retail_codes(frame_with_code(CODE)[:3000]), tuple)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(CODE, "0" + CODE), ("690-1234 567892", "0" + CODE), ("036000291452", "00036000291452"), ("96385074", "00000096385074"), ("6901234567893", None), ("12345", None), ("abc", None), ("６９０１２３４５６７８９２", None)],
)  # fmt: skip
def test_a_gtin_is_known_by_its_length_and_check_digit(text: str, expected: str | None) -> None:
    assert gtin(text) == expected


def test_products_bear_codes_in_attributes_or_facts_under_names_shops_use() -> None:
    items = pl.DataFrame(
        {
            "attributes_json": ['{"GTIN": "6901234567892"}', "{}", '{"colour": "red"}', '{"ean": "123"}'],
            "facts_json": ["{}", '{"条码": ["036000291452", 96385074]}', '{"barcode": "6901234567892"}', None],
        }
    )
    index = BarcodeIndex.of_items(items)
    assert index.rows(["0" + CODE]) == [0, 2]
    assert index.rows(["00036000291452"]) == index.rows(["00000096385074"]) == [1]
    assert (index.rows(["00000000000000"]), index.unusable) == ([], {3: ("123",)})


def test_a_code_outweighs_the_image_and_the_image_tells_products_of_one_code_apart() -> None:
    rows, seen = np.array([4, 9, 2], np.int32), np.array([0.9, 0.08, 0.01], np.float32)
    best, chances = with_barcodes(rows, seen, [7])
    assert best.tolist() == [7, 4, 9] and chances[0] == pytest.approx(1 - MISREAD) and chances.sum() <= 1
    best, chances = with_barcodes(rows, seen, [2, 9])
    assert best.tolist() == [9, 2, 4] and chances[0] / chances[1] == pytest.approx(8, rel=0.01)
    best, chances = with_barcodes(np.zeros(0, np.int32), np.zeros(0, np.float32), [3])
    assert best.tolist() == [3] and chances[0] == pytest.approx(1 - MISREAD)
