"""What the weights of search are learned from: queries with products that answer them and products that do not.

Two sources: the log's clicks on slates that a text or a photo asked for, and queries made of the catalogue itself (parts of titles, other
names of things, and a photo with another colour in words). What was never shown is no negative of a click.
"""

# Letters: K = candidates of a query, F = features, C = context.

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from guidelens.data.examples import Examples
from guidelens.inference.search.engine import SearchEngine
from guidelens.inference.search.files import product_texts
from guidelens.inference.search.lexicon import Lexicon
from guidelens.inference.search.messages import SearchInput
from guidelens.inference.search.weighing import FEATURES
from guidelens.inference.search.words import english_words, is_wide
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.search import SearchFilters

Floats = NDArray[np.float32]
Source = Literal["log", "catalogue", "photo"]
MAX_LOG, MAX_CATALOGUE, MAX_PHOTO = 1200, 600, 200
_HARD, _RANDOM = 30, 15
_NO_FILTERS = SearchFilters()
_RECOGNIZED = 0.9
_SAID_FOR_SURE = 0.99


class JudgedQuery(NamedTuple):
    """features_KF, context_C as of search; wanted_K: shares that add up to 1; place_K: positions from 0 where a log showed them, else 0."""

    source: Source
    key: str
    features_KF: Floats
    context_C: Floats
    wanted_K: Floats
    place_K: NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """What the recognizer says of a frame: rows and confidences, best first, empty where it knows none."""

    in_catalogue: bool | None
    rows: NDArray[np.int32]
    confidences: Floats


Recognize = Callable[[Floats], Seen]


class Question(NamedTuple):
    """A search and the product rows that answer it; `shown_K`: rows of the slate that it was clicked on, best place first, None where all products count."""

    source: Source
    asked: SearchInput
    wanted: frozenset[int]
    shown_K: NDArray[np.int32] | None = None


def log_rows(engine: SearchEngine, examples: Examples, queries: Sequence[str], recognize: Recognize | None, num: int = MAX_LOG) -> list[JudgedQuery]:
    """Slates that a text or a photo asked for and on which something, but not everything, was clicked; evenly over time, `num` at most.

    Args:
        queries: texts of the examples' query rows.
    """
    return [_log_row(engine, examples, int(row), queries, recognize) for row in _clicked_rows(examples, num)]


def log_questions(examples: Examples, queries: Sequence[str], recognize: Recognize | None, num: int) -> list[Question]:
    """The same slates, as any engine can be asked."""
    found = []
    for row in _clicked_rows(examples, num).tolist():
        shown_K = examples.slate_rows[row][examples.slate_rows[row] >= 0]
        clicked = examples.slate_rows[row][(examples.slate_rows[row] >= 0) & (examples.click[row] > 0)]
        found.append(Question("log", _asked_of(examples, row, queries, recognize), frozenset(clicked.tolist()), shown_K.astype(np.int32)))
    return found


def _clicked_rows(examples: Examples, num: int) -> NDArray[np.int64]:
    shown = examples.slate_rows >= 0
    clicks = ((examples.click > 0) & shown).sum(axis=1)
    rows = np.flatnonzero(((examples.query_row >= 0) | (examples.frame_row >= 0)) & (clicks > 0) & (clicks < shown.sum(axis=1)))
    return rows[np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(np.int64)] if len(rows) else rows


def _asked_of(examples: Examples, row: int, queries: Sequence[str], recognize: Recognize | None) -> SearchInput:
    frame = examples.frames[examples.frame_row[row]] if examples.frame_row[row] >= 0 else None
    seen = recognize(frame) if frame is not None and recognize is not None else None
    asked = SearchInput(
        text=queries[examples.query_row[row]] if examples.query_row[row] >= 0 else None,
        filters=_NO_FILTERS,
        num=1,
        offset=0,
        frame_embedding=frame,
        in_catalogue=None if seen is None else seen.in_catalogue,
        packed=examples.packed[row],
        device=str(examples.device[row]),
        channel=str(examples.channel[row]),
        now_us=int(examples.ts_us[row]),
    )
    return asked if seen is None else dataclasses.replace(asked, recognized_rows=seen.rows, recognized_confidences=seen.confidences)


def _log_row(engine: SearchEngine, examples: Examples, row: int, queries: Sequence[str], recognize: Recognize | None) -> JudgedQuery:
    asked = _asked_of(examples, row, queries, recognize)
    places = np.flatnonzero(examples.slate_rows[row] >= 0)
    known = engine.evidence(asked)
    wanted_K = (examples.click[row][places] > 0).astype(np.float32)
    features_KF = known.features_NF[examples.slate_rows[row][places]]
    return JudgedQuery("log", str(examples.request_id[row]), features_KF, known.context_C, wanted_K / wanted_K.sum(), places.astype(np.int64))


