"""The recognizer: products by their photos or catalogue images, calibrated confidence, and an honest "not in the catalogue"."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from guidelens.config import RecognizerConfig
from guidelens.errors import BundleError, ContractError, ShapeError
from guidelens.models.recognizer import Gallery, Recognizer, Whitening, unit, usual_cosines
from guidelens.models.recognizer_fit import (
    NUM_FOLDS,
    Backgrounds,
    CrossFit,
    _evidence_weights,
    _HeldBack,
    _judged_by_others,
    _shrinkage,
    fit_and_answer,
    fit_recognizer,
    folds,
)
from guidelens.models.recognizer_rows import ProductImages, with_rows

WIDTH = 48
NUM_PRODUCTS = 8
NOISE = 1.0
CONFIG = RecognizerConfig()


class Shop:
    """Embeddings as a camera would cause them: a product's own pattern, one strong direction of light, and noise."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.patterns = self.random.gamma(2.0, 1.0, (NUM_PRODUCTS + 4, WIDTH))
        self.light = self.random.gamma(1.0, 1.5, WIDTH)

    def photos(self, rows: np.ndarray, noise: float = 0.25) -> np.ndarray:
        light = self.random.gamma(2.0, 1.0, (len(rows), 1)) * self.light
        grain = self.random.normal(0, noise, (len(rows), WIDTH))
        return np.maximum(self.patterns[rows] + light + grain, 0).astype(np.float32)

    def backgrounds(self) -> Backgrounds:
        flat = self.random.gamma(0.3, 1.0, (40, WIDTH)) * (self.random.random((40, WIDTH)) < 0.3)
        return Backgrounds(flat.astype(np.float32), np.arange(40) % 4)


def fitted(shop: Shop, photos_each: int = 10, noise: float = 0.25, config: RecognizerConfig = CONFIG) -> Recognizer:
    rows = np.repeat(np.arange(NUM_PRODUCTS), photos_each)
    return fit_recognizer(shop.photos(rows, noise), rows, np.zeros(len(rows), bool), NUM_PRODUCTS, config, 0, shop.backgrounds())


def first(recognizer: Recognizer, embeddings: np.ndarray) -> np.ndarray:
    return np.array([answer.product_rows[0] for answer in recognizer.recognize(embeddings)])


def known(recognizer: Recognizer, embeddings: np.ndarray) -> float:
    return float(np.mean([answer.in_catalogue for answer in recognizer.recognize(embeddings)]))


def test_new_photos_are_recognised_through_changing_light() -> None:
    shop = Shop()
    rows = np.repeat(np.arange(NUM_PRODUCTS), 20)
    assert (first(fitted(shop), shop.photos(rows)) == rows).mean() > 0.95


def test_what_is_not_in_the_catalogue_is_called_so_and_what_is_in_it_mostly_not() -> None:
    shop = Shop()
    recognizer = fitted(shop)
    assert known(recognizer, shop.photos(np.repeat(np.arange(NUM_PRODUCTS), 20))) > 0.85
    assert known(recognizer, shop.photos(np.repeat(np.arange(NUM_PRODUCTS, NUM_PRODUCTS + 4), 20))) < 0.3
    assert known(recognizer, shop.backgrounds().embeddings) < 0.05
    assert known(recognizer, np.zeros((1, WIDTH), np.float32)) == 0


def test_a_larger_false_unknown_share_calls_more_unknown() -> None:
    strict, lax = (fitted(Shop(), config=RecognizerConfig(false_unknown_share=share)) for share in (0.3, 0.02))
    assert strict.facts.min_evidence > lax.facts.min_evidence


