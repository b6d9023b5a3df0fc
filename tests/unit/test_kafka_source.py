"""Kafka topics are taken in exactly once: the lake's manifest says where to go on."""

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crashing import Step
from event_logs import PSEUDONYMS, click, constant_texts
from kafka_brokers import PARTITIONS, Brokers, brokers
from pydantic import SecretStr
from test_crashes import Crasher, crasher  # noqa: F401 - a fixture

from guidelens import presets
from guidelens.config import Home
from guidelens.data.lake.lake import Lake
from guidelens.data.records.kafka_source import plan_kafka, read_messages, show_progress
from guidelens.data.records.reading import Messages
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.errors import ConfigError, InputError, StorageError
from guidelens.schemas.tables import Table
from pipelines.ingest import Ingest, IngestResult

CONFIG = presets.load("tiny")
CRASH_POINTS = ("staging.part_written", "staging.done", "ids.after_file", "data.before_file", "data.after_file", "quarantine.after_file")
CRASH_POINTS += ("manifest.before", "create.written", "manifest.after", "staging.before_removal")
DRILL = bool(os.environ.get("GUIDELENS_DRILL"))


@pytest.fixture(scope="module")
def kafka() -> Iterator[Brokers]:
    with brokers() as found:
        yield found


@pytest.fixture
def keyed(tmp_path: Path) -> Home:
    home = Home(root=tmp_path / "home")
    home.keys.mkdir(parents=True)
    (home.keys / "shopper.key").write_bytes(b"k" * 32)
    return home


def take(home: Home, *uris: str, **how: Any) -> IngestResult:
    return Ingest(home, CONFIG, None, embed=constant_texts).take(IngestSources(events=uris, **how))


def counted(result: IngestResult) -> tuple[int, int, int, int]:
    """Read, accepted, quarantined, duplicate."""
    kind = Kind.EVENTS
    return result.read[kind], result.accepted[kind], result.quarantined[kind], result.duplicate[kind]


def ids_in(home: Home) -> list[str]:
    return sorted(Lake(home.lake_uri).read(Table.EVENTS, ["event_id"])["event_id"])


def test_each_run_goes_on_where_the_last_committed_one_ended(keyed: Home, kafka: Brokers) -> None:
    uri = kafka.send("going-on", [click(f"e-{k}", k / 100) for k in range(40)])
    first = take(keyed, uri)
    assert counted(first) == (40, 40, 0, 0) and first.waiting == 0
    kafka.send("going-on", [click(f"e-{k}", k / 100) for k in range(38, 50)])
    second = take(keyed, uri)
    assert counted(second) == (12, 10, 0, 2)
    assert counted(take(keyed, uri)) == (0, 0, 0, 0)
    assert ids_in(keyed) == sorted(f"e-{k}" for k in range(50))
    assert {place: (part.first, part.next) for place, part in second.partitions.items()} == {
        f"kafka://{kafka.cluster}/going-on/{number}": (10, 13) for number in range(PARTITIONS)
    }
    assert Lake(keyed.lake_uri).manifest().offsets == {place: part.next for place, part in second.partitions.items()}


def test_a_run_of_duplicates_alone_still_moves_the_offsets(keyed: Home, kafka: Brokers) -> None:
    uri = kafka.send("again", [click("e-1")])
    take(keyed, uri)
    kafka.send("again", [click("e-1")])
    assert counted(take(keyed, uri)) == (1, 0, 0, 1)
    assert counted(take(keyed, uri)) == (0, 0, 0, 0)


def test_what_is_no_event_is_quarantined_with_its_partition_and_offset(keyed: Home, kafka: Brokers) -> None:
    spread = json.dumps(click("e-3"), indent=1).encode()
    uri = kafka.send("broken", [b"{broken", None, b"", spread, click("e-4", type="?"), click("e-5"), b"x" * 100_000, b"\n"])
    assert counted(take(keyed, uri)) == (8, 2, 6, 0)
    assert ids_in(keyed) == ["e-3", "e-5"]
    rows = Lake(keyed.lake_uri).read(Table.QUARANTINE).sort("source", "offset")
    found = [(row["source"].rsplit("/", 1)[1], row["offset"], row["rule"]) for row in rows.iter_rows(named=True)]
    partitions = ["0", "0", "1", "2", "2", "3"]
    offsets = [0, 1, 0, 0, 1, 1]
    rules = ["json.invalid", "type.enum", "json.invalid", "json.invalid", "json.invalid", "json.invalid"]
    assert found == list(zip(partitions, offsets, rules, strict=True))
    assert rows["raw"][0] == b"{broken"


def test_one_topic_under_any_of_the_clusters_addresses_is_the_same(keyed: Home, kafka: Brokers) -> None:
    uri = kafka.send("named", [click("e-1")])
    take(keyed, uri)
    assert counted(take(keyed, uri.replace("127.0.0.1", "localhost"))) == (0, 0, 0, 0)


def test_several_topics_and_a_file_are_one_commit(keyed: Home, kafka: Brokers, tmp_path: Path) -> None:
    kafka.send("one", [click("e-1"), click("e-2")])
    uri = kafka.send("two", [click("e-2"), click("e-3")]).replace("/two", "/one,two")
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(click("e-1")) + "\n" + json.dumps(click("e-4")) + "\n")
    result = take(keyed, str(log), uri)
    assert (counted(result), result.manifest, len(result.partitions)) == ((6, 4, 0, 2), 1, 2 * PARTITIONS)


def test_a_topic_may_be_taken_from_its_end_and_then_misses_nothing(keyed: Home, kafka: Brokers) -> None:
    uri = kafka.send("late", [click("old")])
    assert counted(take(keyed, uri, begin="latest")) == (0, 0, 0, 0)
    kafka.send("late", [click("new")])
    assert counted(take(keyed, uri, begin="latest")) == (1, 1, 0, 0)
    assert ids_in(keyed) == ["new"]


