"""How soon a posted event counts: in the shopper's online row, and in the lake behind `guidelens ingest --follow`. And Kafka's reading.

Runs a tiny shop up to a champion, serves it on loopback beside a following ingest, and posts events one request after another. The
Kafka part reads librdkafka's mock brokers, in this process's memory: it says what the reading costs, nothing of a network or a disk.
"""

import json
import os
import platform
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
import polars as pl
from confluent_kafka import Consumer, Producer, TopicPartition

from guidelens import presets
from guidelens.config import Config, Home
from guidelens.data.lake.lake import Lake
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.kafka_source import plan_kafka, read_messages
from guidelens.data.records.reading import Messages
from guidelens.data.records.sources import IngestSources
from guidelens.errors import GuideLensError
from guidelens.features import Features, OnlineReader
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines.entry import progress, run_command

LIMIT_S = 5.0
_SEED = 5
_EVENTS_A_POST = 10
_PATIENCE_S = 60.0
_PARTITIONS = 4
_MESSAGES = 60_000
_TURNS = 5


class Delay(Frozen):
    """Seconds."""

    p50: float
    p95: float
    highest: float


class StreamingStudy(Frozen):
    """online, lake: from sending a POST to where it counts. *_per_s: Kafka messages, the best of several turns."""

    machine: str
    date: str
    command: str
    posts: int
    events: int
    every_s: float
    limit_s: float
    online: Delay
    lake: Delay
    follower_lag_max_s: float
    messages: int
    bare_kafka_per_s: float
    kafka_per_s: float


def made_shop(home: Home, config: Config, folder: Path) -> Path:
    """A simulated shop, taken through every verb up to a champion; its shoppers' file."""
    from guidelens.world import generate
    from pipelines import ingest, materialize, promote, release, train
    from pipelines.cluster import ray_session

    world = generate(config.demo.world, _SEED, folder)
    with ray_session(), (folder / "verbs.log").open("w") as said, redirect_stderr(said):
        ingest.run(
            home, config, IngestSources(catalogue=str(world.catalogue), photos=str(world.photos), events=(str(world.events),), shoppers=str(world.shoppers))
        )
        materialize.run(home, config)
        promote.run(home, release.run(home, train.run(home, config).run).version, force="a tiny world trains no good model")
    return world.shoppers


def posted(home: Home, config: Config, shoppers: Path, url: str, posts: int) -> tuple[list[float], list[float]]:
    """Seconds from each POST until the online row changed, and until the lake had committed its events."""
    online, lake, pseudonyms = Features(home, config.features).online(), Lake(home.lake_uri), Pseudonymizer.open(home.keys)
    names = [name for name in pl.read_ndjson(shoppers)["shopper_id"] if online.shopper(pseudonyms.key(name)) is not None]
    products = lake.read(Table.PRODUCTS, ["product_id"])["product_id"].to_list()
    rng, run, until_online, until_lake = random.Random(_SEED), secrets.token_hex(4), [], []
    with httpx.Client(base_url=url, timeout=30) as client:
        for number in range(posts):
            time.sleep(rng.random())
            name = rng.choice(names)
            key, events = pseudonyms.key(name), [_event(f"{run}-{number}-{k}", name, rng.choice(products)) for k in range(_EVENTS_A_POST)]
            expected, row = lake.manifest().rows(Table.EVENTS) + _EVENTS_A_POST, online.shopper(key)
            begun = time.perf_counter()
            if client.post("/v1/events", json={"events": events}).json()["accepted"] != _EVENTS_A_POST:
                raise GuideLensError(f"POST {number} was not taken whole")
            until_online.append(_until(partial(_is_other, online, key, row), begun))
            until_lake.append(_until(partial(_holds, lake, expected), begun))
    return until_online, until_lake


def _is_other(online: OnlineReader, key: str, row: bytes | None) -> bool:
    return online.shopper(key) != row


def _holds(lake: Lake, events: int) -> bool:
    return lake.manifest().rows(Table.EVENTS) >= events