def test_confidence_is_a_probability_in_line_with_the_share_that_is_right() -> None:
    shop = Shop()
    rows = np.repeat(np.arange(NUM_PRODUCTS), 40)
    answers = fitted(shop, noise=2.0).recognize(shop.photos(rows, noise=2.0), top=NUM_PRODUCTS)
    assert all(answer.confidences.sum() == pytest.approx(1, abs=1e-5) for answer in answers)
    assert all((np.diff(answer.confidences) <= 0).all() for answer in answers)
    said = np.mean([answer.confidences[0] for answer in answers])
    right = np.mean([answer.product_rows[0] == row for answer, row in zip(answers, rows, strict=True)])
    assert 0.3 < right < 0.98
    assert abs(said - right) < 0.15


def test_a_product_with_a_catalogue_image_alone_is_recognised_and_one_with_nothing_never() -> None:
    shop = Shop()
    rows = np.repeat(np.arange(5), 6)
    images = np.array([5, 6])
    recognizer = fit_recognizer(
        np.concatenate([shop.photos(rows), shop.photos(images)]),
        np.concatenate([rows, images]),
        np.arange(len(rows) + 2) >= len(rows),
        NUM_PRODUCTS,
        CONFIG,
        0,
        shop.backgrounds(),
    )
    asked = np.repeat([5, 6], 20)
    assert (first(recognizer, shop.photos(asked)) == asked).mean() > 0.8
    answers = recognizer.recognize(shop.photos(np.full(5, 7)), top=NUM_PRODUCTS)
    assert all(len(answer.product_rows) == 7 and 7 not in answer.product_rows for answer in answers)


def beside_photographed(num_alone: int) -> tuple[Recognizer, Shop]:
    """Products with photos and a catalogue image each, but for the last `num_alone`: catalogue images alone. A studio's light is on all of these."""
    shop = Shop()
    studio = shop.random.gamma(2.0, 6.0, WIDTH)
    rows, images = np.repeat(np.arange(NUM_PRODUCTS - num_alone), 10), np.arange(NUM_PRODUCTS)
    catalogue = (shop.photos(images, NOISE) + studio).astype(np.float32)
    is_catalogue = np.arange(len(rows) + len(images)) >= len(rows)
    both = np.concatenate([shop.photos(rows, NOISE), catalogue]), np.concatenate([rows, images])
    return fit_recognizer(*both, is_catalogue, NUM_PRODUCTS, CONFIG, 0, shop.backgrounds()), shop


def test_a_product_known_by_its_catalogue_image_alone_holds_its_own_beside_photographed_ones() -> None:
    recognizer, shop = beside_photographed(num_alone=2)
    unscaled = Recognizer(
        recognizer._whitening,
        replace(recognizer._gallery, catalogue_scale=1.0, catalogue_shift=0.0),
        recognizer.evidence_weights_E,
        recognizer.facts,
    )
    alone, photographed = np.repeat([NUM_PRODUCTS - 2, NUM_PRODUCTS - 1], 40), np.repeat(np.arange(NUM_PRODUCTS - 2), 20)
    asked = shop.photos(alone, NOISE)
    assert recognizer.facts.catalogue_shift > 0
    assert (first(recognizer, asked) == alone).mean() > (first(unscaled, asked) == alone).mean() + 0.1
    assert (first(recognizer, shop.photos(photographed, NOISE)) == photographed).mean() > 0.9


def test_where_all_products_have_photos_the_scale_of_catalogue_images_changes_no_answer() -> None:
    recognizer, shop = beside_photographed(num_alone=0)
    unscaled = Recognizer(
        recognizer._whitening, replace(recognizer._gallery, catalogue_scale=1.0, catalogue_shift=0.0), recognizer.evidence_weights_E, recognizer.facts
    )
    asked = shop.photos(np.repeat(np.arange(NUM_PRODUCTS), 10), NOISE)
    for ours, theirs in zip(recognizer.recognize(asked), unscaled.recognize(asked), strict=True):
        assert (ours.in_catalogue, ours.product_rows.tolist(), ours.confidences.tolist()) == (
            theirs.in_catalogue,
            theirs.product_rows.tolist(),
            theirs.confidences.tolist(),
        )


