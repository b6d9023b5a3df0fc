"""Amazon Reviews 2014 "Beauty", 5-core, as prepared for S3-Rec (arXiv:2008.07873): each shopper's items in order, and the items' attributes.

The files hold an order and no times, so times are made up: a shopper's items lie one day apart and all shoppers end on LAST_DAY.
The last item of every shopper, the test of the usual protocol, is thus the log's last day; the one before, its validation, the day
before; what came earlier is training. An item in the sequence was reviewed, and stands for a purchase. Names were not published:
attributes are numbers. A brand is written before the categories, so one that is never anywhere else than first is taken for a brand.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from guidelens.data.adapters.source import AdaptedLog
from guidelens.errors import InputError
from guidelens.schemas.catalog import Product

LAST_DAY = datetime(2014, 7, 22, 12, tzinfo=UTC)
SEQUENCES, ATTRIBUTES = "Beauty.txt", "Beauty_item2attributes.json"
_DAY_US = 86_400_000_000
_SHOPPERS_A_BATCH = 5_000


def load(path: Path) -> AdaptedLog:
    """The data set in `path` (Beauty.txt and Beauty_item2attributes.json).

    Raises:
        InputError: a file is missing, or a line or an attribute list is not as the format says.
    """
    attributes = _attributes(path / ATTRIBUTES)
    if not (path / SEQUENCES).is_file():
        raise InputError(f"--path must be the folder with {SEQUENCES} and {ATTRIBUTES}, got {path} without {SEQUENCES}")
    return AdaptedLog(products=_products(attributes), events=lambda: _events(path / SEQUENCES, attributes))


def _attributes(file: Path) -> dict[int, list[int]]:
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        return {int(item): [int(attribute) for attribute in found] for item, found in given.items()}
    except OSError as error:
        raise InputError(f"--path must be the folder with {SEQUENCES} and {ATTRIBUTES}, got {file.parent}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} must be a JSON object of lists of attribute numbers by item number, got {error}; fetch the data set again") from error


def _products(attributes: Mapping[int, Sequence[int]]) -> tuple[Product, ...]:
    categories = {attribute for found in attributes.values() for attribute in found[1:]}
    return tuple(_product(item, attributes[item], categories) for item in sorted(attributes))


def _product(item: int, found: Sequence[int], categories: set[int]) -> Product:
    has_brand = bool(found) and found[0] not in categories
    levels = [f"category {attribute}" for attribute in (found[1:] if has_brand else found)]
    brand = f"brand {found[0]}" if has_brand else None
    return Product(
        product_id=product_id(item),
        title=f"Beauty product {item}",
        description=", ".join(name for name in (brand, *levels) if name),
        category="/".join(["beauty", *levels]),
        brand=brand,
        attributes={"numbers": list(found)},
    )


def product_id(item: int) -> str:
    return f"b-{item}"


def _events(file: Path, attributes: Mapping[int, Sequence[int]]) -> Iterator[pl.DataFrame]:
    seen: set[int] = set()
    with file.open(encoding="utf-8") as lines:
        numbered = enumerate(lines, start=1)
        while batch := list(islice(numbered, _SHOPPERS_A_BATCH)):
            sequences = [_sequence(file, number, line, attributes, seen) for number, line in batch if line.strip()]
            if sequences:
                yield _frame(sequences)


def _sequence(file: Path, number: int, line: str, attributes: Mapping[int, Sequence[int]], seen: set[int]) -> list[int]:
    """A line's shopper and items.

    Raises:
        InputError: it is no line of numbers, tells of a shopper twice, or names an item without attributes.
    """
    try:
        sequence = [int(part) for part in line.split()]
    except ValueError as error:
        raise InputError(f"{file}, line {number}: must hold a shopper's number and item numbers, got {line[:80]!r}; fetch the data set again") from error
    if len(sequence) < 2 or sequence[0] in seen:
        raise InputError(f"{file}, line {number}: must hold one new shopper and at least one item, got {line[:80]!r}; fetch the data set again")
    stranger = next((item for item in sequence[1:] if item not in attributes), None)
    if stranger is not None:
        raise InputError(f"{file}, line {number}: items must be known to {ATTRIBUTES}, got {stranger}; fetch both files from one place")
    seen.add(sequence[0])
    return sequence


def _frame(sequences: Sequence[Sequence[int]]) -> pl.DataFrame:
    lengths = np.array([len(sequence) - 1 for sequence in sequences])
    shopper = np.repeat([sequence[0] for sequence in sequences], lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    before_last = np.repeat(lengths, lengths) - 1 - place
    rows = pl.DataFrame(
        {
            "shopper": shopper,
            "place": place,
            "item": np.concatenate([sequence[1:] for sequence in sequences]),
            "event_ts": int(LAST_DAY.timestamp()) * 1_000_000 - before_last * _DAY_US,
        }
    )
    session = pl.format("b-{}-{}", "shopper", pl.col("place").cast(pl.String).str.zfill(4))
    return rows.select(
        session.alias("event_id"),
        pl.col("event_ts").cast(pl.Datetime("us", "UTC")),
        pl.format("b-{}", "shopper").alias("shopper_id"),
        session.alias("session_id"),
        pl.lit("purchase").alias("type"),
        pl.format("b-{}", "item").alias("product_id"),
    )
