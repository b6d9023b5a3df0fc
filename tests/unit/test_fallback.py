"""The baseline a release carries: what was fitted comes back from its file, and knows when it knows nothing."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from model_samples import NUM_PRODUCTS, sample_catalogue
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr
from test_request_baselines import walking

from guidelens.config import Baseline, FallbackConfig
from guidelens.data.examples import Examples, empty
from guidelens.errors import BundleError
from guidelens.inference import bundle_rows
from guidelens.inference.rows import request_row
from guidelens.models.baselines.content import unit
from guidelens.models.baselines.fallback import HEADER, TENSORS, Fallback
from guidelens.models.baselines.neural import Ncf
from guidelens.models.baselines.recommender import ItemToItem
from guidelens.models.baselines.requests import Classics
from guidelens.models.complements import content_of
from guidelens.models.histories import Histories
from pipelines import fit_shop
from pipelines.fit_shop import fit_fallback, keep_fallback, some_clicked

IDS = list(sample_catalogue().product_ids)
BASELINES: tuple[Baseline, ...] = ("item_knn", "item_knn_pearson", "transitions", "ease", "content", "hybrid", "user_knn", "als", "ncf")


def kept(folder: Path, baseline: Baseline = "transitions", num_neighbours: int = 5) -> Fallback:
    keep_fallback(walking(), sample_catalogue(), FallbackConfig(baseline=baseline, num_neighbours=num_neighbours), folder, 7)
    found = Fallback.load(folder, IDS)
    assert found is not None
    return found


def looking_at(row: int) -> Examples:
    return request_row(None, "ar", 0, focus_row=row)


@pytest.mark.parametrize("baseline", BASELINES)
def test_what_was_fitted_comes_back_from_its_file(tmp_path: Path, baseline: Baseline) -> None:
    examples = walking()
    fitted = fit_fallback(Classics(examples.of("train"), IDS), baseline, 5, examples.of("val"), sample_catalogue(), 7)
    assert fitted is not None
    fitted.save(tmp_path)
    loaded = Fallback.load(tmp_path, IDS)
    assert loaded is not None and loaded.header == fitted.header
    test = examples.of("test")
    np.testing.assert_allclose(loaded.scorer.product_scores(test), fitted.scorer.product_scores(test), rtol=1e-5)


@pytest.mark.parametrize("baseline", ["transitions", "hybrid"])
def test_what_follows_the_product_in_view_is_named_and_comes_first(tmp_path: Path, baseline: Baseline) -> None:
    fallback = kept(tmp_path, baseline)
    answer = fallback.answer(looking_at(3))
    assert answer is not None
    assert int(np.argmax(answer.scores)) == 4 and answer.by_focus[4]
    assert not answer.by_visits.any()
    header = fallback.header
    assert header.validation_ndcg_at_10 is not None and header.popularity_ndcg_at_10 is not None
    assert header.validation_ndcg_at_10 > header.popularity_ndcg_at_10


@pytest.mark.parametrize("baseline", ["user_knn", "als", "ncf"])
def test_what_is_solved_or_run_for_each_request_speaks_of_what_goes_with_the_product_in_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, baseline: Baseline
) -> None:
    monkeypatch.setattr(Ncf, "fit", partial(Ncf.fit, epochs=80))  # so few clicks are less than a batch
    keep_fallback(of_two_kinds(), sample_catalogue(), FallbackConfig(baseline=baseline), tmp_path, 7)
    fallback = Fallback.load(tmp_path, IDS)
    assert fallback is not None
    answer = fallback.answer(looking_at(3))
    assert answer is not None
    assert not answer.by_focus[3] and not answer.by_visits.any()
    others = np.argsort(-np.where(answer.by_focus, answer.scores, -np.inf))[:4]
    assert answer.by_focus[others].all() and (others % 2 == 1).all()
    assert fallback.answer(empty(1)) is None


def of_two_kinds() -> Examples:
    """Half of the shoppers click even products, half odd ones, four each."""
    rows = walking()
    rng, r = np.random.default_rng(1), np.arange(len(rows))
    shopper = r % 100
    slate = rows.slate_rows.copy()
    slate[:, 0] = 2 * rng.integers(0, NUM_PRODUCTS // 2, len(rows)) + shopper % 2
    return dataclasses.replace(
        rows, shopper_key=np.array([f"k-{one}" for one in shopper], dtype=object), slate_rows=slate, focus_row=np.full_like(rows.focus_row, -1)
    )


def test_a_user_knn_holds_some_shoppers_in_no_order_and_without_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_shop, "FALLBACK_SHOPPERS", 3)
    kept(tmp_path, "user_knn")
    tensors = load_file(tmp_path / TENSORS)
    assert sorted(tensors) == sorted(["popularity", *(f"user_knn.{name}" for name in ("rows", "columns", "weights", "rarity", "settings"))])
    assert tensors["user_knn.settings"][0] == 3 and set(tensors["user_knn.rows"].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("baseline", ["item_knn", "transitions", "ease", "content", "ncf"])
def test_an_amended_catalogue_keeps_what_its_products_say(tmp_path: Path, baseline: Baseline) -> None:
    """One product leaves, one comes: the others are scored as before, and the new one is there."""
    before = kept(tmp_path, baseline, 50)
    rows_P = np.array([-1, *range(1, NUM_PRODUCTS)])
    bundle_rows._fallback(tmp_path / TENSORS, rows_P)
    after = Fallback.load(tmp_path, ["new", *IDS[1:]])
    assert after is not None
    asked = Histories.of_lists([[3], [5, 6]], NUM_PRODUCTS)
    scores = after.scorer.recommender.scores(asked)
    np.testing.assert_allclose(scores[:, 1:], before.scorer.recommender.scores(asked)[:, 1:], rtol=1e-4, atol=1e-5)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("baseline", ["user_knn", "als", "hybrid"])
def test_what_leans_on_all_products_orders_those_that_stay_nearly_as_before(tmp_path: Path, baseline: Baseline) -> None:
    keep_fallback(of_two_kinds(), sample_catalogue(), FallbackConfig(baseline=baseline), tmp_path, 7)
    before = Fallback.load(tmp_path, IDS)
    bundle_rows._fallback(tmp_path / TENSORS, np.array([-1, *range(1, NUM_PRODUCTS)]))
    after = Fallback.load(tmp_path, ["new", *IDS[1:]])
    assert before is not None and after is not None
    asked = Histories.of_lists([[3], [5, 6]], NUM_PRODUCTS)
    found, expected = (each.scorer.recommender.scores(asked)[:, 1:] for each in (after, before))
    assert np.isfinite(found).all()
    for one, other in zip(found, expected, strict=True):
        assert spearmanr(one, other).statistic > 0.8


def test_content_answers_with_the_products_most_like_the_one_in_view(tmp_path: Path) -> None:
    alike_NN = unit(content_of(sample_catalogue())) @ unit(content_of(sample_catalogue())).T
    np.fill_diagonal(alike_NN, -1)
    answer = kept(tmp_path, "content").answer(looking_at(3))
    assert answer is not None and int(np.argmax(answer.scores)) == int(np.argmax(alike_NN[3]))


def test_content_of_a_large_catalogue_is_left_out_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fit_shop, "EASE_UP_TO", 5)
    keep_fallback(walking(), sample_catalogue(), FallbackConfig(baseline="content"), tmp_path, 7)
    assert not (tmp_path / HEADER).exists() and "up to 5 of them, got 12" in capsys.readouterr().err


def test_of_a_stranger_and_of_a_product_nobody_took_it_knows_nothing(tmp_path: Path) -> None:
    examples = walking()
    never = dataclasses.replace(examples, click=np.where((examples.slate_rows == 7) | (examples.focus_row == 7)[:, None], 0, examples.click).astype(np.float32))
    keep_fallback(never, sample_catalogue(), FallbackConfig(baseline="item_knn"), tmp_path, 7)
    fallback = Fallback.load(tmp_path, IDS)
    assert fallback is not None
    assert fallback.answer(empty(1)) is None
    assert fallback.answer(looking_at(7)) is None
    assert fallback.answer(looking_at(3)) is not None


def test_settings_are_chosen_on_no_more_requests_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    val = walking().of("val")
    assert len(some_clicked(val, NUM_PRODUCTS)) == len(val), "every row has a click"
    monkeypatch.setattr("pipelines.fit_shop._MAX_CELLS", 3 * NUM_PRODUCTS)
    few = some_clicked(val, NUM_PRODUCTS).ts_us.tolist()
    assert len(few) == 3
    assert (few[0], few[-1]) == (val.ts_us[0], val.ts_us[-1]), "evenly over time"


def test_a_hybrid_without_a_validation_click_is_left_out(tmp_path: Path) -> None:
    examples = walking()
    quiet = dataclasses.replace(examples, click=np.where((examples.split == "val")[:, None], 0, examples.click).astype(np.float32))
    keep_fallback(quiet, sample_catalogue(), FallbackConfig(baseline="hybrid"), tmp_path, 7)
    assert Fallback.load(tmp_path, IDS) is None
    keep_fallback(quiet, sample_catalogue(), FallbackConfig(baseline="none"), tmp_path, 7)
    assert not (tmp_path / HEADER).exists()


def test_a_file_of_another_catalogue_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    kept(tmp_path)
    with pytest.raises(BundleError, match=f"neighbours of {NUM_PRODUCTS - 1} products"):
        Fallback.load(tmp_path, IDS[1:])
    (tmp_path / TENSORS).write_bytes(b"nothing")
    with pytest.raises(BundleError, match="cannot be read"):
        Fallback.load(tmp_path, IDS)


def test_neighbours_of_sparse_weights_are_those_of_dense_ones() -> None:
    rng = np.random.default_rng(0)
    dense = (rng.random((30, 30)) * (rng.random((30, 30)) < 0.3)).astype(np.float32)
    asked = Histories.of_lists([[1, 2, 2], [], [29, 0]], 30)
    for num in (3, 30):
        cut = ItemToItem(csr_matrix(dense), 0.5).neighbours(num).scores(asked)
        np.testing.assert_allclose(cut, ItemToItem(dense, 0.5).neighbours(num).scores(asked), rtol=1e-5)
    np.testing.assert_allclose(cut, ItemToItem(dense, 0.5).scores(asked), rtol=1e-5)
