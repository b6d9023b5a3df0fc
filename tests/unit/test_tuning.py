"""Tuning the encoder's last blocks: it learns, repeats, leaves the shared encoder alone, and refuses what it cannot use."""

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from guidelens.config import TuningConfig
from guidelens.data.images.decoding import encoder_input
from guidelens.data.images.views import random_view
from guidelens.encoders.image import ImageEncoder, load_image_encoder
from guidelens.encoders.onnx_session import OnnxSession
from guidelens.errors import BundleError, ContractError, ShapeError
from guidelens.models.tuned import TunedRecognizer
from guidelens.training.tuning import Tuning, TuningEpoch, scaled_to, shared_maps, tune_recognizer

TINY = TuningConfig(num_shared_blocks=15, num_views=2, epochs=6, batch_size=8)
FAMILY_OF = (0, 0, 1, 1)
NEVER_SEEN = 3
GOLDEN = Path(__file__).parents[1] / "golden" / "tuning_losses.json"


@cache
def encoder() -> ImageEncoder:
    return load_image_encoder()


def photos(seed: int, each: int = 6) -> tuple[list[np.ndarray], np.ndarray]:
    """Three products as grained cards of a colour and a shape of their own, upright, of unlike sizes."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.arange(3), each)
    return [_card(int(row), random) for row in rows], rows


def _card(row: int, random: np.random.Generator) -> np.ndarray:
    height, width = (int(each) for each in random.integers(240, 300, 2))
    card = np.full((height, width, 3), 90, np.uint8)
    centre, colour = (width // 2, height // 2), [(200, 40, 40), (40, 200, 40), (40, 40, 200)][row]
    if row == 0:
        cv2.circle(card, centre, 90, colour, -1)
    elif row == 1:
        cv2.rectangle(card, (centre[0] - 90, centre[1] - 60), (centre[0] + 90, centre[1] + 60), colour, -1)
    else:
        cv2.line(card, (0, 0), (width, height), colour, 40)
    return np.clip(card + random.normal(0, 8, card.shape), 0, 255).astype(np.uint8)


def tuned(tmp_path: Path, seed: int = 1, config: TuningConfig = TINY) -> tuple[TunedRecognizer, list[TuningEpoch]]:
    told: list[TuningEpoch] = []
    images, rows = photos(0)
    return tune_recognizer(encoder(), images, rows, FAMILY_OF, config, seed, tmp_path / "maps", told.append), told


def unseen() -> tuple[np.ndarray, np.ndarray]:
    images, rows = photos(7, each=3)
    return np.stack([encoder_input(image) for image in images]), rows


def test_new_photos_are_recognised_by_product_and_by_family_and_the_loss_falls(tmp_path: Path) -> None:
    recognizer, told = tuned(tmp_path)
    images, rows = unseen()
    answers = recognizer.recognize(images)
    assert (answers.products_BP.argmax(1) == rows).all()
    assert (answers.families_BF.argmax(1) == np.array(FAMILY_OF)[rows]).all()
    assert [one.epoch for one in told] == list(range(TINY.epochs))
    assert told[-1].loss < told[0].loss


def test_the_seeded_losses_are_those_of_record(tmp_path: Path) -> None:
    assert [one.loss for one in tuned(tmp_path)[1]] == pytest.approx(json.loads(GOLDEN.read_text()), abs=2e-3)


def test_probabilities_sum_to_one_and_a_product_without_a_photo_is_never_answered(tmp_path: Path) -> None:
    answers = tuned(tmp_path)[0].recognize(unseen()[0])
    assert answers.products_BP.sum(1) == pytest.approx(1, abs=1e-5)
    assert (answers.products_BP[:, NEVER_SEEN] == 0).all()


def test_tuning_leaves_the_encoder_as_it_was(tmp_path: Path) -> None:
    images = unseen()[0]
    before = encoder().embed(images)
    answers = tuned(tmp_path)[0].recognize(images)
    assert (encoder().embed(images) == before).all()
    assert np.abs(answers.encoder_BD - before).max() < 1e-5
    assert np.abs(answers.tuned_BD - before).max() > 1e-3


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    images = unseen()[0]
    first, again, other = (tuned(tmp_path / name, seed)[0].recognize(images).products_BP for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert (first == again).all()
    assert np.abs(first - other).max() > 1e-4


def test_no_step_moves_the_weights_where_the_rates_are_next_to_nothing(tmp_path: Path) -> None:
    """The tuned copy starts as the encoder itself: the embeddings are then the encoder's own."""
    still = TINY.model_copy(update={"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1})
    images = unseen()[0]
    assert np.abs(tuned(tmp_path, config=still)[0].recognize(images).tuned_BD - encoder().embed(images)).max() < 1e-4


def test_kept_maps_give_the_answers_of_the_photos_themselves(tmp_path: Path) -> None:
    images, _ = photos(0)
    recognizer = tuned(tmp_path)[0]
    maps = np.load(tmp_path / "maps" / "maps.npy", mmap_mode="r")
    of_photos = recognizer.recognize(np.stack([encoder_input(image) for image in images]))
    assert np.abs(recognizer.answer_maps(maps[:, 0]).products_BP - of_photos.products_BP).max() < 1e-3


def test_what_is_saved_answers_alike_when_loaded(tmp_path: Path) -> None:
    recognizer = tuned(tmp_path)[0]
    recognizer.save(tmp_path / "kept")
    loaded = TunedRecognizer.load(tmp_path / "kept", encoder())
    images = unseen()[0]
    assert loaded.facts == recognizer.facts
    assert (loaded.recognize(images).products_BP == recognizer.recognize(images).products_BP).all()


def test_blocks_tuned_before_heads_were_cosines_answer_by_linear_ones(tmp_path: Path) -> None:
    recognizer, images = tuned(tmp_path, config=TINY.model_copy(update={"head_scale": None, "epochs": 1}))[0], unseen()[0]
    recognizer.save(tmp_path / "kept")
    facts = json.loads((tmp_path / "kept" / "tuned.json").read_text())
    del facts["head_scale"]
    (tmp_path / "kept" / "tuned.json").write_text(json.dumps(facts))
    answers = TunedRecognizer.load(tmp_path / "kept", encoder()).recognize(images)
    weights = load_file(tmp_path / "kept" / "tuned.safetensors")
    logits = answers.tuned_BD @ weights["family.weight"].T + weights["family.bias"]
    assert np.log(answers.families_BF) == pytest.approx(logits - np.log(np.exp(logits).sum(1, keepdims=True)), abs=1e-4)


def test_onnx_runtime_answers_as_the_networks_do(tmp_path: Path) -> None:
    recognizer, images = tuned(tmp_path)[0], unseen()[0]
    recognizer.save(tmp_path / "saved")
    plain = TunedRecognizer.load(tmp_path / "saved", load_image_encoder(runtime="torch")).recognize(images)
    fast = TunedRecognizer.load(tmp_path / "saved", encoder()).recognize(images)
    for name in ("encoder_BD", "tuned_BD", "products_BP", "families_BF"):
        assert np.abs(getattr(fast, name) - getattr(plain, name)).max() < 1e-4, name


def test_the_encoder_for_devices_gives_both_embeddings_in_half_the_bytes(tmp_path: Path) -> None:
    recognizer, images = tuned(tmp_path)[0], unseen()[0]
    small, whole = recognizer.graph(half=True), recognizer.graph()
    session, seen = OnnxSession(small), recognizer.recognize(images)
    assert (session.outputs, len(small) < 0.51 * len(whole)) == (("embedding", "tuned_embedding"), True)
    for embeddings, exact in zip(session(images), (seen.encoder_BD, seen.tuned_BD), strict=True):
        assert ((embeddings * exact).sum(1) / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(exact, axis=1)).min() > 0.9999


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    recognizer = tuned(tmp_path, config=TINY.model_copy(update={"epochs": 1}))[0]
    recognizer.save(tmp_path / "kept")
    facts = tmp_path / "kept" / "tuned.json"
    facts.write_text(facts.read_text().replace(encoder().encoder_id, "another-encoder"))
    with pytest.raises(BundleError, match="another-encoder"):
        TunedRecognizer.load(tmp_path / "kept", encoder())
    (tmp_path / "kept" / "tuned.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="fit again"):
        TunedRecognizer.load(tmp_path / "kept", encoder())


def test_what_cannot_be_tuned_on_is_refused(tmp_path: Path) -> None:
    images, rows = photos(0, each=1)
    with pytest.raises(ContractError, match="at least 2 products"):
        tune_recognizer(encoder(), images, np.zeros(3, np.int64), FAMILY_OF, TINY, 1, tmp_path)
    with pytest.raises(ContractError, match="below 2"):
        tune_recognizer(encoder(), images, rows, (0, 0), TINY, 1, tmp_path)
    with pytest.raises(ShapeError, match="one length"):
        tune_recognizer(encoder(), images[:2], rows, FAMILY_OF, TINY, 1, tmp_path)
    with pytest.raises(ShapeError, match="blocks"):
        encoder().split(16)


def test_views_of_a_photo_differ_and_keep_the_encoders_shape() -> None:
    image, random = photos(3, each=1)[0][0], np.random.default_rng(0)
    first, second = random_view(image, random), random_view(image, random)
    assert first.shape == second.shape == (224, 224, 3)
    assert first.dtype == np.uint8
    assert np.abs(first.astype(int) - second).mean() > 2


def test_a_fit_saved_after_an_epoch_goes_on_with_the_very_steps_it_would_have_taken(tmp_path: Path) -> None:
    images, rows = photos(0)
    maps = shared_maps(encoder(), images, TINY, 1, tmp_path / "maps")

    def begun() -> Tuning:
        return Tuning(encoder(), maps, rows, FAMILY_OF, TINY, seed=1)

    whole, stopped = begun(), begun()
    for _ in range(2):
        stopped.epoch()
    stopped.save(tmp_path)
    resumed = begun()
    resumed.restore(tmp_path)
    assert resumed.epochs_done == 2
    losses = [whole.epoch().loss for _ in range(TINY.epochs)]
    assert [resumed.epoch().loss for _ in range(TINY.epochs - 2)] == losses[2:]
    assert resumed.is_done
    found = [one.recognizer().recognize(unseen()[0]).tuned_BD for one in (whole, resumed)]
    assert (found[0] == found[1]).all()


def test_a_shop_of_many_photos_gets_fewer_epochs_and_no_views_it_would_not_see() -> None:
    config = TuningConfig(epochs=8, num_views=5, max_views=30_000)
    assert [(one.epochs, one.num_views) for one in (scaled_to(config, number) for number in (100, 3_750, 10_000, 100_000))] == [(8, 5), (8, 5), (3, 3), (1, 1)]
