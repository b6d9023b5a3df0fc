"""Recognition figures against hand counts, and the labels file that names what is wrong with it."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from guidelens.config import Home
from guidelens.data.images.decoding import thumbnail
from guidelens.data.lake.lake import Lake
from guidelens.errors import InputError, ShapeError
from guidelens.evaluation.misses import miss_classes
from guidelens.evaluation.recognition import ShownProduct, measure_predictions, predictions, write_predictions
from guidelens.evaluation.report import Report
from guidelens.evaluation.report_html import render
from guidelens.models.recognizer import Recognition
from guidelens.schemas.tables import SCHEMAS, Table
from pipelines.evaluate_recognizer import LabelledPhoto, read_labels, seen_in_training

PRODUCTS = [
    ShownProduct(product_id="a", title="Apple", category="Fruit/Apple"),
    ShownProduct(product_id="b", title="Other apple", category="Fruit/Apple"),
    ShownProduct(product_id="c", title="Milk", category="Packages/Milk"),
]


def answer(*rows: int, known: bool = True) -> Recognition:
    return Recognition(known, np.array(rows), np.linspace(0.9, 0.1, len(rows)).astype(np.float32))


def scored() -> tuple:
    answers = [answer(0, 1, 2), answer(1, 0), answer(2, 1), answer(2, 0, known=False)]
    return predictions(answers, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"], ["a", "a", "a", "c"], PRODUCTS)


def test_shares_are_counted_by_the_first_product_flagged_or_not() -> None:
    report = measure_predictions(scored(), PRODUCTS, "four photos")
    assert report.top1 == 0.5
    assert report.top5 == 0.75
    assert report.coarse_top1 == 0.75
    assert report.kept == 0.75
    assert report.photos == 4
    assert report.labels == ("Fruit/Apple", "Packages/Milk")
    assert report.matrix == ((2, 1), (0, 1))
    assert {(one.truth, one.predicted) for one in report.confusions} == {("Apple", "Other apple"), ("Apple", "Milk")}


def test_many_categories_are_drawn_by_their_first_level() -> None:
    products = [ShownProduct(product_id=str(i), title=str(i), category=f"{'AB'[i % 2]}/{i}") for i in range(60)]
    many = predictions([answer(i) for i in range(60)], ["x"] * 60, [str(i) for i in range(60)], products)
    report = measure_predictions(many, products, "")
    assert report.labels == ("A", "B")
    assert report.coarse_top1 == 1


def test_predictions_have_a_line_a_photo(tmp_path: Path) -> None:
    write_predictions(scored(), tmp_path / "predictions.csv")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "path,product_id,predicted,confidence,in_catalogue,top5"
    assert lines[1] == "1.jpg,a,a,0.900000,true,a;b;c"
    assert lines[4] == "4.jpg,c,c,0.900000,false,c;a"
    assert len(lines) == 5


def test_every_pair_that_was_missed_is_shown_with_its_photos_and_so_is_what_was_refused() -> None:
    picture = thumbnail(np.full((40, 60, 3), 200, np.uint8))
    found = miss_classes(scored(), PRODUCTS, lambda path: picture if path == "2.jpg" else None, lambda _product: None)
    assert [(one.shown, one.answered, one.photos, one.of_photos) for one in found] == [
        ("Apple", "Other apple", 1, 3),
        ("Apple", "Milk", 1, 3),
        ("Milk", None, 1, 1),
    ]
    assert found[0].examples[0].picture is not None and found[0].examples[0].picture.startswith("data:image/jpeg;base64,")
    assert found[1].examples[0].picture is None
    page = render(Report(source="s", seed=0, recognition=measure_predictions(scored(), PRODUCTS, "four photos").model_copy(update={"misses": found})))
    assert page.count("<img src=") == 1 and "none of the catalogue" in page and "90.0 %, refused" in page


def test_nothing_scored_or_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ShapeError):
        measure_predictions([], PRODUCTS, "")
    with pytest.raises(ShapeError):
        predictions([answer(0)], [], ["a"], PRODUCTS)


def labels(folder: Path, text: str) -> Path:
    (folder / "here.jpg").write_bytes(b"x")
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_labels_are_read_with_further_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = labels(tmp_path, "\ufeffproduct_id,coarse,path\na,Fruit,here.jpg\n")
    assert read_labels(path, tmp_path, {"a"}) == [LabelledPhoto(2, "here.jpg", "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,product_id\nhere.jpg,a\nhere.jpg,zzz\n", "line 3.*'zzz'"),
        ("path,product_id\nhere.jpg,a\ngone.jpg,a\n", "line 3.*'gone.jpg'"),
        ("path,product_id\n,a\n", "line 2"),
        ("path;product_id\nhere.jpg;a\n", "columns path and product_id"),
        ("path,product_id\n", "only a header"),
    ],
)
def test_a_wrong_label_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(labels(tmp_path, text), tmp_path, {"a"})


def test_a_missing_labels_file_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_labels(tmp_path / "none.csv", tmp_path, {"a"})


def test_photos_that_training_has_seen_are_counted_by_their_bytes(home: Home) -> None:
    photos = home.root / "photos"
    photos.mkdir(parents=True)
    asked = [LabelledPhoto(number + 2, f"{number}.jpg", "p") for number in range(3)]
    for one in asked:
        (photos / one.path).write_bytes(one.path.encode())
    lake = Lake(home.lake_uri)
    row = {"path": "of-another-name.jpg", "sha256": hashlib.sha256(b"1.jpg").hexdigest()}
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMAS[Table.PHOTOS].names}], schema=SCHEMAS[Table.PHOTOS])
    version = lake.commit(lake.manifest(), lake.write(Table.PHOTOS, table), {}).version
    assert seen_in_training(home, lake.uri, version, photos, asked) == 1
    assert seen_in_training(home, lake.uri, version, photos, asked[:1]) == 0
    assert seen_in_training(home, str(home.root / "gone"), version, photos, asked) is None