def catalogue_rows(engine: SearchEngine, items: pl.DataFrame, lexicon: Lexicon, rng: np.random.Generator, num: int = MAX_CATALOGUE) -> list[JudgedQuery]:
    """Queries made of what products are called; every product that they name as fully answers them too."""
    return [_judged(engine, question, rng) for question in catalogue_questions(items, lexicon, rng, num)]


def catalogue_questions(items: pl.DataFrame, lexicon: Lexicon, rng: np.random.Generator, num: int) -> Iterator[Question]:
    """Each with the one product that it was made of."""
    products = product_texts(items)
    for row in rng.permutation(len(products))[:num].tolist():
        text = _said_of(products[row].titles, products[row].names, lexicon, rng)
        if text is not None:
            yield Question("catalogue", SearchInput(text, _NO_FILTERS, 1, 0), frozenset((row,)))


def _said_of(titles: Sequence[str], names: Sequence[str], lexicon: Lexicon, rng: np.random.Generator) -> str | None:
    title = titles[int(rng.integers(len(titles)))] if titles else ""
    others = lexicon.others(title)
    kind = int(rng.integers(3))
    if kind == 0 and others:
        return others[int(rng.integers(len(others)))]
    if kind == 1 and names:
        return f"{names[int(rng.integers(len(names)))]} {title}"
    words = english_words(title)
    if is_wide(title) or len(words) < 2:
        return title or None
    kept = rng.random(len(words)) < 0.6
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep) or words[-1]


def photo_rows(engine: SearchEngine, items: pl.DataFrame, lexicon: Lexicon, rng: np.random.Generator, num: int = MAX_PHOTO) -> list[JudgedQuery]:
    """ "This, but red": a product's picture with another colour in words; wanted are products of its category in that colour."""
    return [_judged(engine, question, rng, more=False) for question in photo_questions(items, lexicon, rng, num)]


def photo_questions(items: pl.DataFrame, lexicon: Lexicon, rng: np.random.Generator, num: int) -> Iterator[Question]:
    """The same, as any engine can be asked."""
    colours = [json.loads(text or "{}").get("colour") for text in items["attributes_json"].to_list()] if "attributes_json" in items.columns else []
    pictures = items["image_embedding"].to_list() if "image_embedding" in items.columns else []
    categories = items["category"].to_list()
    of: dict[tuple[str, str], set[int]] = {}
    for row, colour in enumerate(colours):
        if isinstance(colour, str):
            of.setdefault((categories[row], colour), set()).add(row)
    found = 0
    for row in rng.permutation(len(colours)).tolist():
        others = sorted(colour for category, colour in of if category == categories[row] and colour != colours[row])
        if found >= num or not pictures or pictures[row] is None or not others:
            continue
        colour = others[int(rng.integers(len(others)))]
        said = [colour, *lexicon.others(colour)]
        asked = SearchInput(
            said[int(rng.integers(len(said)))], _NO_FILTERS, 1, 0, np.asarray(pictures[row], np.float32), True,
            np.array([row], np.int32), np.array([_RECOGNIZED], np.float32),
        )  # fmt: skip
        found += 1
        yield Question("photo", asked, frozenset(of[(categories[row], colour)]))


def _judged(engine: SearchEngine, question: Question, rng: np.random.Generator, more: bool = True) -> JudgedQuery:
    source, asked, wanted, _ = question
    known = engine.evidence(asked)
    if more:
        titled_N = known.features_NF[:, FEATURES.index("titled")]
        wanted = wanted | set(np.flatnonzero(titled_N >= max(_SAID_FOR_SURE, titled_N[list(wanted)].max())).tolist())
    scores_N = engine.weighing.scores(known.features_NF, known.context_C)
    hard = np.argsort(-scores_N, kind="stable")[:_HARD]
    rows = np.unique(np.concatenate([np.array(sorted(wanted)), hard, rng.integers(0, len(scores_N), _RANDOM)])).astype(np.int64)
    wanted_K = np.isin(rows, list(wanted)).astype(np.float32)
    return JudgedQuery(source, f"{source}/{asked.text}", known.features_NF[rows], known.context_C, wanted_K / wanted_K.sum(), np.zeros(len(rows), np.int64))


def held_back(query: JudgedQuery, share: float) -> bool:
    """Whether a query is kept from learning, to choose by; by a hash of its key, so that the same query always is."""
    return (stable_hash(query.key) % 1000) / 1000 < share


def foreign_words(engine: SearchEngine, lexicon: Lexicon) -> Iterator[str]:
    """Names of things that this shop does not have: one word a language of every group none of whose words its products bear."""
    for group in lexicon.groups:
        if not any(engine.spelling.is_shops(word) for word in group):
            english = next((word for word in group if not is_wide(word)), None)
            chinese = next((word for word in group if is_wide(word) and len(word) > 1), None)
            yield from (word for word in (english, chinese) if word is not None)
