"""What the gate asks of two searches: it sees a search that lost words, weights or its voice, and an even one as even."""

import dataclasses

import numpy as np
import pytest
from test_search import BANANA, JUICE, OAK, SOFA, STEEL, items, lexicon, picture, shop

from guidelens.inference.search.messages import SearchInput
from guidelens.inference.search.weighing import FEATURES, Answering, Weighing, WeighingHeader
from guidelens.schemas.search import SearchFilters
from guidelens.training.search_rows import Question, catalogue_questions
from pipelines.gate_search import reciprocal_ranks

ASKED = [
    Question("catalogue", SearchInput(text, SearchFilters(), 1, 0), frozenset((row,)))
    for text, row in (("couch", SOFA), ("香蕉", BANANA), ("bannana", BANANA), ("苹果汁", JUICE))
]


def test_a_search_that_finds_everything_has_rank_one_on_questions_made_of_the_catalogue() -> None:
    made = list(catalogue_questions(items(), lexicon(), np.random.default_rng(0), 8))
    assert len(made) == 8
    assert reciprocal_ranks(shop(), made).mean() > 0.9
    assert reciprocal_ranks(shop(), ASKED).tolist() == [1.0] * 4


def test_lost_weights_and_silence_are_seen() -> None:
    blind = dataclasses.replace(shop(), weighing=Weighing(tensors={"weights": np.zeros(len(FEATURES), np.float32)}))
    assert reciprocal_ranks(blind, ASKED).max() == pytest.approx(1 / 8)
    mute = dataclasses.replace(shop(), weighing=Weighing(WeighingHeader(answering=Answering(intercept=-99))))
    asked = [question for question in ASKED if question.asked.text == "couch"]
    assert reciprocal_ranks(mute, asked).tolist() == [0.0]


def test_a_slate_of_the_log_is_ordered_alone() -> None:
    shown = np.array([BANANA, STEEL, OAK], np.int32)
    asked = SearchInput("blue", SearchFilters(), 1, 0, picture(OAK), True, np.array([OAK], np.int32), np.array([0.9], np.float32))
    (rank,) = reciprocal_ranks(shop(), [Question("log", asked, frozenset((BANANA,)), shown)])
    assert rank == pytest.approx(1 / 3)
