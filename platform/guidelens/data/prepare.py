"""From the lake's log to training examples: slates and plans as rows, labels, splits, and the embeddings they point to.

Knows nothing of Feast (the shopper frame is handed in) and nothing of models.
"""

# Letters: R = rows, K = places of a slate, S = MAX_STEPS.

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.config import TrainConfig
from guidelens.data.examples import VISIT_VALUES, Examples, empty, row_of, temporal_split
from guidelens.data.lake.lake import Lake, Manifest
from guidelens.data.privacy.consent import consented, consents
from guidelens.data.sessions import as_people, identity_links, in_sessions
from guidelens.data.visits import OBSERVED, InterestMedians, interest, interest_medians, plans, requests, visits
from guidelens.schemas.steps import MAX_STEPS, OUTCOME_INDEX, STEP_INDEX
from guidelens.schemas.tables import IMAGE_DIM, TEXT_DIM, Table

_EVENT_COLUMNS = (
    *(
        "event_id",
        "event_ts",
        "created_ts",
        "shopper_key",
        "is_anonymous",
        "anonymous_key",
        "session_id",
        "type",
        "product_id",
        "request_id",
        "position",
        "propensity",
    ),
    *("browse_ms", "stay_ms", "depth", "view_ms", "gesture", "step", "step_index", "step_propensity", "outcome", "query", "frame_id", "value_minor"),
    *("channel", "device"),
)


@dataclass(frozen=True)
class Log:
    """One snapshot of the log: a frame of rows (slates joined with plans), its visits, and embeddings by name."""

    rows: pl.DataFrame
    visits: pl.DataFrame
    photos: pl.DataFrame
    queries: pl.DataFrame

    @property
    def entities(self) -> pl.DataFrame:
        """shopper_key and event_timestamp of each row, in row order: what the feature store is asked for, by the key serving knew."""
        return self.rows.select(pl.col("asked_as").alias("shopper_key"), pl.col("request_ts").alias("event_timestamp"))


def read_log(lake: Lake, manifest: Manifest, config: TrainConfig) -> Log:
    """The snapshot's slates and plans, sorted by time; no rows where the log has none.

    Without forgotten shoppers, and without what happened while a shopper did not consent.
    """
    events = lake.read(Table.EVENTS, _EVENT_COLUMNS, manifest=manifest)
    forgotten = lake.read(Table.TOMBSTONES, ["shopper_key"], manifest=manifest)["shopper_key"]
    events = events.filter(~pl.col("shopper_key").is_in(forgotten.to_list()))
    events = in_sessions(consented(as_people(events, identity_links(events)), consents(lake, manifest)))
    rows = _rows(requests(events, config.purchase_window_h), plans(events))
    used = rows["frame_id"].drop_nulls().unique()
    photos = lake.read(Table.PHOTOS, ["path", "embedding"], manifest=manifest).filter(pl.col("path").is_in(used.to_list())).unique("path").sort("path")
    queries = lake.read(Table.QUERIES, ["query", "embedding"], manifest=manifest).unique("query").sort("query")
    return Log(rows, visits(events), photos, queries)


def _rows(slates: pl.DataFrame, plans: pl.DataFrame) -> pl.DataFrame:
    """Slates, each plan joined to its session's last slate before it (else its first one), and plans of no slate as rows of their own."""
    session = ["shopper_key", "client_session_id"]
    named = plans.drop("session_id").rename({"product_id": "plan_product_id", "device": "plan_device", "view_ms": "step_view_ms"})
    pairs = slates.select(*session, "request_id", "request_ts").join(named.select(*session, "plan_ts"), on=session, how="inner")
    before = pl.col("request_ts") <= pl.col("plan_ts")
    order = pl.when(before).then(-pl.col("request_ts").dt.epoch("us")).otherwise(pl.col("request_ts").dt.epoch("us"))
    hosts = pairs.sort(before.not_(), order, "request_id").unique(session, keep="first", maintain_order=True).select(*session, "request_id")
    hosted = named.join(hosts, on=session, how="left")
    rows = slates.join(hosted.filter(pl.col("request_id").is_not_null()).drop("asked_as"), on=[*session, "request_id"], how="left")
    alone = hosted.filter(pl.col("request_id").is_null()).with_columns(pl.col("plan_ts").alias("request_ts"), pl.col("client_session_id").alias("request_id"))
    joined = pl.concat([rows, alone], how="diagonal_relaxed") if len(alone) else rows
    return joined.with_columns(pl.coalesce("device", "plan_device").alias("device")).sort("request_ts", "request_id")


def build_examples(
    log: Log, packed: pl.Series, item_ids: list[str], prices_minor: NDArray[np.float64], config: TrainConfig
) -> tuple[Examples, InterestMedians]:
    """Rows of `log` as arrays, and the medians of its training part that the interest labels were made with.

    Args:
        packed: the packed shopper row of each row of `log.entities`, null where the shopper was not known yet.
        item_ids: product ids in the order of the fit's item table.
        prices_minor: (N,) of the same products, NaN where unknown.
    """
    rows = log.rows
    ts_us = rows["request_ts"].dt.epoch("us").to_numpy().astype(np.int64)
    split = temporal_split(ts_us, config)
    train_until = pl.lit(rows["request_ts"].filter(pl.Series(split == "train")).max(), dtype=rows.schema["request_ts"])
    medians = interest_medians(log.visits.filter(pl.col("visit_ts") <= train_until))
    places = max(1, *rows["slate_product_id"].list.len().fill_null(0).to_list(), 1)
    base = empty(len(rows), places, _embeddings(log.photos, IMAGE_DIM), _embeddings(log.queries, TEXT_DIM))
    text = {name: rows[name].fill_null("").to_numpy().astype(object) for name in ("request_id", "shopper_key", "device", "channel")}
    context = dataclasses.replace(
        base,
        **text,
        session_id=rows["client_session_id"].fill_null("").to_numpy().astype(object),
        ts_us=ts_us,
        split=split,
        packed=np.array([*packed.to_list(), None], dtype=object)[:-1],
        hour=rows["request_ts"].dt.hour().to_numpy().astype(np.int8),
        frame_row=row_of(rows["frame_id"], log.photos["path"].to_list()),
        query_row=row_of(rows["query"], log.queries["query"].to_list()),
        focus_row=row_of(rows["focus_product_id"], item_ids),
        plan_row=row_of(rows["plan_product_id"], item_ids),
    )
    return _with_plans(_with_slates(context, rows, item_ids, medians, config), rows, prices_minor, config), medians


