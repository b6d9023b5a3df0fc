"""What one ingress replica keeps at hand between requests: the graph, sessions, the inbox, limits. Knows nothing of HTTP routes."""

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from guidelens.data.inbox import Inbox
from guidelens.data.pseudonyms import Pseudonymizer
from guidelens.errors import GuideLensError
from guidelens.schemas.events import Event
from guidelens.schemas.guide import ShopperRequest
from serve.catalogue import ProductView
from serve.exposures import ExposureWriter
from serve.graph import Graph, Session
from serve.metrics import ServeMetrics
from serve.problems import ApiError, overloaded
from serve.sessions import SessionLog
from serve.sights import SightLog

_MAX_MODELS = 256


class Desk:
    """One replica's state. Everything but `append` and `model`, which block, is called on the event loop."""

    def __init__(
        self,
        graph: Graph,
        inbox: Inbox,
        pseudonyms: Callable[[], Pseudonymizer],
        max_in_flight: int,
        probe: Callable[[], Awaitable[None]],
        run_id: str | None,
        sessions: SessionLog | None = None,
        sights: SightLog | None = None,
    ) -> None:
        """Args:
        sights: what sessions saw in their frames; None answers each frame by itself.
        pseudonyms: gives those of the key in use.
        max_in_flight: guide requests being answered or waiting; more are shed with 503.
        probe: returns once every hop has answered; raises GuideLensError otherwise.
        """
        self.graph = graph
        self.metrics: ServeMetrics = graph.metrics
        self.run_id = run_id
        self.exposures = ExposureWriter(self.append, graph.metrics)
        self._inbox = inbox
        self._pseudonyms = pseudonyms
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._probe = probe
        self._ready = False
        self._sessions, self._sights = sessions or SessionLog(), sights
        self._models: OrderedDict[str, bytes | None] = OrderedDict()
        self._models_lock = threading.Lock()

    def start(self) -> None:
        self.exposures.start()

    async def stop(self) -> None:
        await self.exposures.stop()
        self.graph.online.close()

    def now(self) -> datetime:
        return datetime.now(UTC)

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Holds one of the places for guide requests.

        Raises:
            ApiError: `overloaded`, where all are taken.
        """
        if self._in_flight >= self._max_in_flight:
            raise overloaded(f"{self._in_flight} requests are being answered, as many as this replica takes")
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.set(self._in_flight)

    async def check_ready(self) -> None:
        """Raises ApiError (`not_ready`) until each hop has answered once."""
        if not self._ready:
            try:
                await self._probe()
            except GuideLensError as error:
                reason = f"release {self.graph.release} is loaded, but not every part answers yet: {error}"
                raise ApiError("not_ready", reason, {"Retry-After": "1"}) from error
            self._ready = True

    def readable_key(self, fields: ShopperRequest) -> str | None:
        """The shopper's pseudonym, where there is a shopper and the request lets their features be read."""
        if fields.shopper_id is None or not fields.may_personalize:
            return None
        return self._pseudonyms().key(fields.shopper_id)

    def session(self, session_id: str | None) -> Session:
        focus = self._sessions.focus(session_id)
        row = -1 if focus is None else self.graph.catalogue.row_of.get(focus, -1)
        steady = None if self._sights is None or session_id is None else partial(self._sights.steadied, session_id)
        return Session(self._sessions.steps(session_id), row, steady)

    def remember(self, events: Sequence[Event]) -> None:
        for event in events:
            self._sessions.take(event)

    def append(self, events: Sequence[Event]) -> tuple[int, int]:
        """Pseudonymizes and stores events durably, then has the new ones counted into online features; blocks until they are stored.

        Returns how many were new and how many were known.
        """
        pseudonyms = self._pseudonyms()
        result = self._inbox.append([pseudonyms.pseudonymize(event) for event in events])
        self.graph.online.observe(result.accepted, self.metrics.observed)
        return len(result.accepted), result.duplicate

    def model(self, product: ProductView) -> bytes | None:
        """The product's GLB, made once and kept; None where its dimensions are not known. Blocks."""
        from serve.models_3d import glb  # a second of imports that only this needs

        with self._models_lock:
            if product.product_id in self._models:
                self._models.move_to_end(product.product_id)
                return self._models[product.product_id]
            data = None if product.size is None else glb(product.size, product.category, product.attributes)
            self._models[product.product_id] = data
            if len(self._models) > _MAX_MODELS:
                self._models.popitem(last=False)
            return data
