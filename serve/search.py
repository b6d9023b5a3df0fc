"""One search through the graph: recognizer and shopper features in parallel, then the fusion deployment's engine, then stock and prices of now.

Where stock or price is filtered, what has changed since the release is left out and the page filled again. Knows nothing of HTTP.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from guidelens.inference.search.messages import NO_FLOATS, NO_ROWS, SearchInput, SearchOutput
from guidelens.inference.search.reasons import why
from guidelens.schemas.events import Event
from guidelens.schemas.guide import GuideRequest
from guidelens.schemas.search import SearchFilters, SearchReply, SearchRequest, SearchResult, SuggestReply
from serve import exposures
from serve.exposures import Shown
from serve.graph import CHANNEL, Budget, Graph, Trace, device_name
from serve.messages import RecognizeReply
from serve.online import StockAndPrice
from serve.problems import ApiError
from serve.requests import Asked
from serve.search_messages import SearchCall, SuggestCall

_SEARCH_SHARE = 0.7
_STOCK_SHARE = 0.5
_SPARE = 20
"""Asked for beyond the page where stock or price is filtered: some may have sold out, or have another price by now."""
_ROUNDS = 4
SUGGEST_S = 0.3
Stock = Mapping[str, StockAndPrice]


@dataclass(frozen=True, slots=True)
class AskedSearch:
    """A search as it came, and the part of it that recognizer and store answer."""

    fields: SearchRequest
    seen: Asked

    @classmethod
    def of(cls, fields: SearchRequest, frame: bytes | None, embedding: NDArray[np.float32] | None) -> "AskedSearch":
        device = GuideRequest(locale=fields.locale, deadline_ms=fields.deadline_ms, device=fields.device, image_encoder=fields.image_encoder)
        return cls(fields, Asked(device, frame, embedding))


async def answer(graph: Graph, request_id: str, asked: AskedSearch, shopper_key: str | None) -> SearchReply:
    """The reply to one search.

    Raises:
        ApiError: the frame cannot be used, a filter names an attribute that no product has, or there is no answer in time.
        HopOverloadedError: a hop's queue is full.
    """
    fields = asked.fields
    _check_attributes(graph, fields.filters)
    trace = Trace(Budget(fields.deadline_ms / 1000))
    seen, packed = await graph.seen_and_known(asked.seen, shopper_key, trace)
    if seen is None and not fields.text and fields.filters.is_empty:
        raise ApiError("deadline_exceeded", "the frame was not recognized within deadline_ms, and nothing else was asked for")
    found, stock = await _page(graph, _input(asked, seen, packed), trace)
    trace.timings_ms["total"] = round(trace.budget.spent_ms(), 2)
    return SearchReply(
        request_id=request_id,
        release=graph.release,
        degraded=trace.degraded,
        missing=(*graph.missing, *(("stock",) if stock is None else ()), *(("frame",) if seen is not None and seen.lacks_photo else ())),
        answered=found.answered,
        corrected=found.corrected,
        total=found.total,
        results=_results(graph, found, stock or {}, fields),
        recognized=graph.recognized(seen, fields.locale) if seen is not None and seen.in_catalogue else (),
        in_catalogue=None if seen is None else seen.in_catalogue,
        facets=found.facets,
        prices=found.prices,
        suggestions=found.suggestions,
        timings_ms=trace.timings_ms,
    )


async def suggest(graph: Graph, text: str, num: int) -> SuggestReply:
    """Completions of what is being typed; none where they do not come in time."""
    found = await graph.hop("fusion", graph.suggester.ask(SuggestCall(graph.release, text, num), SUGGEST_S))
    if found is None:
        raise ApiError("deadline_exceeded", f"no suggestions within {1000 * SUGGEST_S:.0f} ms")
    return SuggestReply(release=graph.release, suggestions=found.completions, corrected=found.corrected)


def impressions(fields: SearchRequest, reply: SearchReply, now: datetime | None = None) -> list[Event]:
    """One impression a result; the order is no draw, so each has propensity 1."""
    shown = (Shown(item.product_id, item.position, 1.0) for item in reply.results)
    return exposures.impressions(fields, reply.request_id, reply.release, shown, device_name(fields), now)


def _check_attributes(graph: Graph, filters: SearchFilters) -> None:
    known = sorted({key for item in graph.catalogue.items for key in item.view.attributes}) if filters.attributes else []
    for key in filters.attributes:
        if key not in known:
            raise ApiError("invalid_field", f"filters.attributes: must name attributes of this shop ({', '.join(known) or 'it has none'}), got {key[:80]!r}")


def _input(asked: AskedSearch, seen: RecognizeReply | None, packed: bytes | None) -> SearchInput:
    fields = asked.fields
    known = seen is not None and seen.in_catalogue
    return SearchInput(
        text=fields.text.strip() or None if fields.text else None,
        filters=fields.filters,
        num=fields.num,
        offset=fields.offset,
        frame_embedding=None if seen is None else seen.embedding,
        in_catalogue=None if seen is None else seen.in_catalogue,
        recognized_rows=seen.rows if seen is not None and known else NO_ROWS,
        recognized_confidences=seen.confidences if seen is not None and known else NO_FLOATS,
        packed=packed,
        device=device_name(fields),
        channel=CHANNEL,
        now_us=time.time_ns() // 1000,
    )


async def _page(graph: Graph, asked: SearchInput, trace: Trace) -> tuple[SearchOutput, Stock | None]:
    """A page, and the stock and prices of what is on it; None where they cannot be read."""
    is_live = asked.filters.in_stock or asked.filters.price_min_minor is not None or asked.filters.price_max_minor is not None
    asked = dataclasses.replace(asked, num=asked.num + _SPARE) if is_live else asked
    num = asked.num - _SPARE if is_live else asked.num
    known: dict[str, StockAndPrice] = {}
    for last in (False,) * (_ROUNDS - 1) + (True,):
        with trace.stage("search"):
            found = await graph.hop("fusion", graph.searcher.ask(SearchCall(graph.release, asked), trace.budget.share_s(_SEARCH_SHARE)))
        if found is None:
            raise ApiError("deadline_exceeded", "no answer within deadline_ms")
        stock = await graph.stock_of(found.rows, _STOCK_SHARE, trace) if len(found.rows) else {}
        if stock is None:
            return _shortened(found, np.ones(len(found.rows), np.bool_), num), None
        known.update(stock)
        fits = np.array([not is_live or _fits(graph, row, stock, asked.filters) for row in found.rows.tolist()], np.bool_)
        if last or fits.sum() >= num or fits.all():
            return _shortened(found, fits, num), known
        asked = dataclasses.replace(asked, excluded=np.union1d(asked.excluded, found.rows[~fits]).astype(np.int32))
    raise AssertionError("the last round returns")


def _fits(graph: Graph, row: int, stock: Stock, filters: SearchFilters) -> bool:
    """Whether a product passes the filters of stock and price by what the store says now."""
    known = stock.get(graph.catalogue.items[row].view.product_id)
    if known is None:
        return True
    if filters.in_stock and known.stock == 0:
        return False
    lowest, highest = filters.price_min_minor, filters.price_max_minor
    if lowest is None and highest is None:
        return True
    return known.price_minor is not None and (lowest or 0) <= known.price_minor and (highest is None or known.price_minor <= highest)


def _shortened(found: SearchOutput, fits: NDArray[np.bool_], num: int) -> SearchOutput:
    kept = np.flatnonzero(fits)[:num]
    return dataclasses.replace(found, rows=found.rows[kept], scores=found.scores[kept], matched=tuple(found.matched[at] for at in kept.tolist()))


def _results(graph: Graph, found: SearchOutput, stock: Stock, fields: SearchRequest) -> tuple[SearchResult, ...]:
    return tuple(_result(graph, found, place, stock, fields) for place in range(len(found.rows)))


def _result(graph: Graph, found: SearchOutput, place: int, stock: Stock, fields: SearchRequest) -> SearchResult:
    item = graph.catalogue.items[int(found.rows[place])]
    known = stock.get(item.view.product_id)
    left = item.view.stock if known is None else known.stock
    return SearchResult(
        position=fields.offset + place + 1,
        product_id=item.view.product_id,
        title=item.title(fields.locale),
        score=float(found.scores[place]),
        matched=found.matched[place],
        why=why(found.matched[place], fields.locale),
        price_minor=item.view.price_minor if known is None else known.price_minor,
        currency=item.view.currency if known is None else known.currency,
        in_stock=None if left is None else left > 0,
    )
