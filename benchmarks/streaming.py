"""How soon a posted event counts: in the shopper's online row, and in the lake behind `guidelens ingest --follow`. And Kafka's reading.

    python -m benchmarks.streaming [--posts 300] [--per-second 5] [--every 2] [--out benchmarks/results]

Runs a tiny shop up to a champion, serves it on loopback beside a following ingest, and posts events at even times, whether or not what was
posted before has arrived. The Kafka part reads librdkafka's mock brokers, in this process's memory: it says what the reading costs, nothing
of a network or a disk.
"""

import json
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx
import numpy as np
import polars as pl
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks._results import keep, machine, today
from guidelens import presets
from guidelens.config import Config, Home
from guidelens.data.lake.lake import Lake
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.data.records.kafka_source import plan_kafka, read_messages
from guidelens.data.records.reading import Messages
from guidelens.data.records.sources import IngestSources
from guidelens.errors import GuideLensError
from guidelens.features import Features
from guidelens.schemas.base import Frozen
from guidelens.schemas.tables import Table
from pipelines.entry import progress, run_command

LIMIT_S = 5.0
_SEED = 5
_EVENTS_A_POST = 10
_PATIENCE_S = 60.0
_ONLINE_LOOK_S, _LAKE_LOOK_S = 0.005, 0.05
_PARTITIONS = 4
_MESSAGES = 60_000
"""The mock brokers keep 5 MB a partition and let older messages go."""
_TURNS = 9


class Delay(Frozen):
    """Seconds."""

    p50: float
    p95: float
    highest: float


class StreamingStudy(Frozen):
    """online, lake: from sending a POST to where it counts. per_s: POSTs a second, as they were sent.

    *_per_s, *_per_cpu_s: Kafka messages, the best of several turns; the CPU seconds are those of the brokers in the same process, too.
    """

    machine: str
    date: str
    command: str
    posts: int
    events: int
    per_s: float
    every_s: float
    limit_s: float
    online: Delay
    lake: Delay
    follower_lag_max_s: float
    messages: int
    bare_kafka_per_s: float
    kafka_per_s: float
    bare_kafka_per_cpu_s: float
    kafka_per_cpu_s: float


class Delays(NamedTuple):
    """Seconds from each POST until the online row changed, and until the lake had committed its events; took_s: of all POSTs together."""

    online: list[float]
    lake: list[float]
    took_s: float


class KafkaRate(NamedTuple):
    per_s: float
    per_cpu_s: float


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


class Watch:
    """Posts under way: who waits for a changed online row, and which number of events the lake must reach."""

    def __init__(self, home: Home, config: Config) -> None:
        self.reader = Features(home, config.features).online()
        self.lake = Lake(home.lake_uri)
        self.committed = self.lake.manifest().rows(Table.EVENTS)
        self.waiting: dict[str, tuple[float, bytes | None]] = {}
        self._expected: deque[tuple[float, int]] = deque()
        self._sent = self.committed
        self.online_s: list[float] = []
        self.lake_s: list[float] = []
        self.all_sent = threading.Event()

    def sent(self, key: str, row: bytes | None, begun: float) -> None:
        self._sent += _EVENTS_A_POST
        self._expected.append((begun, self._sent))
        self.waiting[key] = (begun, row)

    def online(self) -> None:
        """Until all that was sent changed a row."""
        while self.waiting or not self.all_sent.is_set():
            for key, (begun, row) in list(self.waiting.items()):
                if self.reader.shopper(key) != row:
                    self.online_s.append(time.perf_counter() - begun)
                    del self.waiting[key]
                else:
                    _patience(begun)
            time.sleep(_ONLINE_LOOK_S)

    def commits(self) -> None:
        """Until the lake holds all that was sent; the inbox keeps the order of the POSTs."""
        while self._expected or not self.all_sent.is_set():
            held = self.lake.manifest().rows(Table.EVENTS)
            while self._expected and self._expected[0][1] <= held:
                self.lake_s.append(time.perf_counter() - self._expected.popleft()[0])
            if self._expected:
                _patience(self._expected[0][0])
            time.sleep(_LAKE_LOOK_S)


def _patience(begun: float) -> None:
    if time.perf_counter() - begun > _PATIENCE_S:
        raise GuideLensError(f"a posted event did not count within {_PATIENCE_S:.0f} s")


def posted(home: Home, config: Config, shoppers: Path, url: str, posts: int, per_s: float) -> Delays:
    """Posts at even times, to one shopper at a time each, while two threads look for what came of it."""
    watch, pseudonyms = Watch(home, config), Pseudonymizer.open(home.keys)
    known = {name: pseudonyms.key(name) for name in pl.read_ndjson(shoppers)["shopper_id"]}
    names = [name for name, key in known.items() if watch.reader.shopper(key) is not None]
    products = watch.lake.read(Table.PRODUCTS, ["product_id"])["product_id"].to_list()
    rng, run = random.Random(_SEED), secrets.token_hex(4)
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(watch.online), pool.submit(watch.commits)]
        began = time.perf_counter()
        try:
            for number in range(posts):
                time.sleep(max(0.0, began + number / per_s - time.perf_counter()))
                name = rng.choice([name for name in names if known[name] not in watch.waiting])
                events = [_event(f"{run}-{number}-{k}", name, rng.choice(products)) for k in range(_EVENTS_A_POST)]
                watch.sent(known[name], watch.reader.shopper(known[name]), time.perf_counter())
                if client.post("/v1/events", json={"events": events}).json()["accepted"] != _EVENTS_A_POST:
                    raise GuideLensError(f"POST {number} was not taken whole")
            took_s = time.perf_counter() - began
        finally:
            watch.all_sent.set()
        for look in watching:
            look.result()
    return Delays(watch.online_s, watch.lake_s, took_s)


