"""What would so many events a day need: nodes, bytes, cost? Arithmetic on what the other benchmarks measured; nothing is measured here.

    python -m benchmarks.scale [--assume events_a_day=1e8 --assume usd_vcpu_hour=0.03 …] [--out benchmarks/results]

Each figure names its inputs and its arithmetic. What was not measured is an assumption with a name, which the reader sets. docs/scale.md says
what bounds each part, and which of these figures lie beyond what is built.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from pydantic import Field, ValidationError

from benchmarks._results import keep
from benchmarks._scale_inputs import Input, Results, inputs_of, read_results
from guidelens.config import IngestConfig
from guidelens.data.lake.event_ids import FIRST_BYTES, LARGEST_MERGED
from guidelens.errors import ConfigError
from guidelens.schemas.base import Frozen
from guidelens.schemas.packed import WINDOWS_H
from pipelines.entry import run_command

_DAY_S = 86_400
_DAYS_A_MONTH = 30
_GB = 1e9


class Assumptions(Frozen):
    """What no benchmark measures. Prices are round figures of large clouds' lists, in US dollars, without discounts."""

    events_a_day: float = Field(1e9, gt=0, description="events a day")
    peak_factor: float = Field(3, ge=1, description="peak rate over the day's mean")
    busy_share: float = Field(0.6, gt=0, le=1, description="share of a vCPU that may be busy at the peak")
    ingests_a_day: float = Field(24, gt=0, description="runs of `guidelens ingest` a day")
    materializations_a_day: float = Field(1, gt=0, description="runs of `guidelens materialize` a day")
    sessions_an_active_shopper: float = Field(1, gt=0, description="sessions a day of a shopper who comes that day")
    online_shoppers: float = Field(1e8, gt=0, description="shoppers who have an online row")
    vcpus_a_node: float = Field(16, gt=0, description="vCPUs a node")
    memory_gb_a_node: float = Field(64, gt=0, description="GB of memory a node")
    usd_vcpu_hour: float = Field(0.045, ge=0, description="USD a vCPU-hour, its memory included")
    usd_memory_gb_month: float = Field(5, ge=0, description="USD a GB-month of memory of an online store, one replica included")
    usd_store_gb_month: float = Field(0.023, ge=0, description="USD a GB-month of object store")
    usd_million_gets: float = Field(0.4, ge=0, description="USD a million GETs")
    usd_million_puts: float = Field(5, ge=0, description="USD a million PUTs and LISTs")
    get_s: float = Field(0.02, ge=0, description="seconds until an object store answers a GET")
    gets_at_once: float = Field(8, ge=1, description="GETs that a task has under way")
    kafka_mb_s_a_partition: float = Field(5, gt=0, description="MB/s that a Kafka partition takes")
    kafka_replicas: float = Field(3, ge=1, description="copies of each Kafka message")
    kafka_days: float = Field(3, gt=0, description="days that Kafka keeps messages")
    usd_disk_gb_month: float = Field(0.08, ge=0, description="USD a GB-month of a broker's disk")
    comfortable_s: float = Field(1, gt=0, description="seconds that opening a lake may take to be comfortable")


class Line(Frozen):
    """One derived figure. arithmetic: with the numbers in it."""

    part: str
    what: str
    figure: str
    arithmetic: str


class Scale(Frozen):
    command: str
    assumptions: Assumptions
    inputs: tuple[Input, ...]
    lines: tuple[Line, ...]
    usd_month: dict[str, float]


