"""What search learns of how to weigh: nothing from nothing, what clicks say where there are some, and each fusion as it is served."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_search import lexicon, shop

from guidelens.inference.search.weighing import CONTEXT, FEATURES, Kind, Weighing, WeighingHeader
from guidelens.training.search import _Fusion, learn, reciprocal_rank
from guidelens.training.search_rows import JudgedQuery

POPULAR, CALLED = FEATURES.index("popular"), FEATURES.index("called")


def slates(num: int, clicked: str, rng: np.random.Generator, *, places: bool = False) -> list[JudgedQuery]:
    """Slates of six products that words know equally well; clicked is the most popular one, the one at the first place, or any."""
    found = []
    for number in range(num):
        features = np.zeros((6, len(FEATURES)), np.float32)
        features[:, CALLED], features[:, POPULAR] = 1.0, rng.permutation(6) / 5
        wanted = {"popular": int(features[:, POPULAR].argmax()), "first": 0, "any": int(rng.integers(6))}[clicked]
        context = np.zeros(len(CONTEXT), np.float32)
        found.append(
            JudgedQuery("log", f"{clicked}-{number}", features, context, np.eye(6, dtype=np.float32)[wanted], np.arange(6) if places else np.zeros(6, np.int64))
        )
    return found


def weight_of_popularity(weighing: Weighing) -> float:
    features = np.zeros((2, len(FEATURES)), np.float32)
    features[1, POPULAR] = 1
    features[1, CALLED] = features[0, CALLED] = 1
    scores = weighing.scores(features, np.zeros(len(CONTEXT), np.float32))
    return float(scores[1] - scores[0])


def test_clicks_on_the_popular_raise_its_weight_and_clicks_anywhere_do_not() -> None:
    rng = np.random.default_rng(0)
    prior = weight_of_popularity(Weighing())
    liked = learn(shop(), slates(80, "popular", rng), slates(50, "popular", rng), lexicon())
    assert weight_of_popularity(liked) > 3 * prior
    assert liked.header.gains["text_crowd"] > liked.header.gains["text"] + 0.3
    assert weight_of_popularity(learn(shop(), slates(80, "any", rng), [], lexicon())) < 2 * prior


def test_what_is_clicked_for_its_place_is_not_learned_as_liked() -> None:
    rng = np.random.default_rng(1)
    found = learn(shop(), slates(80, "first", rng, places=True), [], lexicon())
    assert weight_of_popularity(found) < 2 * weight_of_popularity(Weighing())


def test_without_anything_to_learn_from_the_prior_stays() -> None:
    found = learn(shop(), [], [], lexicon())
    np.testing.assert_allclose(found.tensors["weights"], Weighing().tensors["weights"])
    assert 0.5 <= found.header.answering.threshold <= 0.7


@pytest.mark.parametrize("kind", ["weighted", "gated", "concat"])
def test_each_fusion_is_served_as_it_was_learned(kind: Kind, tmp_path: Path) -> None:
    torch.manual_seed(3)
    fusion = _Fusion(kind)
    with torch.no_grad():
        for each in fusion.parameters():
            each.add_(0.2 * torch.randn_like(each))
    Weighing(WeighingHeader(kind=kind), fusion.tensors()).save(tmp_path)
    rng = np.random.default_rng(4)
    features, context = rng.random((7, len(FEATURES))).astype(np.float32), rng.random(len(CONTEXT)).astype(np.float32)
    with torch.no_grad():
        learned = fusion(torch.from_numpy(features)[None], torch.from_numpy(context)[None])[0].numpy()
    np.testing.assert_allclose(Weighing.load(tmp_path).scores(features, context), learned, rtol=1e-4, atol=1e-5)


def test_a_rank_counts_ties_against_it() -> None:
    one = slates(1, "popular", np.random.default_rng(5))[0]
    blind = one._replace(features_KF=np.zeros_like(one.features_KF))
    assert reciprocal_rank(_Fusion("weighted"), [one]) == 1.0
    assert reciprocal_rank(_Fusion("weighted"), [blind]) == pytest.approx(1 / 6)
