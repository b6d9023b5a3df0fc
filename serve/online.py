"""What the online store knows of a shopper, and of stock and prices, read off the event loop and within a budget."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from guidelens.data.pseudonyms import PseudonymousEvent
from guidelens.errors import GuideLensError

log = logging.getLogger(__name__)
Value = TypeVar("Value")


class StockAndPrice(Protocol):
    """Of one product; None where the catalogue does not say."""

    @property
    def stock(self) -> int | None: ...
    @property
    def price_minor(self) -> int | None: ...
    @property
    def currency(self) -> str | None: ...


class OnlineStore(Protocol):
    """The part of features.OnlineReader that a request needs."""

    def shopper(self, shopper_key: str) -> bytes | None: ...
    def stock_and_price(self, product_ids: Sequence[str]) -> Mapping[str, StockAndPrice]: ...
    def observe(self, events: Sequence[PseudonymousEvent]) -> None: ...


class OnlineFeatures:
    """One thread of its own: a store's connection stays where it was opened, and a slow store blocks nothing else."""

    def __init__(self, open_store: Callable[[], OnlineStore]) -> None:
        """Opens the store in the reader's thread; `wait` tells when it is there.

        Args:
            open_store: called once, in the thread that will do all reads.
        """
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shopper-features")
        self._store = self._thread.submit(open_store)

    def wait(self) -> None:
        """Returns when the store is open.

        Raises:
            GuideLensError: it cannot be opened.
        """
        self._store.result()

    async def packed(self, shopper_key: str, budget_s: float) -> bytes | None:
        """The shopper's packed features; None for a shopper the store does not know.

        Raises:
            GuideLensError: the store failed.
            TimeoutError: it took longer than the budget.
        """
        return await self._read(lambda store: store.shopper(shopper_key), budget_s)

    async def stock_and_price(self, product_ids: Sequence[str], budget_s: float) -> Mapping[str, StockAndPrice]:
        """Of several products in one read; those the store does not know are left out.

        Raises:
            GuideLensError: the store failed.
            TimeoutError: it took longer than the budget.
        """
        return await self._read(lambda store: store.stock_and_price(product_ids), budget_s)

    def observe(self, events: Sequence[PseudonymousEvent], done: Callable[[bool, int], None]) -> None:
        """Counts new events into the rows of the shoppers the store knows, after what waits already; returns at once.

        Who has no row may have asked to be forgotten, or never agreed to one: none is made here, materialization decides.

        Args:
            done: told, in the reader's thread, whether it went well and for how many events.
        """
        named = [event for event in events if not event.is_anonymous]
        if named:
            self._thread.submit(self._observe, named, done)

    def _observe(self, events: Sequence[PseudonymousEvent], done: Callable[[bool, int], None]) -> None:
        try:
            store = self._store.result()
            known = {key for key in {event.shopper_key for event in events} if store.shopper(key) is not None}
            store.observe([event for event in events if event.shopper_key in known])
        except (GuideLensError, OSError, ValueError):
            log.exception("online features were not updated; the next materialization will")
            done(False, len(events))
        else:
            done(True, len(events))

    async def _read(self, ask: Callable[[OnlineStore], Value], budget_s: float) -> Value:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(budget_s):
            return await loop.run_in_executor(self._thread, lambda: ask(self._store.result()))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class NoStore:
    """Stands in where a home has no online store, so that a request for a shopper is answered as degraded, not as unknown."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def shopper(self, shopper_key: str) -> bytes | None:
        raise GuideLensError(self._reason)

    def observe(self, events: Sequence[PseudonymousEvent]) -> None:
        raise GuideLensError(self._reason)

    def stock_and_price(self, product_ids: Sequence[str]) -> Mapping[str, StockAndPrice]:
        raise GuideLensError(self._reason)
