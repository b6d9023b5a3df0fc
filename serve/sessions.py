"""What the ingress remembers of a running session, so that the plan can go on from it. In memory, bounded, forgotten after a while."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from guidelens.schemas.events import Event, EventType
from guidelens.schemas.steps import MAX_STEPS, OUTCOME_INDEX, STEP_INDEX
from serve.messages import SessionSteps

MAX_SESSIONS = 20_000
TTL_S = 1800.0


@dataclass
class _Session:
    """`shown[i]`, `outcomes[i]`: step i and what came of it, as indices; view time and gestures count for the step then in view."""

    seen_s: float
    focus_product_id: str | None = None
    shown: dict[int, int] = field(default_factory=dict)
    outcomes: dict[int, int] = field(default_factory=dict)
    view_ms: dict[int, float] = field(default_factory=dict)
    gestures: dict[int, int] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        index = event.step_index if event.step_index is not None else max(self.shown, default=0)
        if event.type is EventType.AR_OPEN and event.product_id is not None:
            self.focus_product_id = event.product_id
        elif event.type is EventType.GUIDE_STEP and event.step is not None:
            self.shown.setdefault(index, STEP_INDEX[event.step])
        elif event.type is EventType.STEP_OUTCOME and event.outcome is not None:
            self.outcomes[index] = OUTCOME_INDEX[event.outcome]
            if event.step is not None:
                self.shown.setdefault(index, STEP_INDEX[event.step])
        elif event.type is EventType.AR_VIEW and event.view_ms is not None:
            self.view_ms[index] = self.view_ms.get(index, 0.0) + event.view_ms
        elif event.type is EventType.AR_GESTURE:
            self.gestures[index] = self.gestures.get(index, 0) + 1


class SessionLog:
    """Sessions by id, least recently used first; at most `max_sessions`, each kept `ttl_s` after its last event."""

    def __init__(self, max_sessions: int = MAX_SESSIONS, ttl_s: float = TTL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._max_sessions = max_sessions
        self._ttl_s = ttl_s
        self._clock = clock

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self, event: Event) -> None:
        """Adds one event that was accepted; events of other types than steps and AR change nothing."""
        session = self._sessions.pop(event.session_id, None) or _Session(self._clock())
        session.seen_s = self._clock()
        session.take(event)
        self._sessions[event.session_id] = session
        self._forget_old()

    def steps(self, session_id: str | None) -> SessionSteps:
        """The steps that were shown and answered, up to the first one that was not."""
        session = self._live(session_id)
        done = [] if session is None else _answered(session)
        view_ms = {} if session is None else session.view_ms
        gestures = {} if session is None else session.gestures
        return SessionSteps(
            steps=np.array([step for step, _ in done], dtype=np.int8),
            outcomes=np.array([outcome for _, outcome in done], dtype=np.int8),
            view_ms=np.array([view_ms.get(i, 0.0) for i in range(len(done))], dtype=np.float32),
            gestures=np.array([gestures.get(i, 0) for i in range(len(done))], dtype=np.int16),
        )

    def focus(self, session_id: str | None) -> str | None:
        """The product the session opened last, if any."""
        session = self._live(session_id)
        return None if session is None else session.focus_product_id

    def _live(self, session_id: str | None) -> _Session | None:
        session = None if session_id is None else self._sessions.get(session_id)
        return session if session is not None and self._clock() - session.seen_s <= self._ttl_s else None

    def _forget_old(self) -> None:
        now_s = self._clock()
        while self._sessions:
            oldest = next(iter(self._sessions))
            if len(self._sessions) <= self._max_sessions and now_s - self._sessions[oldest].seen_s <= self._ttl_s:
                return
            del self._sessions[oldest]


def _answered(session: _Session) -> list[tuple[int, int]]:
    done: list[tuple[int, int]] = []
    for index in range(MAX_STEPS):
        if index not in session.shown or index not in session.outcomes:
            break
        done.append((session.shown[index], session.outcomes[index]))
    return done
