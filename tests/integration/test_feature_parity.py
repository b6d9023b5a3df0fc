"""online == offline, bit for bit, at several times of a growing log: nulls, ties, late rows and zones included; and the checkers see what is planted."""

import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from event_frames import frame

from guidelens.config import FeatureConfig, Home
from guidelens.data.features.checks import VALUES_PER_ROW, Comparison, compared, lacking_rows, recounted
from guidelens.data.features.shoppers import shopper_rows
from guidelens.data.features.updates import advanced
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import append
from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.data.visits import visits
from guidelens.features import Features
from guidelens.presets import tiny
from guidelens.schemas.packed import PACKED_DTYPE
from guidelens.schemas.tables import TEXT_DIM, Table
from pipelines import materialize

DRILL = os.environ.get("GUIDELENS_DRILL") == "1"
NUM_SHOPPERS = 1000 if DRILL else 200
BERLIN, SHANGHAI = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")
# Across the night of 26 October 2025, when 02:30 comes twice in Berlin; the third is the second 02:30.
ASKED_AT = [
    datetime(2025, 10, 20, 8, 0, tzinfo=SHANGHAI),
    datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN),
    datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2025, 11, 3, 0, 0, tzinfo=UTC),
    datetime(2025, 11, 20, 0, 0, tzinfo=SHANGHAI),
]
FIRST = datetime(2025, 9, 25, tzinfo=UTC)
LAST = ASKED_AT[-1].astimezone(UTC)
PRODUCT = {"product_id": "p", "title": "t", "category": "c", "text_embedding": [0.1] * TEXT_DIM, "known_ts": FIRST}


def a_log(seed: int = 0) -> pl.DataFrame:
    """Sessions that are uploaded whole, some days late; times in several zones; many of one moment."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    begun: dict[int, list[tuple[datetime, int]]] = {}
    kinds = ("impression", "click", "view", "ar_open", "ar_view", "ar_gesture", "step_outcome", "cart", "purchase")
    for k in range(NUM_SHOPPERS * 6):
        zone = chance.choice([UTC, BERLIN, SHANGHAI])
        start = FIRST + timedelta(microseconds=chance.randrange(int((LAST - FIRST - timedelta(hours=1)).total_seconds()) * 10**6))
        if chance.random() < 0.3:
            start = datetime(2025, 10, 26, 0, 30, tzinfo=UTC)  # 02:30 in Berlin, where clocks go back half an hour later; and a tie
        late = timedelta(days=(0, 0, 0, 1, 9)[k % NUM_SHOPPERS % 5])  # by shopper: of one session, no part arrives before a time asked for and another after it
        uploaded = start + timedelta(minutes=12) + late
        told = sum(uploaded >= asked for asked in ASKED_AT)
        if any(abs(start - other) < timedelta(hours=1) and told != before for other, before in begun.setdefault(k % NUM_SHOPPERS, [])):
            continue  # it would go on with a session that was online as finished, which docs/features.md tells apart
        begun[k % NUM_SHOPPERS].append((start, told))
        for j in range(chance.randrange(1, 9)):
            happened = (start + timedelta(seconds=chance.choice([0, 0, 5, 300, 700]))).astimezone(zone)
            kind = chance.choice(kinds)
            row = {"event_id": f"e{k:06d}-{j}", "event_ts": happened, "created_ts": uploaded.astimezone(zone), "session_id": f"s{k}", "type": kind}
            row |= {"shopper_key": f"shopper-{k % NUM_SHOPPERS}", "is_anonymous": False, "product_id": chance.choice([f"p{chance.randrange(30)}", None])}
            row |= {"stay_ms": chance.choice([None, chance.random() * 1e5]), "depth": chance.choice([None, 3]), "browse_ms": chance.choice([None, 0.0005, 7.5])}
            rows.append(row | ({"outcome": "cart", "step_index": 0} if kind == "step_outcome" else {}) | ({"view_ms": 1e4 / 3} if kind == "ar_view" else {}))
    return frame(rows)


def some_shoppers() -> pl.DataFrame:
    known = [{"shopper_key": f"shopper-{k}", "region": "北" if k % 4 else None, "height_cm": 150.1 + k if k % 3 else None} for k in range(0, NUM_SHOPPERS, 2)]
    return frame([row | {"created_ts": FIRST - timedelta(days=i % 5) if i % 7 else None} for i, row in enumerate(known)], Table.SHOPPERS)


@pytest.mark.drill
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_online_equals_offline_at_every_time_asked(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = f"{request.getfixturevalue('redis_address')},db=2" if kind == "redis" else None
    config = tiny().model_copy(update={"features": FeatureConfig(online_store=kind, redis_connection=address)})
    home, log, keys = Home(root=tmp_path), a_log(), [f"shopper-{k}" for k in range(NUM_SHOPPERS)]
    lake = Lake(home.lake_uri)
    tables = {Table.PRODUCTS: frame([PRODUCT], Table.PRODUCTS), Table.SHOPPERS: some_shoppers()}
    lake.commit(lake.manifest(), [file for table, rows in tables.items() for file in lake.write(table, rows.to_arrow())], {})
    online: list[bytes | None] = []
    known = pl.max_horizontal("event_ts", "created_ts")
    for before, now in zip([FIRST, *ASKED_AT], ASKED_AT, strict=False):
        arrived = log.filter((known >= before.astimezone(UTC)) & (known < now.astimezone(UTC)))
        base = lake.manifest()
        lake.commit(base, [*(f for f in base.files if f.table is not Table.EVENTS), *append(lake, base, Table.EVENTS, arrived)], {})
        assert materialize.run(home, config).mode == ("full" if before is FIRST else "incremental")
        reader = Features(home, config.features).online()
        online += [reader.shopper(key) for key in keys]
    offline: list[bytes | None] = []
    for now in ASKED_AT:  # out of the last tables, asked for in the zone's own time
        zone = "UTC" if now.tzinfo is UTC else str(now.tzinfo)
        asked = pl.DataFrame({"shopper_key": keys}).with_columns(event_timestamp=pl.lit(now.astimezone(UTC)).dt.cast_time_unit("us").dt.convert_time_zone(zone))
        offline += Features(home, config.features).shopper_frame(asked)["packed"].to_list()
    found = compared(online, offline)
    assert found.equal, found
    assert found.values == len(ASKED_AT) * NUM_SHOPPERS * VALUES_PER_ROW and found.values >= (10**6 if DRILL else 200_000)
    assert len(set(online)) > 3 * NUM_SHOPPERS, "the times differ"
    table = Features(home, config.features).shopper_table(("shopper_key", "event_timestamp", "packed"))
    assert recounted(table.sample(500, seed=1), log).equal


@pytest.fixture(scope="module")
def counted() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The log of some shoppers and their rows."""
    log = a_log().filter(pl.col("shopper_key").is_in([f"shopper-{k}" for k in range(30)]))
    return log, shopper_rows(visits(log), log, some_shoppers()).select("shopper_key", "event_timestamp", "packed")


