"""The next-item encoder and the protocol it is measured by, on small made-up histories."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.nn import functional as fn

from benchmarks._leave_one_out import interval, metric_rows, ranks, read
from benchmarks.next_item import as_markdown, notes, studied
from guidelens.errors import InputError
from guidelens.models.histories import Histories
from guidelens.models.next_item import Drawer, NextItemConfig, NextItemModel, batch_loss, fit_next_item, padded, thinned
from guidelens.models.next_item_hybrid import RecipeConfig, encoder, stacked

NUM_PRODUCTS, NUM_ATTRIBUTES = 24, 6
SMALL = NextItemConfig(width=16, num_heads=2, dropout=0.1, epochs=30, places_per_batch=128, num_sampled=16, learning_rate=1e-2)


def attributes() -> csr_matrix:
    """Product p has attribute p mod 6, every third one also attribute 0; product 0 has none."""
    having = np.zeros((NUM_PRODUCTS, NUM_ATTRIBUTES), dtype=np.float32)
    having[np.arange(NUM_PRODUCTS), np.arange(NUM_PRODUCTS) % NUM_ATTRIBUTES] = 1
    having[::3, 0] = 1
    having[0] = 0
    return csr_matrix(having)


def walks(num_rows: int = 80, seed: int = 0) -> list[list[int]]:
    """Each shopper starts anywhere and goes on by 5 (mod 24): the next product is certain."""
    rng = np.random.default_rng(seed)
    return [[int(start + 5 * step) % NUM_PRODUCTS for step in range(rng.integers(4, 9))] for start in rng.integers(0, NUM_PRODUCTS, num_rows)]


def walked(num_rows: int = 80) -> Histories:
    return Histories.of_lists(walks(num_rows), NUM_PRODUCTS)


@pytest.mark.parametrize("encoder", ["attention", "gru"])
def test_a_place_sees_nothing_of_what_comes_later(encoder: str) -> None:
    torch.manual_seed(0)
    model = NextItemModel(attributes(), NextItemConfig.model_validate(SMALL.model_dump() | {"encoder": encoder})).eval()
    items = model.products(torch.arange(NUM_PRODUCTS))
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 11]])
    first, second = model.encode(items[one]), model.encode(items[other])
    assert torch.allclose(first[:, :2], second[:, :2], atol=1e-6)
    assert not torch.allclose(first[:, 2:], second[:, 2:], atol=1e-3)


def test_product_vectors_add_their_attributes() -> None:
    model = NextItemModel(attributes(), SMALL)
    own, attribute = model.products.own.weight, model.products.attribute.weight
    found = model.products(torch.tensor([9, 0, 1]))
    assert torch.allclose(found[0], own[9] + (attribute[0] + attribute[3]) / 2**0.5, atol=1e-6)
    assert torch.allclose(found[1], own[0]) and torch.allclose(found[2], own[1] + attribute[1], atol=1e-6)


@pytest.mark.parametrize("encoder", ["attention", "gru"])
def test_it_learns_what_comes_next_and_repeats_exactly(encoder: str) -> None:
    config = NextItemConfig.model_validate(SMALL.model_dump() | {"encoder": encoder})
    first, again = (fit_next_item(walked(), attributes(), config, seed=3) for _ in range(2))
    asked = Histories.of_lists([[2, 7, 12], [20, 1], []], NUM_PRODUCTS)
    found = first.scores(asked)
    assert found[:2].argmax(axis=1).tolist() == [17, 6]
    assert found.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.array_equal(found, again.scores(asked))


def test_the_sampled_loss_nears_the_full_one() -> None:
    torch.manual_seed(0)
    histories = walked(30)
    model = NextItemModel(attributes(), SMALL).eval()
    drawer = Drawer(histories, NextItemConfig.model_validate(SMALL.model_dump() | {"num_sampled": 40_000}))
    with torch.no_grad():
        model.bias_N.normal_()
        sampled, places = batch_loss(model, histories, drawer)
        products_BL, _ = padded(histories)
        items = model.products(torch.arange(NUM_PRODUCTS))
        logits = model.encode(items[products_BL[:, :-1]]) @ items.T + model.bias_N
        there = torch.arange(1, products_BL.shape[1]) < torch.from_numpy(histories.lengths)[:, None]
        full = fn.cross_entropy(logits[there], products_BL[:, 1:][there], reduction="sum")
    assert places == int(there.sum())
    assert float(sampled) == pytest.approx(float(full), rel=0.01)


def written(folder: Path) -> tuple[Path, Path]:
    data, listed = folder / "log.txt", folder / "attributes.json"
    data.write_text("".join(f"{shopper} " + " ".join(str(product * 7 + 3) for product in row) + "\n" for shopper, row in enumerate(walks(), start=1)))
    having = attributes()
    listed.write_text(json.dumps({str(p * 7 + 3): having.indices[having.indptr[p] : having.indptr[p + 1]].tolist() for p in range(NUM_PRODUCTS)}))
    return data, listed


def test_the_last_two_items_are_in_no_training_history(tmp_path: Path) -> None:
    loo = read(*written(tmp_path))
    rows = walks()
    assert loo.train.lengths.tolist() == [len(row) - 2 for row in rows]
    assert loo.test_targets.products.tolist() == [row[-1] for row in rows]
    assert loo.val_targets.products.tolist() == [row[-2] for row in rows]
    assert loo.test_histories.at_age(0).tolist() == loo.val_targets.products.tolist()
    assert (loo.attributes_NF.toarray()[:, 1:] == attributes().toarray()[:, 1:]).all()


def test_a_short_history_is_refused(tmp_path: Path) -> None:
    data, listed = written(tmp_path)
    data.write_text("1 3 10 17\n2 3 10\n")
    with pytest.raises(InputError, match="line 2"):
        read(data, listed)


class Known:
    """Scores product p by p."""

    def scores(self, histories: Histories) -> np.ndarray:
        return np.tile(np.arange(5, dtype=np.float32), (len(histories), 1))


def test_items_taken_before_are_left_out_of_the_ranking() -> None:
    found = ranks(Known(), Histories.of_lists([[4, 2], [0]], 5), Histories.of_lists([[1], [1]], 5))
    assert found.tolist() == [1, 3]
    assert metric_rows(found)["ndcg@5"] == pytest.approx([1 / np.log2(3), 1 / np.log2(5)])


def test_seeds_that_disagree_widen_the_interval() -> None:
    shoppers = np.random.default_rng(0).random(500)
    alike, apart = interval(np.stack([shoppers] * 3)), interval(np.stack([shoppers - 0.3, shoppers, shoppers + 0.3]))
    assert apart.value == pytest.approx(alike.value)
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_thinning_drops_events_and_keeps_order() -> None:
    of = Histories.of_lists([list(range(20))] * 300 + [[0, 1]], NUM_PRODUCTS)
    found = thinned(of, 0.5, np.random.default_rng(0))
    assert 0.7 < len(found.products) / len(of.products) < 0.8
    assert (found.lengths >= 2).all() and (np.diff(found.products)[np.diff(found.rows) == 0] > 0).all()
    assert thinned(of, 0.0, np.random.default_rng(0)) is of


def test_histories_without_a_next_event_are_refused() -> None:
    with pytest.raises(InputError, match="two events or more"):
        fit_next_item(Histories.of_lists([[1], [2]], NUM_PRODUCTS), attributes(), SMALL, seed=0)


def test_attributes_that_are_no_json_are_refused(tmp_path: Path) -> None:
    data, listed = written(tmp_path)
    listed.write_text("")
    with pytest.raises(InputError, match="where none are known"):
        read(data, listed)


def test_the_study_runs_the_recipe_and_its_peers(tmp_path: Path) -> None:
    study = studied(read(*written(tmp_path)), RecipeConfig(encoders=(SMALL,)), 2, "a test", processes=1)
    assert {"popularity", "item_knn", "transitions", "transitions_and_attributes", "ease", "first_encoder", "guidelens"} == set(study.metrics) - {"user_knn"}
    assert study.metrics["guidelens"]["hr@5"].value > 0.9
    assert study.gain_over["popularity"]["ndcg@10"].low > 0
    assert study.notes == ("1 of 24 items have no attributes.",)
    assert "| guidelens |" in as_markdown(study)


def test_items_that_nobody_describes_are_still_told_apart(tmp_path: Path) -> None:
    data, listed = written(tmp_path)
    listed.write_text("{}")
    loo = read(data, listed)
    assert notes(loo) == ("24 of 24 items have no attributes.",)
    config = RecipeConfig(encoders=(SMALL,))
    silent = {"seed": 1, "progress": lambda _: None}
    ours = stacked(loo.train, loo.val_targets, loo.attributes_NF, [encoder(loo.train, loo.attributes_NF, config, 0, **silent)], config, **silent)
    assert metric_rows(ranks(ours, loo.test_histories, loo.test_targets))["hr@5"].mean() > 0.9