class _Sum:
    """The derived figures, part by part, and what each costs a month."""

    def __init__(self, found: Results, given: Assumptions) -> None:
        self.found, self.given = found, given
        self.usd: dict[str, float] = {}
        self.events = given.events_a_day
        self.sessions = self.events * found.footprint.sessions / found.footprint.rows
        self.active = self.sessions / given.sessions_an_active_shopper

    def lines(self) -> Iterator[Line]:
        yield from self._arrival()
        yield from self._ingest()
        yield from self._storage()
        for days in (30, 365):
            yield from self._manifest(days)
            yield from self._judge(days)
        yield from self._features()
        yield from self._online()
        yield from self._network()

    def _cpu_usd(self, cpu_s_a_day: float) -> float:
        return cpu_s_a_day / 3600 / self.given.busy_share * self.given.usd_vcpu_hour * _DAYS_A_MONTH

    def _arrival(self) -> Iterator[Line]:
        given, raw = self.given, self.found.footprint.raw_bytes
        peak = self.events / _DAY_S * given.peak_factor
        mb_s = peak * raw / 1e6
        yield _line("arrival", "events a second at the peak", f"{peak:,.0f}", f"{_n(self.events)} / {_DAY_S:,} x {given.peak_factor:g}")
        partitions = math.ceil(mb_s / given.kafka_mb_s_a_partition)
        yield _line("Kafka", "MB/s at the peak, before compression", f"{mb_s:,.1f}", f"{peak:,.0f} x {raw:.0f} bytes")
        yield _line("Kafka", "partitions for the bytes", f"{partitions}", f"{mb_s:,.1f} / {given.kafka_mb_s_a_partition:g} MB/s")
        if self.found.streaming is not None:
            readers = math.ceil(peak / self.found.streaming.kafka_per_s)
            yield _line("Kafka", "processes that read at the peak", f"{readers}", f"{peak:,.0f} / {self.found.streaming.kafka_per_s:,.0f} a second")
        held = self.events * raw * given.kafka_replicas * given.kafka_days / _GB
        self.usd["Kafka's disks"] = held * given.usd_disk_gb_month
        yield _line(
            "Kafka", "GB on the brokers' disks", f"{held:,.0f}", f"{_n(self.events)} x {raw:.0f} bytes x {given.kafka_replicas:g} x {given.kafka_days:g} days"
        )

    def _ingest(self) -> Iterator[Line]:
        given, rate = self.given, self.found.ingest.rate
        cpu_s = self.events / rate
        vcpus = cpu_s / _DAY_S * given.peak_factor / given.busy_share
        self.usd["ingest, CPU"] = self._cpu_usd(cpu_s)
        yield _line("ingest", "CPU hours a day", f"{cpu_s / 3600:,.1f}", f"{_n(self.events)} / {rate:,.0f} a CPU second")
        at_peak = f"{cpu_s:,.0f} s / {_DAY_S:,} x {given.peak_factor:g} / {given.busy_share:g}"
        yield _line("ingest", "vCPUs to keep up at the peak", f"{vcpus:,.1f}", at_peak)
        yield _line("ingest", "nodes", f"{math.ceil(vcpus / given.vcpus_a_node)}", f"{vcpus:,.1f} / {given.vcpus_a_node:g}")
        run = self.events / given.ingests_a_day
        yield _line("ingest", "events a run", f"{run:,.0f}", f"{_n(self.events)} / {given.ingests_a_day:g}")
        yield _line("ingest", "MB in the driver for where they lie", f"{run * 2.125 / 1e6:,.0f}", f"{run:,.0f} x (2 bytes + 1 bit)")

    def _storage(self) -> Iterator[Line]:
        given, foot = self.given, self.found.footprint
        kept = foot.parquet_bytes + foot.id_bytes
        staged = self.events / given.ingests_a_day * foot.staged_bytes / _GB
        a_day = self.events * kept / _GB
        yield _line("storage", "GB staged during a run", f"{staged:,.1f}", f"{_n(self.events)} / {given.ingests_a_day:g} x {foot.staged_bytes:.0f} bytes")
        yield _line("storage", "GB a day in the lake", f"{a_day:,.1f}", f"{_n(self.events)} x ({foot.parquet_bytes:.1f} + {foot.id_bytes:.1f}) bytes")
        for days in (30, 365):
            yield _line("storage", f"GB after {days} days", f"{a_day * days:,.0f}", f"{a_day:,.1f} x {days}")
        self.usd["lake after 365 days"] = a_day * 365 * given.usd_store_gb_month

    def _manifest(self, days: int) -> Iterator[Line]:
        given, foot, config = self.given, self.found.footprint, IngestConfig()
        entry, read_s = foot.largest_manifest.bytes_a_file, foot.largest_manifest.read_s_a_file
        data_files, id_files = self._data_files(days), self._id_files(days)
        num_bytes = data_files * entry + id_files * foot.id_file_entry_bytes
        part = f"manifest, {days} days"
        yield _line(part, "data files", f"{data_files:,.0f}", f"{days} x {_n(self.events)} / {config.event_file_rows:,} rows")
        yield _line(part, "id files, at least", f"{id_files:,.0f}", f"{days} x {_n(self.events)} / {LARGEST_MERGED:,} ids")
        yield _line(
            part, "MB of one manifest", f"{num_bytes / 1e6:,.1f}", f"{data_files:,.0f} x {entry:.0f} + {id_files:,.0f} x {foot.id_file_entry_bytes:.0f} bytes"
        )
        written = num_bytes / 1e6 * given.ingests_a_day
        yield _line(part, "MB of manifests written a day", f"{written:,.0f}", f"{given.ingests_a_day:g} x {num_bytes / 1e6:,.1f} MB, a version each")
        seconds = (data_files + id_files) * read_s
        yield _line(part, "CPU s to open the lake", f"{seconds:,.1f}", f"{data_files + id_files:,.0f} x {1e6 * read_s:.1f} us")
        if days == 30:
            limit = given.comfortable_s / read_s
            rows = days * self.events / limit
            yield _line("manifest", f"files that open in {given.comfortable_s:g} s", f"{limit:,.0f}", f"{given.comfortable_s:g} s / {1e6 * read_s:.1f} us")
            yield _line(
                "manifest", f"rows a file for {days} days in that", f"{rows:,.0f}", f"{days} x {_n(self.events)} / {limit:,.0f}; sets ingest.event_file_rows"
            )

    def _data_files(self, days: int) -> float:
        return days * self.events / IngestConfig().event_file_rows

    def _id_files(self, days: int) -> float:
        return days * self.events / LARGEST_MERGED

    def _judge(self, days: int) -> Iterator[Line]:
        given, foot = self.given, self.found.footprint
        known, part, runs = days * self.events, f"ids, {days} days", given.ingests_a_day
        cpu_s = known * foot.judge_ns_an_id / 1e9 * runs
        num_bytes = known * foot.id_bytes * runs
        files = self._id_files(days)
        gets = 2 * FIRST_BYTES * files * runs
        wait_s = 2 * files * given.get_s / given.gets_at_once
        yield _line(part, "CPU hours a day", f"{cpu_s / 3600:,.1f}", f"{runs:g} x {_n(known)} x {foot.judge_ns_an_id:.0f} ns")
        yield _line(part, "TB read a day", f"{num_bytes / 1e12:,.1f}", f"{runs:g} x {_n(known)} x {foot.id_bytes:.1f} bytes")
        yield _line(part, "million GETs a day", f"{gets / 1e6:,.1f}", f"{runs:g} x {FIRST_BYTES} tasks x 2 x {files:,.0f} files")
        yield _line(part, "seconds that a task waits for answers", f"{wait_s:,.0f}", f"2 x {files:,.0f} x {given.get_s:g} s / {given.gets_at_once:g}")
        in_memory = f"{_n(known)} x {foot.id_bytes:.1f} bytes"
        yield _line(part, "GB of ids that a follower keeps in memory", f"{known * foot.id_bytes / _GB:,.0f}", in_memory)
        if days == 30:
            self.usd["ids, CPU, 30 days kept"] = self._cpu_usd(cpu_s)
            self.usd["ids, GETs, 30 days kept"] = gets / 1e6 * given.usd_million_gets * _DAYS_A_MONTH

    def _features(self) -> Iterator[Line]:
        given, foot, us = self.given, self.found.footprint, self.found.features.us_an_event
        reach = max(WINDOWS_H) // 24 + 1
        read = self.events * reach
        cpu_s = read * us / 1e6 * given.materializations_a_day
        memory = read * foot.event_memory_bytes / _GB
        log = self.sessions * 365 * foot.session_log_memory_bytes / _GB
        self.usd["features, CPU, if it were split"] = self._cpu_usd(cpu_s)
        yield _line("features", "sessions a day", f"{self.sessions:,.0f}", f"{_n(self.events)} x {foot.sessions:,} / {foot.rows:,}")
        yield _line("features", "events read by a run, at most", _n(read), f"{reach} days x {_n(self.events)}")
        yield _line("features", "CPU hours a day", f"{cpu_s / 3600:,.0f}", f"{given.materializations_a_day:g} x {_n(read)} x {us:.1f} us")
        yield _line("features", "GB of these events in memory", f"{memory:,.0f}", f"{_n(read)} x {foot.event_memory_bytes:.0f} bytes")
        yield _line(
            "features", "GB of a year's session log in memory", f"{log:,.0f}", f"365 x {self.sessions:,.0f} x {foot.session_log_memory_bytes:.0f} bytes"
        )
        need = f"({reach} x {foot.event_memory_bytes:.0f} + 365 x {foot.sessions / foot.rows:.3f} x {foot.session_log_memory_bytes:.0f}) bytes"
        limit = given.memory_gb_a_node * _GB / (memory + log) * self.events / _GB
        yield _line("features", "events a day that one node's memory holds, at most", f"{limit:,.0f}", f"{given.memory_gb_a_node:g} GB / {need}")
        yield _line(
            "features",
            "nodes, if shoppers were split over them, at least",
            f"{math.ceil(self.events / limit):,}",
            f"{_n(self.events)} / {limit:,.0f}; not built",
        )
        table = self.sessions * foot.shopper_row_bytes / _GB
        yield _line("features", "GB a day of shopper rows", f"{table:,.1f}", f"{self.sessions:,.0f} x {foot.shopper_row_bytes:.0f} bytes, a row a session")

    def _online(self) -> Iterator[Line]:
        given, foot = self.given, self.found.footprint
        held, packed = given.online_shoppers * foot.online_bytes / _GB, given.online_shoppers * foot.online_packed_bytes / _GB
        cpu_s = self.active / foot.online_rows_per_cpu_s * given.materializations_a_day
        self.usd["online store"] = held * given.usd_memory_gb_month
        self.usd["online store, loading"] = self._cpu_usd(cpu_s)
        yield _line("online", "GB of all views", f"{held:,.0f}", f"{_n(given.online_shoppers)} x {foot.online_bytes:,.0f} bytes")
        yield _line("online", "GB of the packed rows alone", f"{packed:,.0f}", f"{_n(given.online_shoppers)} x {foot.online_packed_bytes:,.0f} bytes")
        yield _line("online", "shoppers who change a day", f"{self.active:,.0f}", f"{self.sessions:,.0f} / {given.sessions_an_active_shopper:g}")
        loads = f"{given.materializations_a_day:g} x {self.active:,.0f} / {foot.online_rows_per_cpu_s:,.0f} a CPU second"
        yield _line("online", "CPU hours a day to load them", f"{cpu_s / 3600:,.1f}", loads)
        a_second = self.active / _DAY_S * given.peak_factor
        yield _line("online", "rows pushed a second at the peak, one a session", f"{a_second:,.0f}", f"{self.active:,.0f} / {_DAY_S:,} x {given.peak_factor:g}")

    def _network(self) -> Iterator[Line]:
        foot, events = self.found.footprint, self.events
        an_event = foot.raw_bytes + 2 * foot.staged_bytes + foot.parquet_bytes + foot.id_bytes
        mb_s = events * an_event / _DAY_S / 1e6
        what = f"{_n(events)} x ({foot.raw_bytes:.0f} + 2 x {foot.staged_bytes:.0f} + {foot.parquet_bytes:.1f} + {foot.id_bytes:.1f}) bytes / {_DAY_S:,}"
        yield _line("network", "MB/s of ingest, mean, without known ids", f"{mb_s:,.1f}", what)
        objects = 30 * (self._data_files(1) + self._id_files(1))
        self.usd["PUTs"] = objects / 1e6 * self.given.usd_million_puts
        yield _line("network", "objects written a month, at least", f"{objects:,.0f}", "30 x (data files + id files of a day)")