def test_products_that_join_by_their_catalogue_image_alone_are_recognised_on_its_scale(tmp_path: Path) -> None:
    """Without a fit, into a recognizer whose own products all had photos."""
    shop, known = Shop(), NUM_PRODUCTS - 2
    studio = shop.random.gamma(2.0, 6.0, WIDTH)
    rows, images = np.repeat(np.arange(known), 10), (shop.photos(np.arange(NUM_PRODUCTS), NOISE) + studio).astype(np.float32)
    is_catalogue = np.arange(len(rows) + known) >= len(rows)
    fitted_before = fit_recognizer(
        np.concatenate([shop.photos(rows, NOISE), images[:known]]), np.concatenate([rows, np.arange(known)]), is_catalogue, known, CONFIG, 0, shop.backgrounds()
    )
    fitted_before.save(tmp_path)
    joined = {row: ProductImages(images[row][None], np.array([True])) for row in (known, known + 1)}
    with_rows(tmp_path, np.array([*range(known), -1, -1]), joined, [""] * NUM_PRODUCTS)
    recognizer = Recognizer.load(tmp_path)
    unscaled = Recognizer(
        recognizer._whitening, replace(recognizer._gallery, catalogue_scale=1.0, catalogue_shift=0.0), recognizer.evidence_weights_E, recognizer.facts
    )
    alone, photographed = np.repeat([known, known + 1], 40), np.repeat(np.arange(known), 20)
    asked = shop.photos(alone, NOISE)
    assert (first(recognizer, asked) == alone).mean() > (first(unscaled, asked) == alone).mean() + 0.1
    assert (first(recognizer, shop.photos(photographed, NOISE)) == photographed).mean() > 0.9


def test_a_recognizer_of_the_version_before_is_read_and_answers_as_it_did(tmp_path: Path) -> None:
    asked = Shop(5).photos(np.arange(NUM_PRODUCTS))
    recognizer = fitted(Shop())
    recognizer.save(tmp_path)
    facts = json.loads((tmp_path / "recognizer.json").read_text())
    kept = {name: value for name, value in facts.items() if not name.startswith("catalogue_")} | {"schema_version": 1}
    (tmp_path / "recognizer.json").write_text(json.dumps(kept))
    tensors = load_file(tmp_path / "recognizer.safetensors")
    del tensors["from_catalogue"]
    del tensors["usual"]
    save_file(tensors, tmp_path / "recognizer.safetensors")
    before = Recognizer.load(tmp_path)
    cosines = Whitening(tensors["mean"], tensors["projection"])(asked) @ np.concatenate([tensors["prototypes"], tensors["backgrounds"]]).T
    ranked = -np.sort(-cosines[:, :NUM_PRODUCTS], axis=1)
    plain = np.stack([ranked[:, 0], ranked[:, 0] - ranked[:, 1], cosines[:, NUM_PRODUCTS:].max(1)], axis=1)
    margins = plain @ tensors["evidence_weights"] - before.facts.min_evidence
    assert [answer.margin for answer in before.recognize(asked)] == pytest.approx(margins, abs=1e-3), "its evidence is the cosine itself"
    assert [answer.confidences.tolist() for answer in before.recognize(asked)] == [answer.confidences.tolist() for answer in recognizer.recognize(asked)]
    (tmp_path / "recognizer.json").write_text(json.dumps(kept | {"schema_version": 5}))
    with pytest.raises(BundleError, match="1 or 2 or 3 or 4"):
        Recognizer.load(tmp_path)


def test_catalogue_images_alone_make_a_recognizer_that_says_how_it_was_calibrated() -> None:
    shop = Shop()
    rows = np.arange(NUM_PRODUCTS)
    recognizer = fit_recognizer(shop.photos(rows), rows, np.ones(NUM_PRODUCTS, bool), NUM_PRODUCTS, CONFIG, 0, shop.backgrounds())
    asked = np.repeat(rows, 10)
    assert recognizer.facts.calibration == "backgrounds_only"
    assert (first(recognizer, shop.photos(asked)) == asked).mean() > 0.6
    assert known(recognizer, shop.backgrounds().embeddings) < 0.2


