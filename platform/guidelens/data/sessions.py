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
_SESSION = ["shopper_key", "session_id"]


def known_ts() -> pl.Expr:
    """When an event was known: the later of when it happened and when it came in."""
    return pl.max_horizontal("event_ts", "created_ts")


def identity_links(events: pl.DataFrame) -> pl.DataFrame:
    """One row an anonymous id that somebody logged in with (an event that holds both ids).

    The id belongs to the first shopper known to have logged in, until a login of another is known: from then on the device is shared,
    and anonymous sessions that come in of it are nobody's. In the order in which things were known, so that a later one never changes what
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


def client_sessions(events: pl.DataFrame) -> pl.DataFrame:
    """One row a shopper (or anonymous id) and `session_id` as sent.

    Returns:
        shopper_key, session_id, is_anonymous, start_ts, end_ts (first and last event), known_from (a microsecond after the last
        thing known of it). Returns and feedback count for nothing here.
    """
    return (
        events.filter(~pl.col("type").is_in(list(AFTERWARDS)))
        .group_by(_SESSION)
        .agg(
            pl.col("is_anonymous").first(),
            pl.col("event_ts").min().alias("start_ts"),
            pl.col("event_ts").max().alias("end_ts"),
            (known_ts().max() + pl.duration(microseconds=1)).alias("known_from"),
        )
    )


def owned(sessions: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """The anonymous client sessions that a login made somebody's: those known before the device was shared.

    Returns:
        The sessions' columns, owner, and linked_ts.
    """
    owners = links.rename({"anonymous_key": "shopper_key", "shopper_key": "owner"})
    found = sessions.filter("is_anonymous").join(owners, on="shopper_key")
    return found.filter(pl.col("shared_ts").is_null() | (pl.col("known_from") <= pl.col("shared_ts"))).drop("shared_ts")


def joined(sessions: pl.DataFrame, gap_min: float = SESSION_GAP_MIN) -> pl.DataFrame:
    """Client sessions with the session they belong to: those of one shopper, on whatever channel or device, without a pause above the gap.

    Returns:
        The sessions' columns and `joined_id`: the name of the first of them.
    """
    ordered = sessions.sort("shopper_key", "start_ts", "session_id")
    ended = pl.col("end_ts").cum_max().shift().over("shopper_key")
    begins = (pl.col("start_ts") - ended > pl.duration(seconds=round(gap_min * 60))).fill_null(True)
    return (
        ordered.with_columns(number=begins.cum_sum().over("shopper_key"))
        .with_columns(joined_id=pl.col("session_id").first().over("shopper_key", "number"))
        .drop("number")
    )


def as_people(events: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """The events with each owned anonymous session under its shopper: for labels, which may know of logins that came later.

    Returns:
        The same rows in their order; `shopper_key` is the person, `asked_as` the key the event came with (what features were served by).
    """
    owners = owned(client_sessions(events), links).select(*_SESSION, "owner")
    found = events.join(owners, on=_SESSION, how="left", maintain_order="left")
    return found.with_columns(asked_as="shopper_key", shopper_key=pl.coalesce("owner", "shopper_key")).drop("owner")


def with_owned(events: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """The events, and once more under their shopper those of owned anonymous sessions: known from the login on, for features.

    The anonymous id keeps its own: until the login nobody could know better.
    """
    owners = owned(client_sessions(events), links).select(*_SESSION, "owner", "linked_ts")
    copies = events.join(owners, on=_SESSION, maintain_order="left")
    copies = copies.with_columns(shopper_key="owner", is_anonymous=pl.lit(False), created_ts=pl.max_horizontal("created_ts", "linked_ts"))
    return pl.concat([events, copies.select(events.columns)])


def in_sessions(events: pl.DataFrame, gap_min: float = SESSION_GAP_MIN) -> pl.DataFrame:
    """The events by session. Returns and feedback belong to none and keep the name they came with.

    Returns:
        The same rows in their order; `session_id` is the session (`joined`), `client_session_id` what the client called it.
    """
    named = joined(client_sessions(events), gap_min).select(*_SESSION, "joined_id")
    found = events.join(named, on=_SESSION, how="left", maintain_order="left")
    is_after = pl.col("type").is_in(list(AFTERWARDS))
    name = pl.when(is_after).then("session_id").otherwise("joined_id")
    return found.with_columns(client_session_id="session_id", session_id=name).drop("joined_id")
