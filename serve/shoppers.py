"""What the online store knows of a shopper, read off the event loop and within a budget. Knows nothing of requests."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from guidelens.errors import GuideLensError


class OnlineShoppers(Protocol):
    """The part of features.OnlineReader that a request needs."""

    def shopper(self, shopper_key: str) -> bytes | None: ...


class ShopperReader:
    """One thread of its own: a store's connection stays where it was opened, and a slow store blocks nothing else."""

    def __init__(self, open_store: Callable[[], OnlineShoppers]) -> None:
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
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(budget_s):
            return await loop.run_in_executor(self._thread, self._read, shopper_key)

    def _read(self, shopper_key: str) -> bytes | None:
        return self._store.result().shopper(shopper_key)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class NoShoppers:
    """Stands in where a home has no online store, so that a request for a shopper is answered as degraded, not as unknown."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def shopper(self, shopper_key: str) -> bytes | None:
        raise GuideLensError(self._reason)
