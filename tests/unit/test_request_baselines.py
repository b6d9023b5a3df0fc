"""Classic recommenders on slate requests: what they read of a request, and that the hybrid is measured beside its parts."""

import dataclasses

import numpy as np
import pytest
from model_samples import NUM_PRODUCTS, packed_row, sample_catalogue, sample_examples

from guidelens.data.examples import Examples, empty
from guidelens.evaluation import guide
from guidelens.evaluation.guide import classic_baselines
from guidelens.evaluation.ranking import score_requests
from guidelens.models.baselines.requests import RequestReader, clicked_histories
from guidelens.schemas.ids import stable_hash
from guidelens.schemas.packed import PACKED_DTYPE, RECENT_VALUES

IDS = list(sample_catalogue().product_ids)


def request(clicked: list[bool], focus: int) -> Examples:
    """One request whose shopper visited products 3, 2, 1, … (newest first), with a click or without."""
    row = np.frombuffer(packed_row(np.random.default_rng(0), 10**15, IDS), dtype=PACKED_DTYPE).copy()
    row["recent_products"][0], row["recent_values"][0], row["num_recent"] = 0, 0, len(clicked)
    for place, one in enumerate(clicked):
        row["recent_products"][0, place] = stable_hash(IDS[3 - place])
        row["recent_values"][0, place, RECENT_VALUES.index("clicks")] = float(one)
    return dataclasses.replace(empty(1), packed=np.array([row.tobytes()], dtype=object), focus_row=np.array([focus], dtype=np.int32))


def test_visits_are_read_oldest_first_and_the_focus_last() -> None:
    asked = request([True, False, True], focus=7)
    assert RequestReader.of(IDS, clicked_only=False).histories(asked).products.tolist() == [1, 2, 3, 7]
    assert RequestReader.of(IDS, focus_repeats=2).histories(asked).products.tolist() == [1, 3, 7, 7]


def test_a_request_of_nobody_has_an_empty_history() -> None:
    assert RequestReader.of(IDS).histories(empty(2)).lengths.tolist() == [0, 0]


def test_clicks_of_training_rows_come_in_time_order_a_shopper() -> None:
    train = sample_examples(80)
    shuffled = train.take(np.random.default_rng(1).permutation(len(train)))
    found, again = clicked_histories(train, NUM_PRODUCTS), clicked_histories(shuffled, NUM_PRODUCTS)
    assert len(found.products) == int(((train.click > 0) & (train.slate_rows >= 0)).sum())
    assert found.products.tolist() == again.products.tolist()


def walking(num_rows: int = 400) -> Examples:
    """Each shopper clicks one product after another, and has the last one in focus: what comes next is certain."""
    rows = sample_examples(num_rows)
    starts = np.random.default_rng(0).integers(0, NUM_PRODUCTS, 20)
    r = np.arange(num_rows)
    focus = ((starts[r % 20] + r // 20) % NUM_PRODUCTS).astype(np.int32)
    slate = ((focus[:, None] + np.arange(1, rows.slate_rows.shape[1] + 1)) % NUM_PRODUCTS).astype(np.int32)
    click = np.zeros_like(rows.click)
    click[:, 0] = 1
    shoppers = np.array([f"k-{i % 20}" for i in r], dtype=object)
    return dataclasses.replace(rows, shopper_key=shoppers, focus_row=focus, slate_rows=slate, click=click, packed=np.full(num_rows, None, dtype=object))


def test_what_follows_the_focus_is_found_by_transitions_and_by_the_hybrid() -> None:
    examples = walking()
    found = classic_baselines(examples, sample_catalogue())
    assert list(found) == ["popularity", "item_knn", "transitions", "ease", "hybrid", "item_knn_pearson", "user_knn", "als", "ncf", "content"]
    mean = {name: score_requests(scorer, examples.of("test")).ndcg.mean() for name, scorer in found.items()}
    assert mean["transitions"] > 0.9 and mean["hybrid"] > 0.9 and mean["popularity"] < 0.7


def test_baselines_that_cost_most_are_left_out_of_a_long_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guide, "LEARNED_UP_TO", 100)
    found = classic_baselines(walking(), sample_catalogue())
    assert {"user_knn", "als", "ncf"}.isdisjoint(found) and "item_knn_pearson" in found


def test_learned_baselines_are_the_same_for_the_same_seed() -> None:
    examples = walking(200)
    first, again, other = (classic_baselines(examples, sample_catalogue(), seed) for seed in (3, 3, 4))
    for name in ("als", "ncf"):
        scores_RN, again_RN, other_RN = (found[name].product_scores(examples.of("test")) for found in (first, again, other))
        assert np.array_equal(scores_RN, again_RN) and not np.array_equal(scores_RN, other_RN)


def test_a_shop_where_nothing_was_clicked_has_its_baselines_all_the_same() -> None:
    nothing = dataclasses.replace(sample_examples(60), click=np.zeros((60, 5), dtype=np.float32))
    found = classic_baselines(nothing, sample_catalogue())
    assert list(found) == ["popularity", "item_knn", "transitions", "ease", "item_knn_pearson", "content"]
    assert all(np.isfinite(scorer.product_scores(nothing)).all() for scorer in found.values())
