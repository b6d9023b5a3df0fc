"""Every switch of trouble does exactly what its ground truth says: undoing the truth gives the untroubled log back."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from guidelens.config import S3Options, WorldSize
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.sources import Kind, chunks_of, record_files
from guidelens.data.records.validation import Checker, checked_tables
from guidelens.errors import ConfigError, InputError, NotFoundError
from guidelens.world import WORLD_V1, Trouble, World, generate, read_faults
from guidelens.world.trouble import FAULTS
from pipelines.world import command, read_trouble

SIZE = WorldSize(num_products=24, num_shoppers=150, num_sessions=1500, num_frames=48, views_per_product=2, num_days=14, reference_sessions=1000)
SEED = 3
QUIET = Trouble(duplicated_share=0.0, late_share=0.0)
ALL = Trouble(
    duplicated_share=0.01,
    late_share=0.02,
    lost_ar_share=0.2,
    price_bug_day=4,
    outage_hour=36,
    skewed_shopper_share=0.1,
    future_share=0.005,
    negative_dwell_share=0.02,
    unknown_product_share=0.01,
    malformed_share=0.02,
)
Event = dict[str, Any]


def _draw(root: Path, trouble: Trouble, seed: int = SEED) -> Path:
    generate(SIZE, seed, root, parameters=WORLD_V1.model_copy(update={"trouble": trouble}), num_workers=1, with_photos=False)
    return root


def _lines(root: Path) -> list[str]:
    return [line for path in sorted((root / "events").iterdir()) for line in path.read_text().splitlines()]


def _id(line: str) -> str:
    found = re.match(r'{"event_u?id":"([^"]+)"', line)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Event]:
    events = [json.loads(line) for line in _lines(_draw(tmp_path_factory.mktemp("quiet"), QUIET))]
    return {event["event_id"]: event for event in events}


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _draw(tmp_path_factory.mktemp("troubled"), ALL)


@pytest.fixture(scope="module")
def faults(troubled: Path) -> pl.DataFrame:
    return read_faults(troubled).collect()


def _of(faults: pl.DataFrame, *names: str) -> dict[str, str | None]:
    return dict(faults.filter(pl.col("fault").is_in(names)).select("event_id", "was").iter_rows())


def test_a_quiet_world_has_no_faults(tmp_path: Path) -> None:
    assert read_faults(_draw(tmp_path, QUIET)).collect().height == 0


def test_what_is_not_in_the_log_was_lost_as_the_truth_says(troubled: Path, faults: pl.DataFrame, quiet: dict[str, Event]) -> None:
    present = {_id(line) for line in _lines(troubled)}
    outage, lost = _of(faults, "outage"), _of(faults, "lost_ar")
    assert len(outage) > 5
    assert len(lost) > 50
    assert set(quiet) - present == set(outage) | set(lost)
    assert all(quiet[name]["event_ts"].startswith("2025-09-02T12:") for name in outage)
    assert {quiet[name]["type"] for name in lost} == {"ar_view", "ar_gesture"}
    broken = set(json.loads((troubled / "truth" / "trouble.json").read_text())["broken_clients"])
    assert {quiet[name]["shopper_id"] for name in lost if "shopper_id" in quiet[name]} <= broken


def test_undoing_the_truth_gives_the_quiet_log_back(troubled: Path, faults: pl.DataFrame, quiet: dict[str, Event]) -> None:
    malformed = _of(faults, "malformed")
    events = [json.loads(line) for line in _lines(troubled) if _id(line) not in malformed]
    was = {name: _of(faults, name) for name in FAULTS}
    changed = 0
    for event in events:
        name, truth = event["event_id"], quiet[event["event_id"]]
        undone = dict(event)
        for fault, field in (("late", "created_ts"), ("future", "event_ts"), ("clock_skew", "event_ts"), ("unknown_product", "product_id")):
            if name in was[fault]:
                undone[field] = was[fault][name]
            if fault == "future" and name in was[fault]:
                undone["created_ts"] = was["late"].get(name, truth["created_ts"])
        if name in was["price_bug"]:
            assert event["value_minor"] == int(str(was["price_bug"][name])) // 100
            undone["value_minor"] = int(str(was["price_bug"][name]))
        if name in was["negative_dwell"]:
            field = "stay_ms" if event.get("stay_ms", 1) < 0 else "browse_ms"
            assert event[field] == -float(str(was["negative_dwell"][name]))
            undone[field] = -event[field]
        assert undone == truth
        changed += event != truth
    assert changed > 500
    assert all(was[name] for name in FAULTS if name not in ("bot_click",))


def test_the_price_bug_hits_purchases_of_its_day_only(troubled: Path, faults: pl.DataFrame, quiet: dict[str, Event]) -> None:
    hit = set(_of(faults, "price_bug")) | set(_of(faults, "outage"))
    on_day = {name for name, event in quiet.items() if event["type"] == "purchase" and event["event_ts"].startswith("2025-09-05")}
    assert on_day
    assert on_day <= hit
    assert set(_of(faults, "price_bug")) <= on_day


def test_every_line_the_ingest_refuses_is_in_the_truth_by_its_rule(troubled: Path, faults: pl.DataFrame, tmp_path: Path) -> None:
    """And no other: so quarantined = rows with a rule, duplicate = rows of `duplicated`, for any ingest of this log."""
    checker = Checker(Kind.EVENTS, Pseudonymizer.open(tmp_path / "keys"), datetime(2026, 1, 1, tzinfo=UTC))
    chunks = chunks_of(record_files(Kind.EVENTS, (str(troubled / "events"),), S3Options()), 1 << 20, S3Options())
    rows = pl.concat([pl.DataFrame(pl.from_arrow(table)) for chunk in chunks for table in checked_tables(chunk, checker, S3Options())])
    refused = rows.filter(pl.col("rule").is_not_null())
    found = {_id(raw.decode()): rule for raw, rule in refused.select("raw", "rule").iter_rows()}
    assert found == dict(faults.filter(pl.col("rule").is_not_null()).select("event_id", "rule").iter_rows())
    assert {"json.invalid", "event_id.missing", "type.enum", "event_ts.timezone_aware", "event_ts.in_future", "stay_ms.greater_than_equal"} <= set(
        found.values()
    )
    accepted = rows.filter(pl.col("rule").is_null())
    again = accepted.filter(pl.col("event_id").is_duplicated()).unique("event_id")["event_id"]
    assert set(again) == set(_of(faults, "duplicated"))
    assert rows.height == len(_lines(troubled)) == refused.height + accepted["event_id"].n_unique() + len(again)


def test_counts_of_faults_are_told_with_the_switches(troubled: Path, faults: pl.DataFrame) -> None:
    truth = json.loads((troubled / "truth" / "trouble.json").read_text())
    assert truth["counts"] == dict(sorted(faults.group_by("fault").len().iter_rows()))
    assert Trouble.model_validate(truth["switches"]) == ALL


def test_a_wrong_clock_is_wrong_by_the_same_for_all_of_a_shoppers_events(troubled: Path, faults: pl.DataFrame) -> None:
    skews = json.loads((troubled / "truth" / "trouble.json").read_text())["skewed_clients"]
    was, malformed = _of(faults, "clock_skew"), _of(faults, "malformed", "future")
    events = [event for event in map(json.loads, (line for line in _lines(troubled) if _id(line) not in malformed)) if event["event_id"] in was]
    assert len(events) > 100
    assert any(skew > 0 for skew in skews.values())
    for event in events:
        ahead = datetime.fromisoformat(event["event_ts"]) - datetime.fromisoformat(str(was[event["event_id"]]))
        if "shopper_id" in event:
            assert ahead == timedelta(microseconds=skews[event["shopper_id"]])


def test_bots_click_whatever_they_are_shown(tmp_path: Path) -> None:
    root = _draw(tmp_path, QUIET.model_copy(update={"bot_shopper_share": 0.1}))
    events = {event["event_id"]: event for event in map(json.loads, _lines(root))}
    clicks = [events[name] for name in _of(read_faults(root).collect(), "bot_click")]
    bots = set(json.loads((root / "truth" / "trouble.json").read_text())["bots"])
    assert len(bots) > 3
    assert {event["type"] for event in clicks} == {"click"}
    assert {event["shopper_id"] for event in clicks if "shopper_id" in event} <= bots
    shown = [event for event in events.values() if event["type"] == "impression" and event.get("shopper_id") in bots]
    assert len([event for event in clicks if "shopper_id" in event]) == len(shown)


def test_drift_changes_nothing_before_its_day_and_what_is_liked_from_it_on(tmp_path: Path, quiet: dict[str, Event]) -> None:
    root = _draw(tmp_path / "drift", QUIET.model_copy(update={"drift_day": 7}))
    drifted = {event["event_id"]: event for event in map(json.loads, _lines(root))}
    first = {event["session_id"]: event["event_ts"] for event in sorted(quiet.values(), key=lambda one: one["event_ts"], reverse=True)}
    early = {name: event for name, event in quiet.items() if first[event["session_id"]] < "2025-09-07T23"}
    assert len(early) > 1000
    assert {name: drifted[name] for name in early} == early
    late = [event for event in drifted.values() if event["event_ts"] >= "2025-09-08T01" and event["type"] == "impression"]
    assert sum(quiet.get(event["event_id"]) == event for event in late) < 0.2 * len(late)
    still, moved = World.open(_draw(tmp_path / "still", QUIET)), World.open(root)
    names = sorted({event["session_id"] for event in late})[:50]
    assert abs(still.expectations(names).click - moved.expectations(names).click).mean() > 0.01


def test_the_verb_tells_where_the_files_are_and_what_they_hold(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--shoppers", "40", "--sessions", "150", "--no-photos", "--world", "world_v2", "--trouble", "malformed_share=0.1"]
    done = CliRunner().invoke(command, ["generate", *arguments])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    lines = _lines(tmp_path)
    assert (told["num_shoppers"], told["num_sessions"], told["num_events"], told["photos"]) == (40, 150, len(lines), None)
    assert told["faults"]["malformed"] > 0.05 * len(lines)
    for name in ("catalogue", "shoppers", "reviews", "withdrawals", "events", "truth"):
        assert Path(told[name]).exists()


def test_switches_are_read_from_settings_and_unknown_ones_refused(tmp_path: Path) -> None:
    assert read_trouble(["late_share=0.5", "outage_hour=3"]) == Trouble(late_share=0.5, outage_hour=3)
    with pytest.raises(ConfigError, match="--trouble must be NAME=VALUE of duplicated_share"):
        read_trouble(["rain=1"])
    with pytest.raises(ConfigError, match="late_share"):
        read_trouble(["late_share=2"])
    with pytest.raises(NotFoundError, match="no truth of its trouble"):
        read_faults(tmp_path)
    with pytest.raises(InputError, match="malformed_share needs events as JSONL"):
        generate(SIZE, 0, tmp_path, parameters=WORLD_V1.model_copy(update={"trouble": ALL}), events_format="parquet")
