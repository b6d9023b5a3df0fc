"""The event contract over whole columns: says of each row whether it certainly keeps it, in the values the model would make.

Only ever accepts. A row in any doubt is left to the pydantic model, which alone refuses, names the rule and words the reason.
"""

from collections.abc import Collection
from datetime import datetime

import polars as pl

from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.schemas.events import CLOCK_TOLERANCE, NAMES_OF_SHOPPER, REQUIRED_BY_TYPE, Event
from guidelens.schemas.fields import Contract, FieldRule, ValueKind, contract_of

COLUMN_TYPES: dict[ValueKind, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "flag": pl.Boolean(),
    "moment": pl.Datetime("us", "UTC"),
}
_RECORD_RULES = {"_fields_of_the_type"}


def event_contract(from_inbox: bool) -> Contract:
    """The contract of events as shops send them, or as the inbox keeps them.

    Raises:
        TypeError: the model has a rule over several fields that `doubts` holds no check for.
    """
    contract = contract_of(PseudonymousEvent if from_inbox else Event)
    if set(contract.record_rules) != _RECORD_RULES:
        raise TypeError(f"checks are made of {sorted(_RECORD_RULES)}, got {sorted(contract.record_rules)}; teach column_checks the others")
    return contract


def doubts(contract: Contract, now: datetime, from_inbox: bool, sure_patterns: Collection[str] = ()) -> pl.Expr:
    """True where a row may break the contract at `now`, over columns in COLUMN_TYPES whose texts have no white space around them.

    sure_patterns: what every text of the columns is known to match.
    """
    broken = [one for rule in contract.fields for one in _broken(rule, sure_patterns)]
    return pl.any_horizontal(*(one.fill_null(False) for one in [*broken, *_broken_together(now, from_inbox)]))


def _broken(rule: FieldRule, sure_patterns: Collection[str]) -> list[pl.Expr]:
    """What may break one field's rule; null where the field is."""
    column = pl.col(rule.name)
    limits = rule.limits
    found = [column.is_null()] if rule.required else []
    if rule.choices:
        found.append(~column.is_in(rule.choices))
    if "min_length" in limits:
        found.append(column == "" if limits["min_length"] == 1 else column.str.len_chars() < limits["min_length"])
    if "max_length" in limits:  # a text has at most as many characters as bytes, and bytes need no counting
        found.append(column.str.len_bytes() > limits["max_length"])
    if "pattern" in limits and limits["pattern"] not in sure_patterns:
        found.append(~column.str.contains(limits["pattern"]))
    if rule.kind == "number":
        found.append(~column.is_finite())
    compare = {"ge": column.lt, "gt": column.le, "le": column.gt, "lt": column.ge}
    return found + [compare[name](limits[name]) for name in compare if name in limits]


def _broken_together(now: datetime, from_inbox: bool) -> list[pl.Expr]:
    """The model's validators, and the clock."""
    missing = [
        pl.col("type").is_in([str(kind) for kind, needed in REQUIRED_BY_TYPE.items() if name in needed]) & pl.col(name).is_null()
        for name in sorted({name for needed in REQUIRED_BY_TYPE.values() for name in needed})
    ]
    named = [pl.col(name).is_not_null() for name in NAMES_OF_SHOPPER]
    who = pl.any_horizontal(*named) if from_inbox else ~pl.any_horizontal(*named)
    ahead = [pl.col(name) > now + CLOCK_TOLERANCE for name in ("event_ts", "created_ts")]
    return [*missing, who, *ahead]
