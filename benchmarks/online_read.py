"""How long does one shopper row take out of Redis, as served, beside the bare HMGET of the same bytes?

    python -m benchmarks.online_read [--reads 20000] [--shoppers 5000] [--out benchmarks/results]

Starts a redis-server of its own on loopback. Reads alternate, one of each, so that both meet the same machine.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks._results import keep, machine, today
from guidelens.config import FeatureConfig, Home
from guidelens.errors import NotFoundError
from guidelens.features import Features, OnlineReader
from guidelens.schemas.base import Frozen
from guidelens.schemas.packed import PACKED_DTYPE, PACKED_SCHEMA_VERSION
from pipelines.entry import run_command

LIMIT_MS = 2.5
WARM_UP = 500


class Times(Frozen):
    """Milliseconds a read."""

    p50: float
    p90: float
    p99: float


class Found(Frozen):
    """ratio_*: ours over the bare HMGET's."""

    machine: str
    date: str
    command: str
    reads: int
    limit_p99_ms: float
    ours: Times
    raw_hmget: Times
    ratio_p50: float
    ratio_p99: float


@contextmanager
def redis_server() -> Iterator[int]:
    """The port of a redis-server on loopback, stopped at the end.

    Raises:
        NotFoundError: none is installed.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise NotFoundError("no redis-server on this machine; apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    line = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def filled(root: Path, port: int, shoppers: int) -> OnlineReader:
    """A store of random packed rows; the other views stay empty, as no request reads them."""
    features = Features(Home(root=root), FeatureConfig(online_store="redis", redis_connection=f"127.0.0.1:{port}"))
    features.apply()
    online = OnlineReader(features._store())
    chance = np.random.default_rng(0)
    packed = np.frombuffer(chance.bytes(PACKED_DTYPE.itemsize * shoppers), dtype=PACKED_DTYPE).copy()
    packed["version"], packed["as_of_us"] = PACKED_SCHEMA_VERSION, np.arange(shoppers) + 1
    for k in range(shoppers):
        online.push_shopper(key_of(k), packed[k].tobytes())
    return online


def key_of(k: int) -> str:
    """As a pseudonym is: 64 hexadecimal digits."""
    return f"{k:064x}"


def measured(online: OnlineReader, port: int, reads: int, shoppers: int) -> tuple[list[float], list[float]]:
    """Seconds of each read: ours, and the bare HMGET's."""
    import redis
    from feast.infra.online_stores.helpers import _mmh3, _redis_key

    client: Any = redis.Redis(host="127.0.0.1", port=port)
    config, fields = online._store.config, [_mmh3("shopper_packed:packed"), "_ts:shopper_packed"]
    from guidelens.features.online import entity_key

    names = [_redis_key(config.project, entity_key("shopper_key", key_of(k)), config.entity_key_serialization_version) for k in range(shoppers)]
    keys = [key_of(k) for k in range(shoppers)]
    order = np.random.default_rng(1).integers(0, shoppers, reads + WARM_UP)
    ours, raw = [], []
    for k in order:
        ours.append(_seconds(lambda key=keys[k]: online.shopper(key)))
        raw.append(_seconds(lambda name=names[k]: client.hmget(name, fields)))
    return ours[WARM_UP:], raw[WARM_UP:]


def _seconds(read: Callable[[], Any]) -> float:
    began = time.perf_counter()
    found = read()
    took = time.perf_counter() - began
    assert found is not None
    return took


def _times(seconds: list[float]) -> Times:
    p50, p90, p99 = (round(1000 * float(value), 4) for value in np.percentile(seconds, [50, 90, 99]))
    return Times(p50=p50, p90=p90, p99=p99)


def as_markdown(found: Found) -> str:
    rows = [("OnlineReader.shopper, as served", found.ours), ("bare HMGET of the same fields", found.raw_hmget)]
    lines = [
        "# One shopper row out of Redis",
        "",
        f"`{found.command}`, {found.machine}, {found.date}; {found.reads:,} reads of each, one after the other, on loopback. Limit: p99 {found.limit_p99_ms} ms.",
        "",
        "| | p50 ms | p90 ms | p99 ms |",
        "|---|---|---|---|",
        *(f"| {name} | {times.p50:.3f} | {times.p90:.3f} | {times.p99:.3f} |" for name, times in rows),
        f"| ratio | {found.ratio_p50:.2f} | | {found.ratio_p99:.2f} |",
        "",
    ]
    return "\n".join(lines)


@click.command()
@click.option("--reads", default=20_000, show_default=True, type=click.IntRange(1000))
@click.option("--shoppers", default=5_000, show_default=True, type=click.IntRange(1))
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(reads: int, shoppers: int, out: Path) -> None:
    """Read rows one by one and write benchmarks/results/online_read.{json,md}."""
    with redis_server() as port, tempfile.TemporaryDirectory(prefix="gl-online-read-") as root:
        ours, raw = measured(filled(Path(root), port, shoppers), port, reads, shoppers)
    mine, theirs = _times(ours), _times(raw)
    found = Found(
        machine=machine(),
        date=today(),
        command=f"python -m benchmarks.online_read --reads {reads} --shoppers {shoppers}",
        reads=reads,
        limit_p99_ms=LIMIT_MS,
        ours=mine,
        raw_hmget=theirs,
        ratio_p50=round(mine.p50 / theirs.p50, 3),
        ratio_p99=round(mine.p99 / theirs.p99, 3),
    )
    keep(found, as_markdown(found), out, "online_read")


if __name__ == "__main__":
    run_command(command)