def _event(event_id: str, shopper: str, product: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {"event_id": event_id, "event_ts": now, "shopper_id": shopper, "session_id": "bench", "type": "view", "product_id": product, "stay_ms": 1500}


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


def kafka_rates() -> tuple[KafkaRate, KafkaRate]:
    """Read by the bare client, and as the blocks that ingest checks; turn by turn, the best of each."""
    producer = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 2})
    broker = next(iter(producer.list_topics("log", timeout=20).brokers.values()))
    value = json.dumps(_event("e" * 20, "s" * 10, "p" * 10)).encode()
    for number in range(_MESSAGES):
        producer.produce("log", value, partition=number % _PARTITIONS)
        if number % 10_000 == 0:
            producer.flush(60)
    producer.flush(60)
    address = f"{broker.host}:{broker.port}"
    bare, ours = [], []
    for _ in range(_TURNS):
        bare.append(_rate(lambda: _read_bare(address)))
        ours.append(_rate(lambda: _read_as_ingest(address)))
    return _best(bare), _best(ours)


def _rate(read: Callable[[], int]) -> KafkaRate:
    wall, cpu = time.perf_counter(), time.process_time()
    if (held := read()) != _MESSAGES:
        raise GuideLensError(f"the brokers must give {_MESSAGES} messages, got {held}")
    return KafkaRate(_MESSAGES / (time.perf_counter() - wall), _MESSAGES / (time.process_time() - cpu))


def _best(turns: list[KafkaRate]) -> KafkaRate:
    return KafkaRate(round(max(turn.per_s for turn in turns)), round(max(turn.per_cpu_s for turn in turns)))


def _read_as_ingest(address: str) -> int:
    plan = plan_kafka(f"kafka://{address}/log", {}, {})
    blocks = (block for chunk in plan.chunks(0) for block in read_messages(chunk))
    return sum(len(block.offsets) for block in blocks if isinstance(block, Messages))


def _read_bare(address: str) -> int:
    read = 0
    for number in range(_PARTITIONS):
        consumer = Consumer({"bootstrap.servers": address, "group.id": "bare", "enable.auto.commit": False})
        consumer.assign([TopicPartition("log", number, 0)])
        stop = read + _MESSAGES // _PARTITIONS
        while read < stop:
            read += len([message.value() for message in consumer.consume(min(10_000, stop - read), timeout=1.0)])
        consumer.close()
    return read


def _delay(seconds: list[float]) -> Delay:
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return Delay(p50=round(float(p50), 3), p95=round(float(p95), 3), highest=round(max(seconds), 3))


def as_markdown(found: StreamingStudy) -> str:
    rows = [("the shopper's online row", found.online), (f"the lake's commit, `--follow --every {found.every_s:g}`", found.lake)]
    table = [f"| {name} | {delay.p50} | {delay.p95} | {delay.highest} | {found.limit_s:g} | {delay.p95 / found.limit_s:.2f} |" for name, delay in rows]
    shares = (found.kafka_per_s / found.bare_kafka_per_s, found.kafka_per_cpu_s / found.bare_kafka_per_cpu_s)
    return f"""# From a posted event to where it counts

`{found.command}`, {found.machine}, {found.date}. {found.posts} POSTs over loopback with {_EVENTS_A_POST} events each, {found.per_s:.1f} a second
at even times ({found.per_s * _EVENTS_A_POST:.0f} events a second); server, follower, posting and looking share the machine. sqlite online store, local lake.

| until | p50 s | p95 s | highest s | limit s | p95 of the limit |
|---|---|---|---|---|---|
{chr(10).join(table)}

The follower itself told of a lag of at most {found.follower_lag_max_s} s. A row is looked at every {1000 * _ONLINE_LOOK_S:g} ms, the lake every {1000 * _LAKE_LOOK_S:g} ms.

## Reading Kafka

{found.messages:,} messages of {_PARTITIONS} partitions from librdkafka's mock brokers in memory: no network, no disk, and the brokers' own work in the CPU seconds.

| | messages a second | a CPU second |
|---|---|---|
| the bare client, values dropped | {found.bare_kafka_per_s:,.0f} | {found.bare_kafka_per_cpu_s:,.0f} |
| as ingest's blocks, positions looked up first | {found.kafka_per_s:,.0f} ({shares[0]:.2f}) | {found.kafka_per_cpu_s:,.0f} ({shares[1]:.2f}) |
"""


@click.command()
@click.option("--posts", default=300, show_default=True, type=click.IntRange(5), help="How many requests.")
@click.option("--per-second", default=5.0, show_default=True, type=click.FloatRange(min=0.1, max=50), help="Requests a second, at even times.")
@click.option("--every", default=2.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds from batch to batch of the follower.")
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(posts: int, per_second: float, every: float, out: Path) -> None:
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
            progress(f"{posts} POSTs to {url}, {per_second:g} a second")
            posted(home, config, shoppers, url, 5, per_second)
            delays = posted(home, config, shoppers, url, posts, per_second)
    found = StreamingStudy(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.streaming --posts {posts} --per-second {per_second:g} --every {every:g}",
        posts=posts,
        events=posts * _EVENTS_A_POST,
        per_s=round(posts / delays.took_s, 2),
        every_s=every,
        limit_s=LIMIT_S,
        online=_delay(delays.online),
        lake=_delay(delays.lake),
        follower_lag_max_s=told[0],
        messages=_MESSAGES,
        bare_kafka_per_s=bare.per_s,
        kafka_per_s=ours.per_s,
        bare_kafka_per_cpu_s=bare.per_cpu_s,
        kafka_per_cpu_s=ours.per_cpu_s,
    )
    keep(found, as_markdown(found), out, "streaming")


if __name__ == "__main__":
    run_command(command)