def test_unlabelled_photos_change_nothing() -> None:
    rows = np.repeat(np.arange(NUM_PRODUCTS), 6)
    photos, backgrounds = Shop().photos(rows), Shop().backgrounds()
    extra = Shop(9).photos(rows)
    plain = fit_recognizer(photos, rows, np.zeros(len(rows), bool), NUM_PRODUCTS, CONFIG, 0, backgrounds)
    more = fit_recognizer(
        np.concatenate([photos, extra]), np.concatenate([rows, np.full(len(rows), -1)]), np.zeros(2 * len(rows), bool), NUM_PRODUCTS, CONFIG, 0, backgrounds
    )
    assert plain.facts == more.facts


def test_one_seed_gives_one_recognizer_and_a_saved_one_answers_alike(tmp_path: Path) -> None:
    asked = Shop(5).photos(np.arange(NUM_PRODUCTS))
    one, two = fitted(Shop()), fitted(Shop())
    one.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recognizer.json", "recognizer.safetensors"]
    for a, b, c in zip(one.recognize(asked), two.recognize(asked), Recognizer.load(tmp_path).recognize(asked), strict=True):
        assert a.product_rows.tolist() == b.product_rows.tolist() == c.product_rows.tolist()
        assert a.confidences.tolist() == b.confidences.tolist() == c.confidences.tolist()
        assert a.in_catalogue == b.in_catalogue == c.in_catalogue


def test_an_answer_does_not_depend_on_the_other_frames_of_its_batch() -> None:
    shop = Shop()
    recognizer = fitted(shop)
    asked = shop.photos(np.repeat(np.arange(NUM_PRODUCTS), 3))
    for together, embedding in zip(recognizer.recognize(asked), asked, strict=True):
        alone = recognizer.recognize(embedding[None])[0]
        assert alone.product_rows.tolist() == together.product_rows.tolist()
        assert np.abs(alone.confidences - together.confidences).max() < 1e-5


def test_folds_spread_each_product_and_keep_copies_of_one_photo_together() -> None:
    shop = Shop()
    rows = np.repeat(np.arange(4), 16)
    shots = shop.photos(rows)
    assigned = folds(np.concatenate([shots, shots + 1e-4]), np.concatenate([rows, rows]), 0)
    for row in range(4):
        assert set(assigned[:64][rows == row]) == set(range(NUM_FOLDS))
    assert (assigned[:64] == assigned[64:]).all()


def test_the_shrinkage_is_the_one_of_ledoit_and_wolf() -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    residuals = Shop().photos(np.repeat(np.arange(NUM_PRODUCTS), 5))
    residuals -= residuals.mean(0)
    covariance = (residuals.T @ residuals).astype(np.float64) / len(residuals)
    level = float(np.trace(covariance)) / WIDTH
    assert _shrinkage(residuals, covariance, level) == pytest.approx(ledoit_wolf_shrinkage(residuals, assume_centered=True), rel=1e-4)


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    shop = Shop()
    photos = shop.photos(np.zeros(4, int))
    with pytest.raises(ContractError, match="at least one photo"):
        fit_recognizer(photos, np.full(4, -1), np.zeros(4, bool), 2, CONFIG, 0, shop.backgrounds())
    with pytest.raises(ContractError, match="below 2"):
        fit_recognizer(photos, np.full(4, 2), np.zeros(4, bool), 2, CONFIG, 0, shop.backgrounds())
    with pytest.raises(ShapeError):
        fit_recognizer(photos, np.zeros(3, int), np.zeros(4, bool), 2, CONFIG, 0, shop.backgrounds())
    with pytest.raises(ShapeError, match="encoder"):
        fitted(shop).recognize(np.zeros((1, WIDTH + 1), np.float32))
    with pytest.raises(BundleError):
        Recognizer.load(tmp_path)


