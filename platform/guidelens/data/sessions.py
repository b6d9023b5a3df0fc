"""Who did it, and in which session: anonymous ids are linked to the shopper who logged in, and what one shopper does on several
channels and devices is one session.

Pure polars over the lake's events. Rules, with what they may know: docs/labels.md. Knows nothing of labels or features.
"""

import polars as pl

from guidelens.schemas.events import EventType

SESSION_GAP_MIN = 30
"""A pause longer than this ends a session: what web analytics settled on."""
AFTERWARDS = (EventType.RETURN, EventType.FEEDBACK)
"""What comes days after a session under its id: it ends no session and begins none."""
EVENT_ORDER = ("event_ts", "created_ts", "event_id")


def known_ts() -> pl.Expr:
    """When an event was known: the later of when it happened and when it came in."""
    return pl.max_horizontal("event_ts", "created_ts")


def identity_links(events: pl.DataFrame) -> pl.DataFrame:
    """One row an anonymous id that somebody logged in with (an event that holds both ids).

    The id belongs to the first shopper known to have logged in, until a login of another is known: from then on the device is shared,
    and what comes in of it anonymously is nobody's. In the order in which things were known, so that a later one never changes what
    features said before it.

    Returns:
        anonymous_key, shopper_key, linked_ts (the first login was known), shared_ts (one of another shopper was; null if none).
        Sorted by anonymous_key.
    """
    logins = events.filter(pl.col("anonymous_key").is_not_null() & ~pl.col("is_anonymous")).with_columns(known_ts=known_ts())
    owned = logins.sort("known_ts", *EVENT_ORDER).with_columns(owner=pl.col("shopper_key").first().over("anonymous_key"))
    of_another = pl.col("shopper_key") != pl.col("owner")
    return (
        owned.group_by("anonymous_key")
        .agg(
            pl.col("owner").first().alias("shopper_key"),
            pl.col("known_ts").min().alias("linked_ts"),
            pl.col("known_ts").filter(of_another).min().alias("shared_ts"),
        )
        .sort("anonymous_key")
    )


def as_people(events: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """The events with each linked anonymous one under its shopper: for labels, which may know of logins that came later.

    Returns:
        The same rows; `shopper_key` is the person, `asked_as` the key the event came with (what features were served by).
    """
    joined = _linked(events, links)
    return joined.with_columns(asked_as="shopper_key", shopper_key=pl.coalesce("owner", "shopper_key")).drop("owner", "linked_ts")


def with_linked(events: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """The events, and once more under their shopper those that were anonymous: known from the login on, for features.

    The anonymous id keeps its own: until the login nobody could know better.
    """
    copies = _linked(events, links).filter(pl.col("owner").is_not_null())
    copies = copies.with_columns(shopper_key="owner", is_anonymous=pl.lit(False), created_ts=pl.max_horizontal("created_ts", "linked_ts"))
    return pl.concat([events, copies.select(events.columns)])


def _linked(events: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """With `owner` and `linked_ts` of anonymous events that were known before their id was shared; null elsewhere."""
    owners = links.rename({"anonymous_key": "made_as", "shopper_key": "owner"})
    made_as = pl.when("is_anonymous").then("shopper_key")
    joined = events.with_columns(made_as=made_as).join(owners, on="made_as", how="left", maintain_order="left")
    in_time = pl.col("shared_ts").is_null() | (known_ts() < pl.col("shared_ts"))
    return joined.with_columns(pl.when(in_time).then(pl.col(name)).alias(name) for name in ("owner", "linked_ts")).drop("made_as", "shared_ts")


def in_sessions(events: pl.DataFrame, gap_min: float = SESSION_GAP_MIN) -> pl.DataFrame:
    """The events with sessions made of what each shopper did, on whatever channel or device, without a pause above the gap.

    A session is named after the client session of its first event (`ID~2` where that one came back after a pause). Returns and
    feedback belong to no session and keep the name they came with.

    Returns:
        The same rows in the events' order; `session_id` is the session, `client_session_id` what the client called it.
    """
    ordered = events.sort(EVENT_ORDER)
    pause = pl.col("event_ts").diff().over("shopper_key") > pl.duration(seconds=round(gap_min * 60))
    inside = (
        ordered.filter(~pl.col("type").is_in(list(AFTERWARDS)))
        .with_columns(number=pause.fill_null(False).cum_sum().over("shopper_key"))
        .with_columns(name=pl.col("session_id").first().over("shopper_key", "number"))
    )
    again = pl.col("number").rank("dense").over("shopper_key", "name")
    name = pl.when(again > 1).then(pl.format("{}~{}", "name", again)).otherwise("name")
    named = inside.with_columns(client_session_id="session_id", session_id=name).drop("number", "name")
    after = ordered.filter(pl.col("type").is_in(list(AFTERWARDS))).with_columns(client_session_id="session_id")
    return pl.concat([named, after]).sort(EVENT_ORDER)
