"""From a small log to examples, and examples to a file and back."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from event_frames import START, at, event, frame
from model_samples import sample_examples

from guidelens.data.examples import Examples, concat, temporal_split
from guidelens.data.lake.lake import Lake
from guidelens.data.prepare import Log, build_examples, read_log
from guidelens.errors import NotFoundError
from guidelens.presets import tiny
from guidelens.schemas.steps import OUTCOME_INDEX, STEP_INDEX
from guidelens.schemas.tables import Table

CONFIG = tiny().train
ITEMS = ["a", "b", "c"]
PRICES = np.array([1000.0, np.nan, 500.0])


def session(number: int, start: float, *, slate: bool = True, plan: bool = False) -> list[dict]:
    """A session of shopper `k{number}`: a search, a slate of a and b with b clicked, and a plan about c."""
    own = {"session": f"s{number}", "shopper": f"k{number}"}
    rows = [event(start, "search", query="red", frame_id="f.jpg", **own)]
    if slate:
        shown = {"request_id": f"r{number}", "channel": "app", "device": "ar", **own}
        rows += [event(start + 1, "impression", product_id=p, position=k + 1, propensity=0.5, **shown) for k, p in enumerate(["a", "b", "unknown"])]
        rows += [
            event(start + 3, "click", product_id="b", request_id=f"r{number}", **own),
            event(start + 5, "view", product_id="b", stay_ms=900.0, depth=2, **own),
        ]
    if plan:
        steps = [("show_info", "engaged"), ("call_to_checkout", "purchase")]
        for k, (step, outcome) in enumerate(steps):
            rows.append(event(start + 10 + 5 * k, "guide_step", step=step, step_index=k, step_propensity=0.4, product_id="c", device="ar", **own))
            rows.append(event(start + 11 + 5 * k, "ar_view", view_ms=1500.0, step_index=k, product_id="c", **own))
            rows.append(event(start + 12 + 5 * k, "step_outcome", step_index=k, outcome=outcome, product_id="c", **own))
        rows.append(event(start + 20, "purchase", product_id="c", value_minor=500, **own))
    return rows


def log_of(rows: list[dict], folder: Path, forgotten: tuple[str, ...] = ()) -> Log:
    lake = Lake(str(folder))
    photo = {"path": "f.jpg", "sha256": "0" * 64, "embedding": [0.5] * 1280}
    query = {"query": "red", "embedding": [0.1] * 512}
    tables = {
        Table.EVENTS: rows,
        Table.PHOTOS: [photo],
        Table.QUERIES: [query],
        Table.TOMBSTONES: [{"shopper_key": key, "asked_ts": START} for key in forgotten],
    }
    files = [file for table, found in tables.items() for file in lake.write(table, frame(found, table).to_arrow())]
    return read_log(lake, lake.commit(lake.manifest(), files, {}), CONFIG)


def examples_of(log: Log) -> Examples:
    return build_examples(log, pl.Series([None] * len(log.rows), dtype=pl.Binary), ITEMS, PRICES, CONFIG)[0]


def test_a_slate_becomes_a_row_with_its_labels_and_context(tmp_path: Path) -> None:
    found = examples_of(log_of(session(1, 0), tmp_path))
    assert found.slate_rows.tolist() == [[0, 1, -1]]
    assert found.click.tolist() == [[0.0, 1.0, 0.0]]
    assert found.interest_observed.tolist() == [[False, True, False]]
    assert (found.frame_row[0], found.query_row[0], found.plan_row[0]) == (0, 0, -1)
    assert (found.device[0], found.channel[0], found.hour[0]) == ("ar", "app", 9)
    assert found.frames.shape == (1, 1280)
    assert np.isnan(found.interest[0, 0])


def test_a_plan_joins_its_sessions_slate_and_is_a_row_of_its_own_without_one(tmp_path: Path) -> None:
    found = examples_of(log_of(session(1, 0, plan=True) + session(2, 100, slate=False, plan=True), tmp_path))
    assert len(found) == 2
    assert found.plan_row.tolist() == [2, 2]
    assert (found.slate_rows >= 0).sum(axis=1).tolist() == [2, 0]
    assert found.steps[0, :3].tolist() == [STEP_INDEX["show_info"], STEP_INDEX["call_to_checkout"], -1]
    assert found.outcomes[0, :3].tolist() == [OUTCOME_INDEX["engaged"], OUTCOME_INDEX["purchase"], -1]
    assert found.view_ms[0, :3].tolist() == [1500.0, 1500.0, 0.0]
    assert found.kept.tolist() == [True, True]
    assert found.returns[0, :3] == pytest.approx([CONFIG.margin_share * 500] * 2 + [0])


def test_a_forgotten_shopper_is_in_no_row(tmp_path: Path) -> None:
    log = log_of(session(1, 0) + session(2, 100), tmp_path, forgotten=("k1",))
    assert log.rows["shopper_key"].to_list() == ["k2"]
    assert set(log.visits["shopper_key"]) == {"k2"}


def test_entities_ask_for_each_row_at_its_own_time(tmp_path: Path) -> None:
    log = log_of(session(1, 0) + session(2, 100), tmp_path)
    assert log.entities.to_dicts() == [{"shopper_key": "k1", "event_timestamp": at(1)}, {"shopper_key": "k2", "event_timestamp": at(101)}]


def test_interest_is_labelled_with_the_medians_of_the_training_part_alone(tmp_path: Path) -> None:
    sessions = [session(number, number * 1000.0) for number in range(20)]
    for row in sessions[-1]:
        row.update({"stay_ms": 1e6} if row["type"] == "view" else {})
    log = log_of([row for rows in sessions for row in rows], tmp_path)
    examples, medians = build_examples(log, pl.Series([None] * len(log.rows), dtype=pl.Binary), ITEMS, PRICES, CONFIG)
    assert medians.s50 == 900.0
    assert examples.interest[0, 1] == pytest.approx(1 - np.exp(-(0.3 + 0.2)))


def test_the_split_is_by_time_newest_last() -> None:
    split = temporal_split(np.arange(100, dtype=np.int64), CONFIG)
    assert split.tolist() == ["train"] * 75 + ["val"] * 10 + ["test"] * 15


def test_examples_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    examples = sample_examples(30)
    examples.save(tmp_path / "x" / "examples.parquet")
    back = Examples.load(tmp_path / "x" / "examples.parquet")
    for field in dataclasses.fields(Examples):
        mine, other = getattr(examples, field.name), getattr(back, field.name)
        assert mine.shape == other.shape, field.name
        assert mine.dtype == other.dtype, field.name
        assert np.array_equal(mine, other, equal_nan=mine.dtype.kind == "f"), field.name


def test_parts_joined_are_the_whole() -> None:
    examples = sample_examples(30)
    parts = [examples.of(split) for split in ("train", "val", "test")]
    assert concat(parts).request_id.tolist() == examples.request_id.tolist()


def test_examples_that_are_gone_say_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="guidelens train"):
        Examples.load(tmp_path / "examples.parquet")
