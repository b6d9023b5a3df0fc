"""A topic above what the driver does alone, read by Ray's workers."""

from event_logs import click
from kafka_brokers import Brokers

from guidelens import presets
from guidelens.config import Home
from guidelens.data.ingest.stages import is_small
from guidelens.data.lake.lake import Lake
from guidelens.data.records import kafka_source
from guidelens.data.records.sources import IngestSources, Kind
from guidelens.schemas.tables import Table
from pipelines import ingest


def test_a_topic_is_read_by_rays_workers_exactly_once(ray_cluster: None, home: Home) -> None:
    kafka, records = Brokers(), [click(f"e-{k % 2500}", (k % 2500) / 1000) for k in range(3000)]
    uri = kafka.send("large", [*records, b"{broken"])
    assert not is_small(kafka_source.plan_kafka(uri, {}, {}).size_bytes)
    for expected in ((3001, 2500, 1, 500), (0, 0, 0, 0)):
        done = ingest.run(home, presets.load("tiny"), IngestSources(events=(uri,)))
        assert tuple(counts[Kind.EVENTS] for counts in (done.read, done.accepted, done.quarantined, done.duplicate)) == expected
    lake = Lake(home.lake_uri)
    assert lake.read(Table.EVENTS, ["event_id"])["event_id"].n_unique() == lake.manifest().rows(Table.EVENTS) == 2500
    assert sum(lake.manifest().offsets.values()) == 3001
