"""Impression events of what a reply showed, written to the inbox behind the reply's back. Knows nothing of HTTP."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from guidelens.errors import GuideLensError
from guidelens.schemas.events import Channel, Event, EventType
from guidelens.schemas.guide import ShopperRequest
from serve.metrics import ServeMetrics

log = logging.getLogger(__name__)
MAX_WAITING = 2000


class Shown(NamedTuple):
    product_id: str
    position: int
    propensity: float


def impressions(fields: ShopperRequest, request_id: str, release: str, shown: Iterable[Shown], device: str, now: datetime | None = None) -> list[Event]:
    """One impression a product shown, with its position and propensity; none where no personal event may be written.

    Their ids follow from the request's, so that a retried request with the same request_id is counted once.
    """
    if not fields.may_personalize:
        return []
    when = now or datetime.now(UTC)
    session_id = fields.session_id or request_id
    return [
        Event(
            event_id=hashlib.blake2b(f"{request_id}/{item.position}".encode(), digest_size=16).hexdigest(),
            event_ts=when,
            created_ts=when,
            shopper_id=fields.shopper_id,
            anonymous_id=None if fields.shopper_id else session_id,
            session_id=session_id,
            type=EventType.IMPRESSION,
            product_id=item.product_id,
            request_id=request_id,
            position=item.position,
            propensity=item.propensity,
            release=release,
            query=fields.text,
            channel=Channel.WEB,
            device=device,
        )
        for item in shown
    ]


class ExposureWriter:
    """A bounded queue and the one task that empties it; `write` runs in a thread, many replies at a time."""

    def __init__(self, write: Callable[[Sequence[Event]], object], metrics: ServeMetrics) -> None:
        self._write = write
        self._metrics = metrics
        self._waiting: asyncio.Queue[list[Event]] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, events: list[Event]) -> None:
        """Never waits: what does not fit is dropped, counted and logged."""
        if not events:
            return
        try:
            self._waiting.put_nowait(events)
        except asyncio.QueueFull:
            self._metrics.exposures.labels("dropped").inc(len(events))
            log.error("exposure queue is full (%d replies); dropped %d impressions", MAX_WAITING, len(events))

    async def stop(self) -> None:
        """Writes what waits, then ends."""
        await self._waiting.join()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            batches = [await self._waiting.get()]
            while not self._waiting.empty():
                batches.append(self._waiting.get_nowait())
            events = [event for batch in batches for event in batch]
            try:
                await asyncio.to_thread(self._write, events)
                self._metrics.exposures.labels("written").inc(len(events))
            except (GuideLensError, OSError) as error:
                self._metrics.exposures.labels("failed").inc(len(events))
                log.error("%d impressions could not be written: %s", len(events), error)
            finally:
                for _ in batches:
                    self._waiting.task_done()
