"""Identity, sessions and attribution against the simulated shop's truth (world_v2): who was behind a device, and which slate led to a purchase."""

from datetime import UTC, datetime

import polars as pl
import pytest

from guidelens.config import S3Options, WorldSize
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.sessions import as_people, identity_links, in_sessions
from guidelens.data.sources import Kind, chunks_of, record_files
from guidelens.data.validation import Checker, checked_tables
from guidelens.data.visits import kept_purchases, requests
from guidelens.world import WORLD_V2, WorldPaths, generate

SIZE = WorldSize(num_products=24, num_shoppers=150, num_sessions=7000, num_frames=48, views_per_product=2, num_days=14, reference_sessions=1000)
EVERY_PURCHASE_LATER = WORLD_V2.model_copy(update={"people": WORLD_V2.people.model_copy(update={"delayed_purchase_share": 1.0})})
KEYS = Pseudonymizer(b"k" * 32)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> WorldPaths:
    return generate(SIZE, 5, tmp_path_factory.mktemp("people"), parameters=EVERY_PURCHASE_LATER, num_workers=1, with_photos=False)


@pytest.fixture(scope="module")
def events(shop: WorldPaths) -> pl.DataFrame:
    """The log as ingest checks it, each event once."""
    s3 = S3Options()
    chunks = chunks_of(record_files(Kind.EVENTS, (str(shop.events),), s3), 16 << 20, s3)
    checker = Checker(Kind.EVENTS, KEYS, datetime.now(UTC))
    tables = [pl.DataFrame(pl.from_arrow(table)) for chunk in chunks for table in checked_tables(chunk, checker, s3)]
    return pl.concat(tables).filter(pl.col("rule").is_null()).unique("event_id", maintain_order=True)


def test_a_device_is_linked_to_who_is_behind_it_once_somebody_logged_in(shop: WorldPaths, events: pl.DataFrame) -> None:
    truth = pl.read_parquet(shop.truth / "identities" / "*.parquet").select("anonymous_id", "shopper_id").unique()
    behind = {KEYS.key(device, anonymous=True): KEYS.key(shopper) for device, shopper in truth.iter_rows()}
    links = identity_links(events)
    assert links.height > 30
    assert all(behind[device] == shopper for device, shopper in links.select("anonymous_key", "shopper_key").iter_rows())
    assert links["shared_ts"].is_null().all(), "one person is behind a device of this world"
    people = as_people(events, links).filter("is_anonymous")
    linked = people.filter(pl.col("asked_as") != pl.col("shopper_key"))
    assert linked.height > 1000
    assert set(people["asked_as"].unique()) > set(linked["asked_as"].unique()), "a device nobody logged in on stays anonymous"


def test_a_purchase_hours_later_in_another_channel_counts_for_the_slate_that_led_to_it(shop: WorldPaths, events: pl.DataFrame) -> None:
    truth = pl.read_parquet(shop.truth / "delayed_purchases" / "*.parquet").filter(pl.col("request_id").is_not_null())
    bought = truth.join(events.select("event_id", "product_id", "shopper_key"), on="event_id")
    within = bought.filter(pl.col("delay_us") < 23 * 3_600_000_000)
    assert within.height > 12
    slates = requests(in_sessions(as_people(events, identity_links(events))), 24.0)
    labels = slates.select("request_id", "shopper_key", "slate_product_id", "purchase").explode("slate_product_id", "purchase")
    found = within.join(labels, left_on=["request_id", "product_id"], right_on=["request_id", "slate_product_id"], how="left")
    # A slate of an anonymous session that never logged in cannot know its shopper.
    known = found.filter(pl.col("shopper_key") == pl.col("shopper_key_right"))
    assert known.height > 0.6 * within.height
    assert known["purchase"].mean() > 0.6
    # What the right slate did not get, another slate of the shopper has, or a return took back.
    missed = known.filter(~pl.col("purchase")).join(kept_purchases(events).select("event_id"), on="event_id")
    counted = labels.filter("purchase").select("shopper_key", product_id="slate_product_id").unique()
    assert missed.join(counted, on=["shopper_key", "product_id"], how="anti").is_empty()


def test_a_purchase_past_the_window_counts_for_no_slate(shop: WorldPaths, events: pl.DataFrame) -> None:
    truth = pl.read_parquet(shop.truth / "delayed_purchases" / "*.parquet").filter(pl.col("request_id").is_not_null())
    late = truth.filter(pl.col("delay_us") > 25 * 3_600_000_000).join(events.select("event_id", "product_id"), on="event_id")
    assert late.height > 2
    slates = requests(in_sessions(as_people(events, identity_links(events))), 24.0)
    labels = slates.select("request_id", "slate_product_id", "purchase").explode("slate_product_id", "purchase").filter("purchase")
    again = late.join(labels, left_on=["request_id", "product_id"], right_on=["request_id", "slate_product_id"])
    assert again.is_empty()
