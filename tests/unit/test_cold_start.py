"""The cold-start benchmark's shop before the launch: nothing of a new product is left in what is trained and chosen on."""

import numpy as np
from model_samples import NUM_PRODUCTS, sample_catalogue, sample_examples

from benchmarks.cold_start import before_launch, new_products
from guidelens.data.examples import Examples
from guidelens.models.baselines.requests import RequestReader, clicked_histories
from guidelens.schemas.packed import decode

CATALOGUE = sample_catalogue()
NEW_N = np.arange(NUM_PRODUCTS) % 4 == 1
NEW = set(np.flatnonzero(NEW_N).tolist())


def visited(rows: Examples) -> list[set[int]]:
    reader = RequestReader.of(list(CATALOGUE.product_ids), clicked_only=False, focus_repeats=0)
    found = reader.histories(rows)
    return [set(found.products[start:end].tolist()) for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def test_training_and_validation_rows_know_nothing_of_new_products() -> None:
    whole = sample_examples(300)
    found = before_launch(whole, NEW_N, CATALOGUE.hashes_N)
    early = found.take(found.split != "test")
    for rows in (early.slate_rows, early.focus_row, early.plan_row):
        assert not set(rows.flatten().tolist()) & NEW
    assert not any(visits & NEW for visits in visited(early))
    gone = early.slate_rows < 0
    assert not early.click[gone].any() and not early.purchase[gone].any() and not early.interest_observed[gone].any()
    assert not set(clicked_histories(early, NUM_PRODUCTS).products.tolist()) & NEW
    assert 0 < len(early) < (whole.split != "test").sum(), "sessions about a new product are out, others stay"


def test_test_rows_keep_their_slates_and_what_was_visited_since_the_launch() -> None:
    whole = sample_examples(300)
    found = before_launch(whole, NEW_N, CATALOGUE.hashes_N).of("test")
    before = whole.of("test")
    assert (found.slate_rows == before.slate_rows).all() and (found.click == before.click).all() and (found.focus_row == before.focus_row).all()
    launch_us, lost = int(before.ts_us.min()), 0
    for was, is_now in zip(decode(list(before.packed))[0], decode(list(found.packed))[0], strict=True):
        rows = CATALOGUE.rows_of_hashes(was["recent_products"][: was["num_recent"]])
        stays = ~np.isin(rows, list(NEW)) | (was["recent_ts_us"][: was["num_recent"]] >= launch_us)
        assert is_now["num_recent"] == stays.sum()
        num = int(is_now["num_recent"])
        assert CATALOGUE.rows_of_hashes(is_now["recent_products"][:num]).tolist() == rows[stays].tolist()
        assert (is_now["recent_values"][:num] == was["recent_values"][: was["num_recent"]][stays]).all()
        lost += int((~stays).sum())
    assert lost > 0


def test_which_products_are_new_depends_on_the_seed_alone() -> None:
    first, again, other = new_products(7, 400), new_products(7, 400), new_products(8, 400)
    assert (first == again).all() and (first != other).any()
    assert 0.1 < first.mean() < 0.3