def test_a_new_partition_of_a_known_topic_is_read_from_its_beginning(kafka: Brokers) -> None:
    uri = kafka.send("grown", [click(f"e-{k}") for k in range(8)])
    known = {f"kafka://{kafka.cluster}/grown/{number}": 1 for number in range(3)}
    plan = plan_kafka(uri, {}, known, "latest")
    assert [part.start for part in plan.partitions] == [1, 1, 1, 0]


def test_offsets_that_are_gone_are_refused_unless_told_otherwise(keyed: Home, kafka: Brokers) -> None:
    uri = kafka.send("gone", [click(f"e-{k}") for k in range(4)])
    take(keyed, uri)
    filler = [b"x" * 900_000] * (PARTITIONS * 7)  # the mock keeps 5 MB of a partition
    kafka.send("gone", filler)
    with pytest.raises(InputError, match="--skip-lost"):
        take(keyed, uri)
    result = take(keyed, uri, skip_lost=True)
    low = min(part.first for part in result.partitions.values())
    assert low > 1 and all(part.lost == part.first - 1 for part in result.partitions.values())
    assert result.read[Kind.EVENTS] == sum(part.next - part.first for part in result.partitions.values())


def test_a_topic_made_anew_is_refused(kafka: Brokers) -> None:
    uri = kafka.send("anew", [click("e-1")])
    with pytest.raises(InputError, match="made anew"):
        plan_kafka(uri, {}, {f"kafka://{kafka.cluster}/anew/0": 700})


def test_a_range_that_the_partition_does_not_reach_is_an_error_not_a_wait(kafka: Brokers) -> None:
    chunk = plan_kafka(kafka.send("short", [click("e-1")]), {}, {}).chunks(0)[0]
    with pytest.raises(StorageError, match="must reach"):
        list(read_messages(chunk.model_copy(update={"stop": 5})))


def test_messages_come_as_blocks_of_lines_with_their_offsets(kafka: Brokers) -> None:
    plan = plan_kafka(kafka.send("blocks", [click(f"e-{k}") for k in range(12)]), {}, {})
    (block,) = read_messages(plan.chunks(0)[1])
    assert isinstance(block, Messages)
    assert [(record.offset, json.loads(record.raw)["event_id"]) for record in block.records()] == [(0, "e-1"), (1, "e-5"), (2, "e-9")]


def test_a_group_shows_how_far_the_lake_is_where_one_is_named(kafka: Brokers) -> None:
    from confluent_kafka import Consumer, TopicPartition

    plan = plan_kafka(kafka.send("watched", [click(f"e-{k}") for k in range(8)]), {"group.id": SecretStr("lake")}, {})
    show_progress(plan)
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "lake"})
    held = consumer.committed([TopicPartition("watched", number) for number in range(PARTITIONS)], timeout=20)
    consumer.close()
    assert [part.offset for part in held] == [2] * PARTITIONS


@pytest.mark.parametrize("uri", ["kafka://h/t", "kafka://h:1", "kafka://h:1/", "kafka://h:1/a/b", "kafka://user:secret@h:1/t"])
def test_other_forms_are_refused_without_repeating_a_password(uri: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT/TOPIC") as refused:
        plan_kafka(uri, {}, {})
    assert "secret" not in str(refused.value)


def test_a_missing_topic_a_wrong_setting_and_silent_brokers_are_named(kafka: Brokers, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nowhere"):
        plan_kafka(f"kafka://{kafka.address}/nowhere", {}, {})
    with pytest.raises(ConfigError, match=r"no\.such"):
        plan_kafka(f"kafka://{kafka.address}/t", {"no.such": SecretStr("x")}, {})
    monkeypatch.setattr("guidelens.data.records.kafka_source._TIMEOUT_S", 1.0)
    with pytest.raises(StorageError, match=r"kafka://127\.0\.0\.1:9"):
        plan_kafka("kafka://127.0.0.1:9/t", {}, {})


def test_secrets_are_not_shown(kafka: Brokers) -> None:
    plan = plan_kafka(kafka.send("hidden", [click("e-1")]), {"ssl.key.password": SecretStr("hush")}, {})
    assert "hush" not in f"{plan} {plan.chunks(0)} {plan.options.model_dump_json()}"
    (sent, *_) = pickle.loads(pickle.dumps(plan.chunks(0)))  # noqa: S301 - as Ray's workers get it
    assert sent.kafka.settings["ssl.key.password"].get_secret_value() == "hush"


@pytest.mark.drill
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_run_killed_at_any_point_loses_and_doubles_nothing(keyed: Home, kafka: Brokers, crasher: Crasher, tmp_path: Path, point: str) -> None:  # noqa: F811
    topic = point.replace("_", "-")
    records = [click(f"e-{k % 30}", (k % 30) / 10) for k in range(40)] + [b"{broken"] * 3
    uri = kafka.send(topic, records)
    step = Step(verb="kafka", lake=keyed.lake_uri, paths=(uri, str(keyed.root)), crash=(point, 1, str(tmp_path / "mark")))
    assert [crasher.take(step), crasher.take(step)] == [-9, 0]
    kafka.send(topic, [click("late")])
    assert crasher.take(step) == 0
    manifest = Lake(keyed.lake_uri).manifest()
    assert ids_in(keyed) == sorted([*(f"e-{k}" for k in range(30)), "late"])
    assert (manifest.rows(Table.QUARANTINE), sum(manifest.offsets.values())) == (3, len(records) + 1)
    assert Lake(keyed.lake_uri).read(Table.EVENTS)["shopper_key"].unique().to_list() == [PSEUDONYMS.key("s-1")]
