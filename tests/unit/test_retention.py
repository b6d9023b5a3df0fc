"""What is past its time leaves every version, its bytes and its ids, and does not come back."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from byte_search import found_in
from click.testing import CliRunner
from event_logs import click, ingest, write_log

from guidelens.config import RetentionConfig
from guidelens.data.lake import event_ids
from guidelens.data.lake.lake import Lake
from guidelens.data.lake.tables import to_table
from guidelens.data.privacy.forgetting import Person, forget_in_lake
from guidelens.data.privacy.retention import expire
from guidelens.data.records.settling import EXPIRED_RULE, FileCounts
from guidelens.data.records.sources import Kind
from guidelens.schemas.tables import Table
from pipelines.retention import command

DAY_10 = datetime(2026, 1, 11, 12, tzinfo=UTC)


def silent(_done: int, _of: int) -> None:
    pass


@pytest.fixture
def log(tmp_path: Path) -> str:
    words = [click(f"q-{day}", day + 0.5) | {"type": "search", "query": f"words of day {day}"} for day in range(10)]
    return write_log(tmp_path / "e.jsonl", [click(f"e-{day}", day) for day in range(10)] + words + [b"{broken"])


@pytest.fixture
def lake(tmp_path: Path, log: str) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    ingest(lake, [log])
    ingest(lake, [write_log(tmp_path / "more.jsonl", [click("late", 2)])])
    return lake


def total(lake: Lake, path: str) -> FileCounts:
    return ingest(lake, [path]).reports[Kind.EVENTS].total


def test_whole_days_go_from_every_version_with_their_bytes_ids_and_texts(lake: Lake, tmp_path: Path) -> None:
    done = expire(lake, RetentionConfig(events_days=5), DAY_10, silent)
    assert done.rows[Table.EVENTS] == 11 and done.rows[Table.QUERIES] == 5
    assert done.manifest.events_from == date(2026, 1, 6)
    for version in (1, 2, 3):
        held = lake.manifest(version)
        assert lake.read(Table.EVENTS, manifest=held)["event_ts"].min() == datetime(2026, 1, 6, tzinfo=UTC)
        assert sum(file.num_ids for file in held.ids_of(Table.EVENTS)) == held.rows(Table.EVENTS) == 10
    assert found_in(tmp_path / "lake", ["late", "e-4", "words of day 4"]) == {}
    gone = event_ids.hashed(pl.Series(["e-4"]).to_arrow())
    needle = gone.high.astype(">u8").tobytes() + gone.low.astype(">u8").tobytes()
    assert not any(needle in path.read_bytes() for path in (tmp_path / "lake").rglob("*.ids"))


def test_expired_events_that_come_again_are_refused_by_rule_and_not_kept(lake: Lake, log: str) -> None:
    expire(lake, RetentionConfig(events_days=5), DAY_10, silent)
    done = ingest(lake, [log]).reports[Kind.EVENTS]
    assert (done.total, done.rules) == (FileCounts(read=21, duplicate=10, quarantined=11), {EXPIRED_RULE: 10, "json.invalid": 1})
    kept = lake.read(Table.QUARANTINE).filter(pl.col("rule") == EXPIRED_RULE)
    assert kept.height == 10 and kept["raw"].null_count() == 10
    assert lake.read(Table.EVENTS).height == 10
    assert total(lake, log) == FileCounts(read=21, duplicate=10, quarantined=11), "and once more the same"
    assert lake.read(Table.QUARANTINE).filter(pl.col("rule") == EXPIRED_RULE).height == 10


def test_the_horizon_never_moves_back(lake: Lake) -> None:
    expire(lake, RetentionConfig(events_days=5), DAY_10, silent)
    assert expire(lake, RetentionConfig(events_days=9), DAY_10, silent).manifest.events_from == date(2026, 1, 6)


def test_an_ingest_that_staged_before_the_expiry_refuses_what_expired_meanwhile(tmp_path: Path, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, real, raced = Lake(str(tmp_path / "lake")), Lake.commit, []

    def commit(self: Lake, *args: object, **marks: object) -> object:
        if not raced:
            raced.append(True)
            real(lake, lake.manifest(), lake.write(Table.REVIEWS, to_table(Table.REVIEWS, pl.DataFrame({"review_id": ["r"], "ts": [DAY_10]}))), {})
            expire(lake, RetentionConfig(events_days=5), DAY_10, silent)
        return real(self, *args, **marks)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "commit", commit)
    done = ingest(lake, [log])
    assert done.reports[Kind.EVENTS].total == FileCounts(read=21, accepted=10, quarantined=11)


def test_without_a_time_nothing_expires(lake: Lake) -> None:
    version = lake.manifest().version
    assert set(expire(lake, RetentionConfig(), DAY_10 + timedelta(days=9999), silent).rows.values()) == {0}
    assert lake.manifest().version == version


def test_refused_records_reviews_and_frames_go_by_their_own_times(lake: Lake, tmp_path: Path) -> None:
    base, now = lake.manifest(), datetime.now(UTC)
    reviews = pl.DataFrame({"review_id": ["old", "new"], "ts": [now - timedelta(days=9), now - timedelta(days=7)]})
    photos = pl.DataFrame({"path": ["frame.jpg", "label.jpg", "shown.jpg"], "product_id": [None, "p", None], "is_catalogue_image": [False, False, True]})
    files = [*lake.write(Table.REVIEWS, to_table(Table.REVIEWS, reviews)), *lake.write(Table.PHOTOS, to_table(Table.PHOTOS, photos))]
    lake.commit(base, [*base.files, *files], {})
    times = RetentionConfig(reviews_days=8, quarantine_days=5, frames_days=6)
    assert expire(lake, times, now, silent).rows == {Table.EVENTS: 0, Table.PHOTOS: 0, Table.QUARANTINE: 0, Table.QUERIES: 0, Table.REVIEWS: 1}
    later = expire(lake, times, now + timedelta(days=5, hours=1), silent).rows
    assert (later[Table.QUARANTINE], later[Table.PHOTOS]) == (1, 0)
    assert expire(lake, times, now + timedelta(days=7), silent).rows[Table.PHOTOS] == 1
    assert lake.read(Table.PHOTOS)["path"].to_list() == ["label.jpg", "shown.jpg"]
    assert found_in(tmp_path / "lake", ["frame.jpg", "{broken"]) == {}


def test_a_file_that_is_rewritten_stays_as_old_as_its_rows(lake: Lake, tmp_path: Path) -> None:
    ingest(lake, [write_log(tmp_path / "n.jsonl", [b'{"user": "nobody-9"'])])
    before = {file.since: file.key for file in lake.manifest().of(Table.QUARANTINE)}
    forget_in_lake(lake, Person("nobody-9", frozenset({"0" * 64})), DAY_10)
    after = {file.since: file.key for file in lake.manifest().of(Table.QUARANTINE)}
    assert len(before) == 2 and set(before) == set(after) and before != after


def test_the_verb_says_what_went(lake: Lake, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    given = ["apply", "--home", str(home), "--lake", lake.uri, "--set", "retention.events_days=1"]
    result = CliRunner().invoke(command, given)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["removed"] == {"events": 21, "queries": 10} and said["events_from"] == (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    assert json.loads(CliRunner().invoke(command, given).stdout.splitlines()[-1])["removed"] == {}
