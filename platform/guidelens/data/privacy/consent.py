"""Consent in time: from when on a shopper agreed or did not, and which events that leaves for their profile and for training.

A shopper nobody said anything of has agreed to what the shop told them; so have anonymous ids. An event's own `consent` is ingest's matter
(pseudonyms.py). Knows nothing of features or labels.
"""

from datetime import UTC, datetime

import polars as pl

from guidelens.data.lake.lake import Lake, Manifest
from guidelens.schemas.tables import Table

FROM_THE_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_KNOWN = ["shopper_key", "consent", "since_ts"]


def new_consents(shoppers: pl.DataFrame, known: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """What newly accepted shopper records say of consent, as rows of the consents table.

    It holds from `consent_ts`; without one from the beginning for a shopper of whom nothing was known, else from now. A yes without a time
    does not undo a no: an old file read again must not bring back a consent that was withdrawn.

    Args:
        known: the lake's consents.
    """
    if shoppers.height == 0:
        return pl.DataFrame(schema={"shopper_key": pl.String})
    said = shoppers.filter(pl.col("consent").is_not_null()).join(_newest(known).rename({"consent": "before"}), on="shopper_key", how="left")
    repeats = pl.col("before").is_not_null() & (pl.col("consent") | ~pl.col("before")) & pl.col("consent_ts").is_null()
    otherwise = pl.when(pl.col("before").is_null()).then(FROM_THE_BEGINNING).otherwise(now).cast(pl.Datetime("us", "UTC"))
    rows = said.filter(~repeats).with_columns(since_ts=pl.coalesce("consent_ts", otherwise))
    return rows.select("shopper_key", "key_id", "consent", "since_ts").join(known, on=_KNOWN, how="anti").sort(_KNOWN)


def consents(lake: Lake, manifest: Manifest) -> pl.DataFrame:
    """shopper_key, consent and since_ts of everything known; a shopper record from before consent had a time holds from the beginning."""
    timed = lake.read(Table.CONSENTS, _KNOWN, manifest=manifest)
    said = lake.read(Table.SHOPPERS, ["shopper_key", "consent"], manifest=manifest).filter(pl.col("consent").is_not_null())
    untimed = said.join(timed, on="shopper_key", how="anti").with_columns(since_ts=pl.lit(FROM_THE_BEGINNING).cast(pl.Datetime("us", "UTC")))
    return pl.concat([timed, untimed.select(_KNOWN)])


def consented(events: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """The events, in their order, without those that happened while their shopper did not agree.

    Args:
        events: with shopper_key (of the person, where anonymous sessions were linked) and event_ts.
        said: `consents`.
    """
    if said["consent"].all():
        return events
    at_once = said.sort("since_ts", pl.col("consent").not_()).select("shopper_key", pl.col("consent").alias("agreed"), "since_ts")
    placed = events.select("shopper_key", "event_ts").with_row_index("row").sort("event_ts")
    found = placed.join_asof(at_once, left_on="event_ts", right_on="since_ts", by="shopper_key", strategy="backward", check_sortedness=False)
    return events.filter(found.sort("row")["agreed"].fill_null(True))


def as_consented(shoppers: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """The shopper records with `consent` as it stands after everything that was said, whatever record came last."""
    newest = _newest(said).rename({"consent": "stands"})
    return shoppers.join(newest, on="shopper_key", how="left", maintain_order="left").with_columns(consent=pl.coalesce("stands", "consent")).drop("stands")


def refusals(said: pl.DataFrame) -> pl.DataFrame:
    """The times in which a shopper did not agree: shopper_key, from_ts, until_ts (null: to this day), half-open and not adjacent.

    Of anything said, only this decides which events are used (`consented`); a yes where nobody refused, or a no said twice, changes nothing.
    """
    at_once = said.sort("shopper_key", "since_ts", pl.col("consent").not_())
    settled = at_once.unique(["shopper_key", "since_ts"], keep="last", maintain_order=True)
    turns = settled.filter(pl.col("consent") != pl.col("consent").shift(fill_value=True).over("shopper_key"))
    spans = turns.select("shopper_key", "consent", from_ts="since_ts", until_ts=pl.col("since_ts").shift(-1).over("shopper_key"))
    return spans.filter(~pl.col("consent")).drop("consent")


def refusals_changed(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """shopper_key, from_ts: whose `refusals` differ, and no event of theirs before from_ts is used otherwise than before."""
    both = [one.join(other, on=one.columns, how="anti", nulls_equal=True) for one, other in ((before, now), (now, before))]
    return pl.concat(both).group_by("shopper_key").agg(pl.col("from_ts").min()).sort("shopper_key")


def _newest(said: pl.DataFrame) -> pl.DataFrame:
    """shopper_key and consent as said last; of a yes and a no at one time, the no."""
    ordered = said.sort("since_ts", pl.col("consent").not_())
    return ordered.unique("shopper_key", keep="last", maintain_order=True).select("shopper_key", "consent")
