"""Several frames of one session: they answer together while they show the same view, and begin anew when it changes."""

import numpy as np
import pytest

from serve.messages import RecognizeReply
from serve.sights import SightLog

NUM_PRODUCTS, WIDTH = 50, 64
VIEWS = np.abs(np.random.default_rng(7).normal(size=(4, WIDTH))).astype(np.float32) ** 3


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def frame(view: int, confidences: dict[int, float], margin: float = 1.0) -> RecognizeReply:
    rows = np.array(list(confidences), np.int32)
    return RecognizeReply(VIEWS[view] * 1.01, margin >= 0, rows, np.array(list(confidences.values()), np.float32), margin=margin)


def best(reply: RecognizeReply) -> int:
    return int(reply.rows[0])


def test_a_first_frame_answers_as_it_would_alone() -> None:
    asked = frame(0, {3: 0.6, 5: 0.3, 8: 0.05})
    reply = SightLog(NUM_PRODUCTS).steadied("s", asked)
    assert (reply.rows.tolist(), reply.confidences.tolist(), reply.evidence) == (asked.rows.tolist(), asked.confidences.tolist(), ("image",))


def test_one_bad_frame_does_not_change_the_answer_and_frames_that_agree_make_it_surer() -> None:
    log = SightLog(NUM_PRODUCTS)
    first = log.steadied("s", frame(0, {3: 0.6, 5: 0.3}))
    second = log.steadied("s", frame(0, {3: 0.6, 5: 0.3}))
    assert first.confidences[0] < second.confidences[0] < 1
    assert second.evidence == ("image", "earlier_frames")
    assert best(log.steadied("s", frame(0, {5: 0.5, 3: 0.4}))) == 3
    assert best(log.steadied("other", frame(0, {5: 0.5, 3: 0.4}))) == 5, "sessions know nothing of each other"


def test_another_view_begins_anew_at_once() -> None:
    log = SightLog(NUM_PRODUCTS)
    for _ in range(6):
        log.steadied("s", frame(0, {3: 0.95, 5: 0.02}))
    reply = log.steadied("s", frame(1, {9: 0.7, 3: 0.1}))
    assert best(reply) == 9 and reply.confidences[0] == pytest.approx(0.7, abs=0.1)
    assert reply.evidence == ("image",)


def test_a_product_put_in_the_same_place_wins_within_a_few_frames() -> None:
    """The background stays, so that frames look alike: what they say must outvote what was believed."""
    log = SightLog(NUM_PRODUCTS)
    for _ in range(10):
        log.steadied("s", frame(0, {3: 0.97, 5: 0.01}))
    answers = [best(log.steadied("s", frame(0, {9: 0.9, 3: 0.02}))) for _ in range(4)]
    assert answers[-1] == 9


def test_what_is_in_the_catalogue_is_decided_over_the_frames_of_a_view() -> None:
    log = SightLog(NUM_PRODUCTS)
    log.steadied("s", frame(0, {3: 0.8}, margin=2.0))
    assert log.steadied("s", frame(0, {3: 0.4}, margin=-0.5)).in_catalogue
    assert not log.steadied("s", frame(2, {7: 0.4}, margin=-0.5)).in_catalogue


def test_sights_are_forgotten_after_a_while_and_beyond_a_number() -> None:
    clock = Clock()
    log = SightLog(NUM_PRODUCTS, max_sights=2, ttl_s=10, clock=clock)
    log.steadied("a", frame(0, {3: 0.9}))
    clock.now_s = 11
    assert log.steadied("a", frame(0, {5: 0.5, 3: 0.4})).evidence == ("image",)
    for name in "bcd":
        log.steadied(name, frame(0, {3: 0.9}))
    assert len(log) == 2


def test_a_release_without_a_recognizer_is_left_as_it_is() -> None:
    log, nothing = SightLog(NUM_PRODUCTS), RecognizeReply(VIEWS[0], None, np.zeros(0, np.int32), np.zeros(0, np.float32))
    assert log.steadied("s", nothing) is nothing and len(log) == 0
