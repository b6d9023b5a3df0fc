"""Tuning in Ray Train workers: fits side by side, given up and gone on with; and `guidelens train` on real photos, released and served."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from served_shop import ServedShop, release_some_groceries, serving

from guidelens.config import Home, TrainConfig, TuningConfig
from guidelens.data.adapters import grocery_store
from guidelens.data.images.decoding import decode_image, thumbnail
from guidelens.data.lake.lake import Lake
from guidelens.encoders.image import load_image_encoder
from guidelens.encoders.onnx_session import OnnxSession
from guidelens.errors import GuideLensError
from guidelens.evaluation.held_back import answers_of
from guidelens.evaluation.report import read_report
from guidelens.models.released_recognizer import ReleasedRecognizer
from guidelens.registry import Registry
from guidelens.schemas.tables import Table
from guidelens.training.tuning_fits import TunedFit, TuningFit, fit_tuned, stop_fits

pytestmark = pytest.mark.usefixtures("ray_cluster")
QUICK = TuningConfig(num_shared_blocks=15, num_views=1, epochs=3, batch_size=8, num_workers=2)
SEED = 3


def cards(num_products: int = 3, each: int = 6) -> tuple[list[bytes], np.ndarray]:
    """JPEGs of grained cards, each product of a colour of its own."""
    random, rows = np.random.default_rng(0), np.repeat(np.arange(num_products), each)
    colours = np.eye(3)[rows % 3] * 150 + 50
    return [thumbnail((colour + random.normal(0, 20, (240, 260, 3))).clip(0, 255).astype(np.uint8)) for colour in colours], rows


def fitted(folder: Path, stop_after: int | None = None) -> tuple[dict[str, TunedFit], dict[str, list[int]]]:
    photos, rows = cards()
    told: dict[str, list[int]] = {}

    def tell(name: str, epoch: object) -> None:
        told.setdefault(name, []).append(epoch.epoch)  # type: ignore[attr-defined]
        if stop_after is not None:
            stop_fits(folder)

    fits = [TuningFit("all", rows), TuningFit("cross_0", np.where(np.arange(len(rows)) % 6 == 0, -1, rows))]
    return fit_tuned(photos, fits, (0, 0, 1), TrainConfig(), QUICK, SEED, folder, tell), told


def test_fits_that_were_given_up_go_on_and_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole, told = fitted(tmp_path / "whole")
    assert told == {"all": [0, 1, 2], "cross_0": [0, 1, 2]}
    assert np.abs(whole["all"].embeddings - whole["cross_0"].embeddings).max() > 1e-3
    with pytest.raises(GuideLensError, match="--resume"):
        fitted(tmp_path / "stopped", stop_after=1)
    resumed, told = fitted(tmp_path / "stopped")
    assert min(len(told.get(name, [])) for name in whole) < QUICK.epochs
    for name, fit in whole.items():
        assert [one.loss for one in resumed[name].history] == [one.loss for one in fit.history]
        assert (resumed[name].embeddings == fit.embeddings).all()
    again, told = fitted(tmp_path / "stopped")
    assert told == {} and (again["all"].embeddings == resumed["all"].embeddings).all()


def unseen(data: Path, home: Home) -> list[tuple[str, str]]:
    """(path, product) of some of the data set's training photos that the shop has not taken in."""
    lake = Lake(home.lake_uri).read(Table.PHOTOS, ["path", "product_id"])
    taken, products = set(lake["path"]), sorted(set(lake["product_id"].drop_nulls()))
    labels = [(label.path, label.product_id) for label in grocery_store.load(data / "grocery-store").labels if label.path not in taken]
    return [each for product in products for each in [pair for pair in labels if pair[1] == product][:5]]