def test_the_threshold_keeps_false_accepts_to_what_was_asked_for_and_says_what_it_costs() -> None:
    loose, strict = (fitted(Shop(), noise=2.0, config=RecognizerConfig(max_false_accepts=share)).facts for share in (0.5, 0.1))
    assert loose.held_back_false_accepts is not None and strict.held_back_false_accepts is not None
    assert 0.4 < loose.held_back_false_accepts <= 0.5
    assert 0.05 < strict.held_back_false_accepts <= 0.1
    assert loose.held_back_unknown_share is not None and strict.held_back_unknown_share is not None
    assert loose.held_back_unknown_share < strict.held_back_unknown_share


def in_families(config: RecognizerConfig = CONFIG, **given: object) -> tuple[Recognizer, Shop]:
    """Products two by two in a family, the last two in none; the two of a family differ little."""
    shop = Shop()
    shop.patterns[1::2] = 0.8 * shop.patterns[0::2] + 0.2 * shop.patterns[1::2]
    rows = np.repeat(np.arange(NUM_PRODUCTS), 10)
    family_of = (0, 0, 1, 1, 2, 2, -1, -1)
    embeddings = shop.photos(rows, NOISE)
    return fit_and_answer(embeddings, rows, np.zeros(len(rows), bool), NUM_PRODUCTS, config, 0, shop.backgrounds(), family_of)[0], shop