def _event(event_id: str, shopper: str, product: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {"event_id": event_id, "event_ts": now, "shopper_id": shopper, "session_id": "bench", "type": "view", "product_id": product, "stay_ms": 1500}


def _until(met: Callable[[], bool], begun: float) -> float:
    while not met():
        if time.perf_counter() - begun > _PATIENCE_S:
            raise GuideLensError(f"a posted event did not count within {_PATIENCE_S:.0f} s")
        time.sleep(0.005)
    return time.perf_counter() - begun


@contextmanager
def follower(home: Home, every_s: float) -> Iterator[list[float]]:
    """A following ingest beside; at the end the list holds the highest lag that it told of."""
    line = [sys.executable, "-m", "pipelines.cli", "ingest", "--follow", "--every", str(every_s), "--preset", "tiny", "--home", str(home.root)]
    told: list[float] = []
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield told
        finally:
            process.terminate()
            out, _ = process.communicate(timeout=60)
    told.append(json.loads(out.splitlines()[-1])["lag_max_s"])


def kafka_rates() -> tuple[float, float]:
    """Messages a second, read by the bare client and as the blocks that ingest checks; turn by turn, the best of each."""
    producer = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 2})
    broker = next(iter(producer.list_topics("log", timeout=20).brokers.values()))
    value = json.dumps(_event("e" * 20, "s" * 10, "p" * 10)).encode()
    for number in range(_MESSAGES):
        producer.produce("log", value, partition=number % _PARTITIONS)
        producer.poll(0)
    producer.flush(60)
    address = f"{broker.host}:{broker.port}"
    bare, ours = [], []
    for _ in range(_TURNS):
        bare.append(_bare_rate(address))
        begun = time.perf_counter()
        plan = plan_kafka(f"kafka://{address}/log", {}, {})
        blocks = [block for chunk in plan.chunks(0) for block in read_messages(chunk)]
        read = sum(len(block.offsets) for block in blocks if isinstance(block, Messages))
        assert read == _MESSAGES
        ours.append(read / (time.perf_counter() - begun))
    return max(bare), max(ours)


def _bare_rate(address: str) -> float:
    begun, read = time.perf_counter(), 0
    for number in range(_PARTITIONS):
        consumer = Consumer({"bootstrap.servers": address, "group.id": "bare", "enable.auto.commit": False})
        consumer.assign([TopicPartition("log", number, 0)])
        stop = read + _MESSAGES // _PARTITIONS
        while read < stop:
            read += len([message.value() for message in consumer.consume(min(10_000, stop - read), timeout=1.0)])
        consumer.close()
    return read / (time.perf_counter() - begun)


def _delay(seconds: list[float]) -> Delay:
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return Delay(p50=round(float(p50), 3), p95=round(float(p95), 3), highest=round(max(seconds), 3))


def as_markdown(found: StreamingStudy) -> str:
    rows = [("the shopper's online row", found.online), (f"the lake's commit, `--follow --every {found.every_s:g}`", found.lake)]
    table = [f"| {name} | {delay.p50} | {delay.p95} | {delay.highest} | {found.limit_s} | {delay.p95 / found.limit_s:.2f} |" for name, delay in rows]
    return f"""# From a posted event to where it counts

`{found.command}`, {found.machine}, {found.date}; {found.posts} POSTs over loopback, {found.events} events, sqlite online store, local lake.

| until | p50 s | p95 s | highest s | limit s | p95 of the limit |
|---|---|---|---|---|---|
{chr(10).join(table)}

The follower itself told of a lag of at most {found.follower_lag_max_s} s.

## Reading Kafka

{found.messages} messages of {_PARTITIONS} partitions from librdkafka's mock brokers in memory; no network, no disk.

| | messages a second |
|---|---|
| the bare client, values dropped | {found.bare_kafka_per_s:,.0f} |
| as ingest's blocks, positions looked up first | {found.kafka_per_s:,.0f} ({found.kafka_per_s / found.bare_kafka_per_s:.2f}) |
"""


@click.command()
@click.option("--posts", default=60, show_default=True, type=click.IntRange(5), help="Requests, one after another.")
@click.option("--every", default=2.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds from batch to batch of the follower.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(posts: int, every: float, out: Path) -> None:
    """Write benchmarks/results/streaming.{json,md}."""
    from pipelines import serve_graph

    progress("reading Kafka")
    bare, ours = kafka_rates()
    config = presets.load("tiny", ["train.single_task_controls=false"], seed=_SEED)
    with tempfile.TemporaryDirectory(prefix="gl-streaming-") as name:
        home = Home(root=Path(name) / "home")
        progress("a tiny shop, up to a champion")
        shoppers = made_shop(home, config, Path(name) / "world")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        with serve_graph.start(home, port=port) as url, follower(home, every) as told:
            progress(f"{posts} POSTs to {url}")
            posted(home, config, shoppers, url, 3)
            online, lake = posted(home, config, shoppers, url, posts)
    found = StreamingStudy(
        machine=f"{os.cpu_count()} logical CPUs, {platform.machine()}, Python {platform.python_version()}",
        date=datetime.now(UTC).date().isoformat(),
        command=f"python -m benchmarks.streaming --posts {posts} --every {every:g}",
        posts=posts,
        events=posts * _EVENTS_A_POST,
        every_s=every,
        limit_s=LIMIT_S,
        online=_delay(online),
        lake=_delay(lake),
        follower_lag_max_s=told[0],
        messages=_MESSAGES,
        bare_kafka_per_s=round(bare),
        kafka_per_s=round(ours),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "streaming.json").write_text(json.dumps(found.model_dump(mode="json"), indent=1) + "\n")
    (out / "streaming.md").write_text(as_markdown(found))
    print(as_markdown(found))


if __name__ == "__main__":
    run_command(command)
