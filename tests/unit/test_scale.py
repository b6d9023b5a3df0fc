"""What a large shop would need, derived from made-up results and counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import Scale, read_assumptions, read_results, scaled
from guidelens.errors import ConfigError, NotFoundError

INGEST = {"measured": [{"way": way, "rows": 1000, "cpu_seconds": cpu_s, "peak_mb": 5} for way, cpu_s in (("one process", 1), ("2 workers", 2))]}
FOOTPRINT = {
    "rows": 1000,
    "raw_bytes": 300,
    "staged_bytes": 100,
    "parquet_bytes": 20,
    "id_bytes": 16,
    "id_file_entry_bytes": 200,
    "sessions": 50,
    "event_memory_bytes": 150,
    "session_log_memory_bytes": 160,
    "shopper_row_bytes": 140,
    "shoppers": 9,
    "online_bytes": 5000,
    "online_packed_bytes": 1500,
    "online_rows_per_cpu_s": 2000,
    "manifests": [{"files": 10, "bytes": 9999, "read_cpu_s": 9}, {"files": 1000, "bytes": 250_000, "read_cpu_s": 0.01}],
    "judging": [{"known": known, "new": 100, "cpu_s": cpu_s} for known, cpu_s in ((1_000_000, 0.1), (3_000_000, 0.18))],
}
FEATURES = {"sizes": [{"events": events, "incremental_s": seconds, "read_share": 0.5} for events, seconds in ((10_000, 1.0), (30_000, 1.1))]}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, found in (("ingest", INGEST), ("footprint", FOOTPRINT), ("features", FEATURES)):
        (tmp_path / f"{name}.json").write_text(json.dumps(found | {"machine": "m", "date": "d"}))
    return tmp_path


def figures(results: Path, *assumed: str) -> tuple[Scale, dict[tuple[str, str], str]]:
    found = scaled(read_results(results), read_assumptions(assumed), "")
    return found, {(line.part, line.what): line.figure for line in found.lines}


def test_each_figure_is_the_hand_count(results: Path) -> None:
    found, figure = figures(results, "events_a_day=1e8", "ingests_a_day=10", "busy_share=1", "usd_vcpu_hour=1", "vcpus_a_node=4")
    expected: dict[tuple[str, str], Any] = {
        ("ingest", "CPU hours a day"): "55.6",  # 1e8 / 500 / 3600
        ("ingest", "vCPUs to keep up at the peak"): "6.9",
        ("ingest", "nodes"): "2",
        ("storage", "GB a day in the lake"): "3.6",
        ("manifest, 30 days", "data files"): "12,000",
        ("manifest, 30 days", "MB of one manifest"): "3.1",  # 12,000 x 250 + 750 x 200
        ("manifest", "files that open in 1 s"): "100,000",
        ("ids, 30 days", "CPU hours a day"): "0.3",  # 10 x 3e9 x 40 ns
        ("ids, 30 days", "TB read a day"): "0.5",
        ("ids, 365 days", "million GETs a day"): "46.7",  # 10 x 256 x 2 x 9,125
        ("features", "CPU hours a day"): "9",  # 31e8 x 10 us
        ("features", "sessions a day"): "5,000,000",
        ("online", "GB of all views"): "500",
    }
    assert {key: figure[key] for key in expected} == expected
    assert found.usd_month["ingest, CPU"] == pytest.approx(1e8 / 500 / 3600 * 30, rel=1e-3)


def test_kafka_is_not_guessed_where_it_was_not_measured(results: Path) -> None:
    found, figure = figures(results)
    assert [one.figure for one in found.inputs if "Kafka" in one.name] == ["not measured"]
    (results / "streaming.json").write_text(json.dumps({"messages": 10, "kafka_per_s": 10_000}))
    _, with_kafka = figures(results)
    assert set(with_kafka) - set(figure) == {("Kafka", "processes that read at the peak")}
    assert with_kafka["Kafka", "processes that read at the peak"] == "4"  # 34,722 a second


def test_a_benchmark_that_was_not_run_is_named_with_its_command(results: Path) -> None:
    (results / "footprint.json").unlink()
    with pytest.raises(NotFoundError, match=r"run that first|benchmarks\.footprint"):
        read_results(results)


@pytest.mark.parametrize("setting", ["nonsense=1", "busy_share=2", "events_a_day=many"])
def test_an_assumption_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        read_assumptions([setting])