@pytest.fixture(scope="module")
def served(shared_data: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> ServedShop:
    tuning = QUICK.model_copy(update={"num_shared_blocks": 14, "epochs": 2, "batch_size": 16})
    shop = release_some_groceries(
        tmp_path_factory.mktemp("groceries"), shared_data, num_products=10, settings=[f"train.recognizer.tuning={tuning.model_dump_json()}"]
    )
    with serving(shop) as found:
        yield found


@pytest.mark.shared_data
def test_real_photos_are_tuned_on_tracked_measured_released_and_recognized(served: ServedShop, shared_data: Path, tmp_path: Path) -> None:
    from pipelines import evaluate_recognizer

    home = served.shop.home
    registry = Registry(home)
    run_id = registry.version("1").run_id
    metrics = registry.metrics(run_id)
    assert [step for step, _ in registry.history(run_id, "recognizer.train.loss")] == [0, 1]
    assert [step for step, _ in registry.history(run_id, "recognizer.cross_0.train.loss")] == [0, 1]
    report = read_report(registry.download(run_id, "report", tmp_path) / "report.json")
    bundle = home.releases / "1"
    answers = answers_of(bundle)
    missed = [one for one in answers if one.predicted != one.product_id]
    assert report.recognition is not None and report.recognition.photos == len(answers) == metrics["recognizer.held_back_photos"]
    assert sum(one.photos for one in report.recognition.misses if one.answered is not None) == len(missed)
    assert all(example.picture for miss in report.recognition.misses for example in miss.examples)
    recognizer = ReleasedRecognizer.load(bundle, load_image_encoder())
    assert recognizer.is_tuned == (metrics["recognizer.tuned"] == 1) == (bundle / "tuned" / "tuned.json").exists()
    (tmp_path / "labels.csv").write_text("path,product_id\n" + "".join(f"{path},{product}\n" for path, product in unseen(shared_data, home)))
    source = grocery_store.load(shared_data / "grocery-store")
    with contextlib.redirect_stderr(io.StringIO()):
        found = evaluate_recognizer.run(home, "champion", source.photos, tmp_path / "labels.csv", tmp_path / "out.json")
    assert found.top1 >= 0.6 and found.coarse_top1 is not None and found.coarse_top1 >= found.top1
    assert found.family_top1 is not None and found.family_top1 >= found.top1
    assert json.loads((tmp_path / "out.json").read_text())["ms_per_photo"] > 0


@pytest.mark.shared_data
def test_a_reply_names_the_family(served: ServedShop, shared_data: Path) -> None:
    seen = 0
    folder = grocery_store.load(shared_data / "grocery-store").photos
    for path, _ in unseen(shared_data, served.shop.home)[::5]:
        reply = served.guide((folder / path).read_bytes()).json()
        assert "frame" not in reply["missing"]
        if reply["in_catalogue"]:
            seen += 1
            assert reply["family"]["category"] and reply["family"]["confidence"] >= max(one["confidence"] for one in reply["recognized"]) - 1e-4
        else:
            assert reply["family"] is None
    assert seen >= 5


@pytest.mark.shared_data
def test_a_device_that_runs_the_tuned_encoder_is_answered_as_by_a_frame_and_one_of_another_release_by_its_own(served: ServedShop, shared_data: Path) -> None:
    home = served.shop.home
    recognizer = ReleasedRecognizer.load(home.releases / "1", load_image_encoder())
    photo = (grocery_store.load(shared_data / "grocery-store").photos / unseen(shared_data, home)[0][0]).read_bytes()
    fetched = served.client.get("/v1/encoder.onnx")
    on_device, named = OnnxSession(fetched.content), fetched.headers["ETag"].strip('"')
    numbers = np.concatenate([output[0] for output in on_device(decode_image(photo)[None])]).tolist()
    assert len(numbers) == (2560 if recognizer.is_tuned else 1280)
    by_frame, by_device = served.guide(photo).json(), served.guide(image_embedding=numbers, image_encoder=named).json()
    assert [one["product_id"] for one in by_device["recognized"]] == [one["product_id"] for one in by_frame["recognized"]]
    assert "frame" not in by_device["missing"] or not recognizer.is_tuned
    for fields in ({"image_embedding": numbers, "image_encoder": "another"}, {"image_embedding": numbers[:1280]}):
        assert ("frame" in served.guide(**fields).json()["missing"]) == recognizer.loses_without_photo