def test_the_family_is_surer_than_any_product_of_it_and_oftener_right(tmp_path: Path) -> None:
    recognizer, shop = in_families()
    recognizer.save(tmp_path)
    rows = np.repeat(np.arange(6), 20)
    answers = Recognizer.load(tmp_path).recognize(shop.photos(rows, NOISE))
    assert all(answer.family_confidence >= answer.confidences[0] - 1e-6 for answer in answers if answer.family_row // 2 == answer.product_rows[0] // 2)
    of_family = np.mean([answer.family_row // 2 == row // 2 for answer, row in zip(answers, rows, strict=True)])
    assert of_family > np.mean([answer.product_rows[0] == row for answer, row in zip(answers, rows, strict=True)]) + 0.05


def test_what_calibrates_is_what_an_encoder_that_has_not_seen_the_photos_makes_of_them() -> None:
    """Embeddings that give the product away, as those of photos an encoder was tuned on, make nothing surer."""
    shop, rows = Shop(), np.repeat(np.arange(NUM_PRODUCTS), 10)
    honest, drawn = shop.photos(rows, 3.0), shop.backgrounds()
    flattering = shop.patterns[rows].astype(np.float32)
    held = (np.arange(len(rows)) % 4 == 0) & (rows > 0)
    crossed = [CrossFit(held, rows == 0, honest, drawn.embeddings)]
    plain, answers = fit_and_answer(flattering, rows, np.zeros(len(rows), bool), NUM_PRODUCTS, CONFIG, 0, drawn, cross_fits=crossed)
    flattered = fit_recognizer(flattering, rows, np.zeros(len(rows), bool), NUM_PRODUCTS, CONFIG, 0, drawn)
    assert plain.facts.temperature > flattered.facts.temperature
    assert answers is not None and sorted(answers.photos_H.tolist()) == np.flatnonzero(held).tolist()
    assert (plain.facts.novel_products, flattered.facts.novel_products) == (1, 0)
    assert plain.facts.held_back_top1 == (answers.product_rows_HK[:, 0] == rows[answers.photos_H]).mean() < 1


def test_what_is_usual_for_a_product_is_how_its_photos_lie_to_its_other_photos() -> None:
    points = unit(np.array([[1, 0], [1, 1], [0, 1], [3, 4]]))
    usual = usual_cosines(points, np.array([0, 0, 0, 2]), 3)
    pairs = [points[each] @ unit(points[[other for other in range(3) if other != each]].sum(0, keepdims=True))[0] for each in range(3)]
    assert usual[0] == pytest.approx(np.mean(pairs))
    assert np.isnan(usual[1:]).all()


def test_one_cosine_is_more_evidence_for_a_product_of_many_looks_than_for_one_whose_photos_are_alike() -> None:
    gallery = Gallery(np.eye(2, 3, dtype=np.float32), np.zeros((0, 3), np.float32), np.zeros(2, bool), np.array([0.9, 0.4], np.float32))
    alike, many = gallery.evidence(unit(np.array([[0.6, 0, 0.8], [0, 0.6, 0.8]])))
    assert many[0] - alike[0] == pytest.approx(0.5, abs=1e-6)


def test_a_product_that_joins_by_photos_brings_what_is_usual_for_it_and_one_by_its_catalogue_image_gets_the_middle(tmp_path: Path) -> None:
    shop = Shop()
    fitted(shop).save(tmp_path)
    before = load_file(tmp_path / "recognizer.safetensors")["usual"]
    photos = shop.photos(np.full(6, NUM_PRODUCTS), NOISE)
    joined = {NUM_PRODUCTS: ProductImages(photos, np.zeros(6, bool)), NUM_PRODUCTS + 1: ProductImages(photos[:1], np.array([True]))}
    with_rows(tmp_path, np.array([*range(NUM_PRODUCTS), -1, -1]), joined, [""] * (NUM_PRODUCTS + 2))
    tensors = load_file(tmp_path / "recognizer.safetensors")
    own = usual_cosines(Whitening(tensors["mean"], tensors["projection"])(photos), np.zeros(6, np.int64), 1)[0]
    assert tensors["usual"][:NUM_PRODUCTS].tolist() == before.tolist()
    assert tensors["usual"][NUM_PRODUCTS:] == pytest.approx([own, np.median([*before, own])])


def test_evidence_that_tells_nothing_of_other_products_earns_no_auroc() -> None:
    """Few products with chance evidence of their own: weights found on all of them tell these apart, and no others."""
    rows, areas = np.arange(12), []
    for seed in range(60):
        random = np.random.default_rng(seed)
        evidence = random.normal(size=(24, 3))[np.concatenate([rows, rows + 12])].astype(np.float32)
        nothing = random.normal(size=(30, 3)).astype(np.float32)
        held = _HeldBack(np.arange(12), np.zeros((12, 24), np.float32), rows, evidence[:12], evidence[12:], rows + 12, nothing, 12)
        flattering = _evidence_weights(held)[0]
        pairs = (_judged_by_others(held), (held.evidence_HE @ flattering, held.unseen_evidence_HE @ flattering))
        areas.append([(known[:, None] > unseen[None]).mean() for known, unseen in pairs])
    honest, flattered = np.mean(areas, axis=0)
    assert honest < 0.55
    assert flattered > honest + 0.1


def test_products_that_stand_for_what_is_not_sold_are_not_told_by_one_another() -> None:
    """Two that look alike: each would be taken for the other if that were in the gallery."""
    shop, rows = Shop(), np.repeat(np.arange(NUM_PRODUCTS), 10)
    shop.patterns[1] = shop.patterns[0]
    held = (np.arange(len(rows)) % 4 == 0) & (rows > 1)
    embeddings, drawn = shop.photos(rows), shop.backgrounds()
    crossed = [CrossFit(held, rows < 2, embeddings, drawn.embeddings)]
    facts = fit_and_answer(embeddings, rows, np.zeros(len(rows), bool), NUM_PRODUCTS, CONFIG, 0, drawn, cross_fits=crossed)[0].facts
    assert facts.novel_products == 2
    assert facts.unseen_product_auroc is not None and facts.unseen_product_auroc > 0.95
