"""What a lake holds, counted by hand, and the page about it."""

import json
from pathlib import Path

import polars as pl
import pytest
from event_frames import event, frame

from guidelens.config import Home
from guidelens.data.lake.description import describe_data
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import to_table
from guidelens.errors import NotFoundError
from guidelens.evaluation.data_html import render, size
from guidelens.schemas.tables import Table
from pipelines import lake as lake_verb

DAY = 86_400


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Six events of two days, two products of which one was never seen, one photo, two shoppers, and two refused records."""
    opened = Lake(Home(root=tmp_path).lake_uri)
    events = frame(
        [
            event(0, "impression", product_id="p", position=1, channel="app"),
            event(1, "click", product_id="p", channel="app"),
            event(2, "view", product_id="gone", stay_ms=5.0, created_ts=frame([event(3 * DAY, "view")])["event_ts"][0]),
            event(DAY, "impression", product_id="p", position=2, shopper="b", session="s2", channel="web"),
            event(DAY + 1, "purchase", product_id="p", shopper="b", session="s2", value_minor=100),
            event(DAY + 2, "search", shopper="c", session="s3", is_anonymous=True, query="红色"),
        ]
    )
    tables = {
        Table.EVENTS: events,
        Table.PRODUCTS: pl.DataFrame({"product_id": ["p", "q"], "category": ["a/b", "a/c"], "price_minor": [5, None], "images": [["x.jpg"], []]}),
        Table.PHOTOS: pl.DataFrame({"path": ["x.jpg", "y.jpg"], "product_id": ["p", None]}),
        Table.SHOPPERS: pl.DataFrame({"shopper_key": ["a", "b"], "region": ["north", None], "consent": [None, False]}),
        Table.QUARANTINE: pl.DataFrame({"record_sha256": ["1", "2"], "kind": ["events"] * 2, "rule": ["type.enum"] * 2, "message": ["<b> is no type"] * 2}),
    }
    files = [file for table, rows in tables.items() for file in opened.write(table, to_table(table, rows))]
    counts = {"read": 8, "accepted": 6, "quarantined": 2, "duplicate": 0}
    opened.commit(opened.manifest(), files, {"events": {"total": counts, "files": {}, "rules": {}}})
    return Home(root=tmp_path)


def test_every_number_is_the_hand_count(home: Home) -> None:
    lake = Lake(home.lake_uri)
    data = describe_data(lake, lake.manifest())
    events = data.events
    assert events is not None and data.catalogue is not None and data.shoppers is not None
    assert [day.events for day in events.days] == [{"impression": 1, "click": 1, "view": 1}, {"impression": 1, "purchase": 1, "search": 1}]
    assert (events.events, events.shoppers, events.sessions) == (6, 3, 3)
    assert events.by_channel == {"not said": 3, "app": 2, "web": 1}
    assert events.by_hour[9] == 6
    assert events.late == (1 / 6, 1 / 6, 1 / 6)
    assert (events.unknown_products, events.products_seen) == (1, 2)
    assert events.filled["impression"]["position"] == 1.0
    assert "query" not in events.filled["impression"]
    assert data.catalogue.filled["price_minor"] == 0.5
    assert data.catalogue.filled["images"] == 0.5
    assert data.catalogue.photos_a_product == {"none": 1, "1": 1, "2-4": 0, "5-19": 0, "20 or more": 0}
    assert data.catalogue.categories == {"a": 2}
    assert (data.shoppers.declined, data.shoppers.filled["region"]) == (1, 0.5)
    assert [(group.rule, group.records) for group in data.refused] == [("type.enum", 2)]
    assert data.runs[-1].counts["events"]["quarantined"] == 2
    assert (data.runs[-1].files, data.runs[-1].rows, data.tables["events"].partitions) == (6, 14, 2)


def test_the_page_shows_the_plots_and_escapes_what_records_said(home: Home) -> None:
    lake = Lake(home.lake_uri)
    page = render(describe_data(lake, lake.manifest()))
    assert page.count('<svg class="plot"') == 5
    assert "&lt;b&gt; is no type" in page
    assert "<b> is no type" not in page


def test_the_verb_leaves_page_and_numbers(home: Home, tmp_path: Path) -> None:
    found = lake_verb.report(home, tmp_path / "out")
    assert json.loads(found.numbers.read_text())["events"]["events"] == 6
    assert found.report.read_text().startswith("<!DOCTYPE html>")


def test_a_lake_without_log_or_catalogue_has_a_page_too(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    refused = pl.DataFrame({"record_sha256": ["1"], "kind": ["events"], "rule": ["r"], "message": ["m"]})
    lake.commit(lake.manifest(), lake.write(Table.QUARANTINE, to_table(Table.QUARANTINE, refused)), {})
    data = describe_data(lake, lake.manifest())
    assert (data.events, data.catalogue, data.shoppers) == (None, None, None)
    assert "in quarantine" in render(data)


def test_an_empty_lake_is_a_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run `guidelens ingest` first"):
        lake_verb.report(Home(root=tmp_path), tmp_path / "out")


@pytest.mark.parametrize(("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_550_000, "1.6 MB"), (2 * 10**15, "2000.0 TB")])
def test_sizes_read_as_people_write_them(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text