def _embeddings(frame: pl.DataFrame, dim: int) -> NDArray[np.float32]:
    if len(frame) == 0:
        return np.zeros((0, dim), dtype=np.float32)
    values: NDArray[np.float32] = frame["embedding"].cast(pl.Array(pl.Float32, dim)).to_numpy()
    return np.ascontiguousarray(values)


def _padded(rows: pl.DataFrame, name: str, width: int, fill: float) -> NDArray[np.float64]:
    """(R, width) float64 of a list column, `fill` where a list is null, short or holds a null."""
    column = rows[name]
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    out = np.full((len(rows), width), fill, dtype=np.float64)
    inside = np.arange(width) < lengths[:, None]
    kept = column.list.head(width).filter(pl.Series(lengths > 0)).explode(empty_as_null=False) if lengths.any() else pl.Series([], dtype=pl.Float64)
    out[inside] = kept.cast(pl.Float64).fill_null(fill).to_numpy()
    return out


def _with_slates(base: Examples, rows: pl.DataFrame, item_ids: list[str], medians: InterestMedians, config: TrainConfig) -> Examples:
    width = base.slate_rows.shape[1]
    shown = rows.with_row_index("row").select("row", "slate_product_id").explode("slate_product_id")
    coded = shown.with_columns(pl.Series("code", row_of(shown["slate_product_id"], item_ids))).group_by("row", maintain_order=True).agg("code")
    slate_rows = _padded(coded, "code", width, -1).astype(np.int32)
    visit_RKV = np.stack([_padded(rows, name, width, 0) for name in VISIT_VALUES], axis=2)
    browse, stay, depth, view = (visit_RKV[:, :, VISIT_VALUES.index(name)] for name in OBSERVED)
    observed = (_padded(rows, "interest_observed", width, 0) > 0) & (slate_rows >= 0)
    values = interest(browse, stay, depth, view, medians, config.interest_weights)
    return dataclasses.replace(
        base,
        slate_rows=slate_rows,
        click=_padded(rows, "click", width, 0).astype(np.float32),
        purchase=_padded(rows, "purchase", width, 0).astype(np.float32),
        propensity=_padded(rows, "propensity", width, np.nan).astype(np.float32),
        interest_observed=observed,
        visit_values=visit_RKV.astype(np.float32),
        interest=np.where(observed, values, np.nan).astype(np.float32),
    )


def _with_plans(base: Examples, rows: pl.DataFrame, prices_minor: NDArray[np.float64], config: TrainConfig) -> Examples:
    steps = _padded(rows, "steps", MAX_STEPS, -1).astype(np.int8)
    outcomes = _padded(rows, "outcomes", MAX_STEPS, -1).astype(np.int8)
    earned = rows["value_minor"].fill_null(0).to_numpy().astype(np.float64)
    return dataclasses.replace(
        base,
        steps=steps,
        outcomes=outcomes,
        step_propensity=_padded(rows, "step_propensity", MAX_STEPS, 1).astype(np.float32),
        view_ms=_padded(rows, "step_view_ms", MAX_STEPS, 0).astype(np.float32),
        gestures=_padded(rows, "gestures", MAX_STEPS, 0).astype(np.int16),
        kept=earned > 0,
        returns=plan_returns(steps, outcomes, earned, prices_minor[base.plan_row], config).astype(np.float32),
    )


def plan_returns(
    steps_RS: NDArray[np.int8], outcomes_RS: NDArray[np.int8], kept_value_R: NDArray[np.float64], price_R: NDArray[np.float64], config: TrainConfig
) -> NDArray[np.float64]:
    """(R, S) what each step and those after it earned by the shop's own account (PlanCosts), in minor units; 0 past the plan's end.

    A purchase counts as kept where the session kept any value. A product without a price is worth what the session kept.
    """
    costs, margin_R = config.plan_costs, config.margin_share * np.where(np.isfinite(price_R), price_R, kept_value_R)
    bought_RS = outcomes_RS == OUTCOME_INDEX["purchase"]
    coupons_RS = np.cumsum(steps_RS == STEP_INDEX["offer_coupon"], axis=1)
    earned_RS = np.where(kept_value_R[:, None] > 0, np.maximum(1 - costs.coupon * coupons_RS, 0), -costs.taken_back)
    gain_RS = earned_RS * bought_RS - costs.walkout * (outcomes_RS == OUTCOME_INDEX["left"]) - costs.human * (steps_RS == STEP_INDEX["hand_to_human"])
    returns_RS: NDArray[np.float64] = np.cumsum((gain_RS * margin_R[:, None])[:, ::-1], axis=1)[:, ::-1] * (steps_RS >= 0)
    return returns_RS