def _line(part: str, what: str, figure: str, arithmetic: str) -> Line:
    return Line(part=part, what=what, figure=figure, arithmetic=arithmetic)


def _n(number: float) -> str:
    return f"{number:,.0f}" if number < 1e6 else f"{number:.3g}".replace("e+0", "e").replace("e+", "e")


def scaled(found: Results, given: Assumptions, line: str) -> Scale:
    summed = _Sum(found, given)
    lines = tuple(summed.lines())
    return Scale(command=line, assumptions=given, inputs=tuple(inputs_of(found)), lines=lines, usd_month={k: round(v, 2) for k, v in summed.usd.items()})


def as_markdown(found: Scale) -> str:
    named = [(field.description, getattr(found.assumptions, name), name) for name, field in Assumptions.model_fields.items()]
    total = sum(found.usd_month.values())
    return "\n".join(
        [
            f"# What {_n(found.assumptions.events_a_day)} events a day would need",
            "",
            f"`{found.command}`: arithmetic on measured figures. Extrapolated by factors of a thousand and more: an order of magnitude, not a promise.",
            "",
            "## Measured",
            "",
            "| | figure | by which benchmark, at which size |",
            "|---|---|---|",
            *(f"| {one.name} | {one.figure} | {one.measured_at} |" for one in found.inputs),
            "",
            "## Assumed",
            "",
            "| | value | to change it |",
            "|---|---|---|",
            *(f"| {said} | {value:,g} | `--assume {name}=` |" for said, value, name in named),
            "",
            "## Derived",
            "",
            "| part | | figure | arithmetic |",
            "|---|---|---|---|",
            *(f"| {one.part} | {one.what} | {one.figure} | {one.arithmetic} |" for one in found.lines),
            "",
            "## A month",
            "",
            "| | USD |",
            "|---|---|",
            *(f"| {name} | {usd:,.0f} |" for name, usd in found.usd_month.items()),
            f"| together | {total:,.0f} |",
            "",
        ]
    )


