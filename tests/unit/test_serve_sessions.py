"""What a session's steps and outcomes come to, and that it is forgotten."""

import uuid
from datetime import UTC, datetime
from typing import Any

from guidelens.schemas.events import Event
from guidelens.schemas.steps import OUTCOME_INDEX, STEP_INDEX
from serve.sessions import SessionLog


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def event(type_: str, session_id: str = "x", **fields: Any) -> Event:
    return Event(event_id=uuid.uuid4().hex, event_ts=datetime.now(UTC), anonymous_id="a", session_id=session_id, type=type_, **fields)


def test_steps_count_once_they_were_answered_in_order() -> None:
    log = SessionLog()
    log.take(event("guide_step", step="show_info", step_index=0))
    assert len(log.steps("x").steps) == 0
    log.take(event("step_outcome", step_index=0, outcome="engaged"))
    log.take(event("guide_step", step="show_3d", step_index=1))
    log.take(event("step_outcome", step="offer_coupon", step_index=2, outcome="none"))
    state = log.steps("x")
    assert state.steps.tolist() == [STEP_INDEX["show_info"]]
    assert state.outcomes.tolist() == [OUTCOME_INDEX["engaged"]]
    log.take(event("step_outcome", step_index=1, outcome="cart"))
    assert log.steps("x").steps.tolist() == [STEP_INDEX["show_info"], STEP_INDEX["show_3d"], STEP_INDEX["offer_coupon"]]


def test_view_time_and_gestures_count_for_the_step_in_view() -> None:
    log = SessionLog()
    log.take(event("guide_step", step="show_info", step_index=0))
    log.take(event("ar_view", view_ms=1500))
    log.take(event("step_outcome", step_index=0, outcome="none"))
    log.take(event("guide_step", step="show_3d", step_index=1))
    log.take(event("ar_view", view_ms=700))
    log.take(event("ar_view", view_ms=300))
    log.take(event("ar_gesture", gesture="rotate"))
    log.take(event("step_outcome", step_index=1, outcome="engaged"))
    state = log.steps("x")
    assert state.view_ms.tolist() == [1500.0, 1000.0]
    assert state.gestures.tolist() == [0, 1]


def test_the_product_opened_last_is_in_focus() -> None:
    log = SessionLog()
    assert log.focus("x") is None
    log.take(event("ar_open", product_id="p-1"))
    log.take(event("ar_open", product_id="p-2"))
    log.take(event("click", product_id="p-3"))
    assert log.focus("x") == "p-2"
    assert log.focus("y") is None


def test_sessions_are_forgotten_after_a_while_and_past_a_number() -> None:
    clock = Clock()
    log = SessionLog(max_sessions=2, ttl_s=10, clock=clock)
    for name in "abc":
        log.take(event("ar_open", session_id=name, product_id="p"))
    assert len(log) == 2
    assert log.focus("a") is None
    clock.now_s = 11
    assert log.focus("c") is None
    log.take(event("ar_open", session_id="d", product_id="p"))
    assert len(log) == 1
