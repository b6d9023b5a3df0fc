"""Training examples: one row a slate request, with the plan of its session where there was one.

Rows are built from the lake's log and the point-in-time shopper frame, kept as numpy columns, and travel as one Parquet file
(plus one safetensors file with the embeddings of the frames and queries they point to). Knows nothing of models.
"""

# Letters: R = rows, K = places of a slate, S = MAX_STEPS, A = NUM_STEPS.

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from guidelens.config import TaskName, TrainConfig, VisitValue
from guidelens.errors import NotFoundError, ShapeError
from guidelens.schemas.steps import MAX_STEPS, NUM_STEPS

SPLITS = ("train", "val", "test")
DEVICES = ("none", "ar", "ar+front")
CHANNELS = ("", "app", "web", "store", "mini_program")
VISIT_VALUES: tuple[VisitValue, ...] = ("browse_ms", "stay_ms", "depth", "view_ms", "carts", "gestures")
_TEXT = ("request_id", "session_id", "shopper_key", "split", "device", "channel")
_EMBEDDINGS = ("frames", "queries")


@dataclass(frozen=True)
class Examples:
    """Columns of one fit's rows; every array's first axis is the row.

    Rows of products are integers of the fit's item table, -1 where there is none. `packed` is the shopper's packed row as of
    `ts_us` or None. `frame_row` and `query_row` point into `frames` (F, 1280) and `queries` (Q, 512). `interest` is NaN where
    not observed. `visit_values` (R, K, VISIT_VALUES): the visit of each product shown, what labels are made of; never an input. Steps and outcomes are -1 past the plan's end. `kept`: the session kept something it bought. `returns` is what a step and all after it earned, in minor
    units; `targets` the strategist's target weights of each next step (zeros where there is no plan).
    """

    request_id: NDArray[np.object_]
    session_id: NDArray[np.object_]
    shopper_key: NDArray[np.object_]
    ts_us: NDArray[np.int64]
    split: NDArray[np.object_]
    packed: NDArray[np.object_]
    frame_row: NDArray[np.int32]
    query_row: NDArray[np.int32]
    focus_row: NDArray[np.int32]
    device: NDArray[np.object_]
    channel: NDArray[np.object_]
    hour: NDArray[np.int8]
    slate_rows: NDArray[np.int32]
    click: NDArray[np.float32]
    purchase: NDArray[np.float32]
    interest: NDArray[np.float32]
    interest_observed: NDArray[np.bool_]
    visit_values: NDArray[np.float32]
    propensity: NDArray[np.float32]
    plan_row: NDArray[np.int32]
    steps: NDArray[np.int8]
    outcomes: NDArray[np.int8]
    step_propensity: NDArray[np.float32]
    view_ms: NDArray[np.float32]
    gestures: NDArray[np.int16]
    kept: NDArray[np.bool_]
    returns: NDArray[np.float32]
    targets: NDArray[np.float32]
    frames: NDArray[np.float32]
    queries: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ts_us)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """The rows asked for (indices or a mask); embeddings are shared, not copied."""
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in _row_columns()})

    def of(self, split: str) -> Self:
        """The rows of one split, in their order."""
        return self.take(self.split == split)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) steps of each plan, 0 where there is none."""
        count: NDArray[np.int64] = (self.steps >= 0).sum(axis=1)
        return count

    @property
    def labelled(self) -> frozenset[TaskName]:
        """The tasks of which the rows hold at least one label."""
        shown_RK = self.slate_rows >= 0
        found: dict[TaskName, bool] = {
            "recommendation": bool(((self.click > 0) & shown_RK).any()),
            "interest": bool((self.interest_observed & shown_RK).any()),
            "plan": bool((self.targets > 0).any()),
        }
        return frozenset(task for task, there in found.items() if there)

    def table(self) -> pa.Table:
        """The row columns as Arrow; two-dimensional ones as fixed-size lists, three-dimensional ones flattened."""
        return pa.table({name: _to_arrow(getattr(self, name)) for name in _row_columns()})

    def save(self, path: Path) -> None:
        """Writes `path` (Parquet) and, beside it, the embeddings (.safetensors)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.table(), path, compression="zstd", row_group_size=max(1, len(self)))
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in _EMBEDDINGS}, path.with_suffix(".safetensors"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads back what `save` wrote.

        Raises:
            NotFoundError: there is no such file; the run's work folder was cleared.
        """
        if not path.exists():
            raise NotFoundError(f"examples {path} do not exist; run `guidelens train` again, which prepares them")
        return cls.of_table(pq.read_table(path), **load_file(path.with_suffix(".safetensors")))

    @classmethod
    def of_table(cls, table: pa.Table, frames: NDArray[np.float32], queries: NDArray[np.float32]) -> Self:
        """Columns of an Arrow table (as of `table`) with the embeddings they point to."""
        columns: dict[str, Any] = {name: _from_arrow(table.column(name).combine_chunks(), name) for name in _row_columns()}
        return cls(**columns, frames=frames, queries=queries)


def _row_columns() -> list[str]:
    return [field.name for field in dataclasses.fields(Examples) if field.name not in _EMBEDDINGS]


def _to_arrow(column: NDArray[np.generic]) -> pa.Array:
    if column.ndim == 1:
        return pa.array(column, type=pa.binary() if column.dtype == object and _is_bytes(column) else None, from_pandas=False)
    flat = pa.array(column.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(column.shape[1:])))


def _is_bytes(column: NDArray[np.generic]) -> bool:
    first = next((value for value in column if value is not None), None)
    return first is None or isinstance(first, bytes)


def _from_arrow(column: pa.Array, name: str) -> NDArray[np.generic]:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if name in _TEXT or name == "packed":
        found: NDArray[np.generic] = np.array([*column.to_pylist(), None], dtype=object)[:-1]
        return found
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    size = column.type.list_size
    shape = {"targets": (len(column), MAX_STEPS, NUM_STEPS), "visit_values": (len(column), size // len(VISIT_VALUES), len(VISIT_VALUES))}.get(
        name, (len(column), size)
    )
    values: NDArray[np.generic] = column.flatten().to_numpy(zero_copy_only=False).reshape(shape)
    return values


def concat(parts: list[Examples]) -> Examples:
    """Rows of several examples one after another; all must point into the same embeddings.

    Raises:
        ShapeError: slates of different lengths.
    """
    widths = {part.slate_rows.shape[1] for part in parts}
    if len(widths) != 1:
        raise ShapeError(f"examples must have slates of one length to be joined, got {sorted(widths)}")
    return dataclasses.replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _row_columns()})


def empty(num_rows: int, num_places: int = 1, frames: NDArray[np.float32] | None = None, queries: NDArray[np.float32] | None = None) -> Examples:
    """Rows that hold nothing yet: no shopper, no slate, no plan. What serving and tests fill in."""
    text = np.full(num_rows, "", dtype=object)
    nothing = np.full(num_rows, -1, dtype=np.int32)
    zeros_RK, zeros_RS = np.zeros((num_rows, num_places), dtype=np.float32), np.zeros((num_rows, MAX_STEPS), dtype=np.float32)
    return Examples(
        request_id=text,
        session_id=text,
        shopper_key=text,
        ts_us=np.zeros(num_rows, dtype=np.int64),
        split=np.full(num_rows, "test", dtype=object),
        packed=np.full(num_rows, None, dtype=object),
        frame_row=nothing,
        query_row=nothing,
        focus_row=nothing,
        device=np.full(num_rows, "ar+front", dtype=object),
        channel=text,
        hour=np.zeros(num_rows, dtype=np.int8),
        slate_rows=np.full((num_rows, num_places), -1, dtype=np.int32),
        click=zeros_RK,
        purchase=zeros_RK,
        interest=np.full((num_rows, num_places), np.nan, dtype=np.float32),
        interest_observed=np.zeros((num_rows, num_places), dtype=np.bool_),
        visit_values=np.zeros((num_rows, num_places, len(VISIT_VALUES)), dtype=np.float32),
        propensity=np.ones((num_rows, num_places), dtype=np.float32),
        plan_row=nothing,
        steps=np.full((num_rows, MAX_STEPS), -1, dtype=np.int8),
        outcomes=np.full((num_rows, MAX_STEPS), -1, dtype=np.int8),
        step_propensity=np.ones((num_rows, MAX_STEPS), dtype=np.float32),
        view_ms=zeros_RS,
        gestures=np.zeros((num_rows, MAX_STEPS), dtype=np.int16),
        kept=np.zeros(num_rows, dtype=np.bool_),
        returns=zeros_RS,
        targets=np.zeros((num_rows, MAX_STEPS, NUM_STEPS), dtype=np.float32),
        frames=np.zeros((0, 1280), dtype=np.float32) if frames is None else frames,
        queries=np.zeros((0, 512), dtype=np.float32) if queries is None else queries,
    )


def temporal_split(ts_us: NDArray[np.int64], config: TrainConfig) -> NDArray[np.object_]:
    """(R,) "train" | "val" | "test": the newest `test_share` of rows is test, the `validation_share` before it val."""
    if len(ts_us) == 0:
        return np.empty(0, dtype=object)
    val_from, test_from = np.quantile(ts_us, [1 - config.test_share - config.validation_share, 1 - config.test_share])
    code = (ts_us >= val_from).astype(int) + (ts_us >= test_from).astype(int)
    names: NDArray[np.object_] = np.array(SPLITS, dtype=object)[code]
    return names


def visit_medians(train: Examples) -> NDArray[np.float32]:
    """(V,) medians of non-zero visit values, in the order of VISIT_VALUES; 1 where there are none."""
    found = [train.visit_values[:, :, number] for number in range(len(VISIT_VALUES))]
    return np.array([np.median(values[values > 0]) if (values > 0).any() else 1.0 for values in found], dtype=np.float32)


def row_of(ids: pl.Series, item_ids: list[str]) -> NDArray[np.int32]:
    """The product row of each id, -1 where the id is null or unknown."""
    known = pl.DataFrame({"id": item_ids, "row": np.arange(len(item_ids), dtype=np.int32)}, schema={"id": pl.String, "row": pl.Int32})
    found = pl.DataFrame({"id": ids.cast(pl.String)}).join(known, on="id", how="left", maintain_order="left")
    rows: NDArray[np.int32] = found["row"].fill_null(-1).to_numpy().astype(np.int32)
    return rows