def read_assumptions(settings: Sequence[str]) -> Assumptions:
    """What `NAME=VALUE` settings say, the defaults for the rest.

    Raises:
        ConfigError: a setting names no assumption, or its value does not fit it.
    """
    pairs = [setting.partition("=") for setting in settings]
    try:
        return Assumptions.model_validate({name: value for name, _, value in pairs})
    except ValidationError as error:
        first = error.errors()[0]
        names = ", ".join(Assumptions.model_fields)
        raise ConfigError(f"--assume must be NAME=VALUE of {names}, got {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@click.command()
@click.option("--assume", multiple=True, metavar="NAME=VALUE", help="Another value of an assumption; repeatable.")
@click.option(
    "--results", default=Path("benchmarks/results"), show_default=True, type=click.Path(path_type=Path), help="Where the other benchmarks' results are."
)
@click.option("--out", default=Path("benchmarks/results"), type=click.Path(file_okay=False, path_type=Path))
def command(assume: tuple[str, ...], results: Path, out: Path) -> None:
    """Derive and write benchmarks/results/scale.{json,md}."""
    line = " ".join(["python -m benchmarks.scale", *(f"--assume {setting}" for setting in assume)])
    found = scaled(read_results(results), read_assumptions(assume), line)
    keep(found, as_markdown(found), out, "scale")


if __name__ == "__main__":
    run_command(command)