def stamped(rows: pl.DataFrame, earlier: timedelta) -> pl.DataFrame:
    """The same rows, known earlier."""
    packed = np.frombuffer(b"".join(rows["packed"].to_list()), dtype=PACKED_DTYPE).copy()
    packed["as_of_us"] -= earlier // timedelta(microseconds=1)
    return rows.with_columns(pl.col("event_timestamp") - earlier, packed=pl.Series([row.tobytes() for row in packed]))


def test_rows_equal_a_recount(counted: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    log, rows = counted
    found = recounted(rows, log)
    assert found.equal and found.values > 50 * len(rows), found


def test_a_row_known_a_microsecond_too_early_is_caught(counted: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    log, rows = counted
    assert not recounted(stamped(rows, timedelta(microseconds=1)), log).equal
    one = rows.filter(pl.col("event_timestamp") > FIRST + timedelta(days=1)).tail(1)
    assert recounted(one, log).equal and not recounted(stamped(one, timedelta(microseconds=1)), log).equal


def test_a_row_that_is_lacking_is_caught(counted: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    log, rows = counted
    assert lacking_rows(rows, log) == 0
    assert lacking_rows(rows.filter(pl.col("event_timestamp") < rows["event_timestamp"].max()), log) >= 1


def test_one_future_event_in_a_row_is_caught(counted: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    log, rows = counted
    last = log.sort("event_ts").tail(1).with_columns(type=pl.lit("click"))
    leaked = log.update(last.with_columns(created_ts=pl.col("event_ts") - timedelta(days=20), event_ts=pl.col("event_ts") - timedelta(days=20)), on="event_id")
    key = last["shopper_key"][0]
    wrong = shopper_rows(visits(leaked), leaked, some_shoppers()).filter(pl.col("shopper_key") == key).select(rows.columns)
    assert not recounted(wrong, log).equal


def test_an_online_transformation_that_differs_is_caught(counted: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    _, rows = counted
    offline = rows["packed"].to_list()
    assert compared(offline, offline).equal

    def planted(change: Any) -> Comparison:
        packed = np.frombuffer(b"".join(offline), dtype=PACKED_DTYPE).copy()
        change(packed)
        return compared([row.tobytes() for row in packed], offline)

    def last_bit(packed: np.ndarray) -> None:
        packed["windows"][3].view(np.uint32)[5] ^= 1

    def null_as_zero(packed: np.ndarray) -> None:
        packed["profile_values"] = np.nan_to_num(packed["profile_values"])

    def seconds_only(packed: np.ndarray) -> None:
        packed["recent_ts_us"] -= packed["recent_ts_us"] % 1_000_000

    assert planted(last_bit).different == {"windows": 1}
    assert set(planted(null_as_zero).different) == {"profile_values"}
    assert set(planted(seconds_only).different) == {"recent_ts_us"}
    assert compared([None, *offline[1:]], offline).different["missing_row"] == VALUES_PER_ROW
    click = {"event_id": "e", "event_ts": LAST, "session_id": "s", "type": "click", "product_id": "p1"}
    pushed = advanced(offline[0], [PseudonymousEvent(**click, shopper_key="a" * 64, key_id="k", is_anonymous=False)])
    assert not compared([pushed], offline[:1]).equal
