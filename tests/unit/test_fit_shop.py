"""What a fit keeps of a shop beside its models: rules that were checked, partners where the log says enough."""

import json
from pathlib import Path

import pytest
from model_samples import NUM_PRODUCTS, sample_catalogue, sample_examples, sample_items

from guidelens.config import Config, Home
from guidelens.errors import ConfigError
from guidelens.inference.popularity import write_popularity
from guidelens.inference.reranking import BUNDLED, read_rules
from guidelens.models.complements import COMPLEMENTS, COMPLEMENTS_HEADER, ComplementsHeader, Partners
from guidelens.presets import tiny
from pipelines.fit_shop import keep_complements, keep_rules


def written(home: Home, text: str) -> Config:
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / "rules.yaml").write_text(text)
    return tiny()


@pytest.fixture(autouse=True)
def _counted(tmp_path: Path) -> None:
    write_popularity(tmp_path, [1.0] * NUM_PRODUCTS, list(range(NUM_PRODUCTS)))


def test_expert_rules_are_checked_against_what_the_products_are(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = "expert: [{name: new, clicks_below: 2, nats: 1}, {name: ghosts, visits_below: 2, products: {brands: [ghost]}, nats: 1}]"
    keep_rules(home, written(home, rules), sample_items(), tmp_path)
    assert [rule.name for rule in read_rules(tmp_path / BUNDLED).expert] == ["new", "ghosts"]
    assert "ghosts" in capsys.readouterr().err


def test_rules_of_the_home_go_into_the_fit_as_they_were_checked(home: Home, tmp_path: Path) -> None:
    config = written(home, "banned: [{name: recall, products: [p-01, gone], when: {since: 2026-03-01T00:00:00Z}}]")
    keep_rules(home, config, sample_items(), tmp_path)
    assert read_rules(tmp_path / BUNDLED) == read_rules(home.root / "rules.yaml")
    assert json.loads((tmp_path / BUNDLED).read_text())["banned"][0]["name"] == "recall"


def test_rules_that_contradict_the_catalogue_stop_the_training(home: Home, tmp_path: Path) -> None:
    config = written(home, "banned: [{name: recall, categories: [things]}]\npinned: [{name: pin, product: p-01, position: 1}]")
    with pytest.raises(ConfigError, match="pin while recall bans its category"):
        keep_rules(home, config, sample_items(), tmp_path)


def test_a_home_without_rules_leaves_none(home: Home, tmp_path: Path) -> None:
    keep_rules(home, tiny(), sample_items(), tmp_path)
    assert not (tmp_path / BUNDLED).exists()


def test_partners_are_kept_with_what_was_chosen_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_complements(sample_examples(200), sample_catalogue(), sample_items(), 0, tmp_path)
    header = ComplementsHeader.model_validate_json((tmp_path / COMPLEMENTS_HEADER).read_text())
    assert header.train_pairs >= 20
    partners = Partners.load(tmp_path, len(sample_catalogue()))
    assert partners is not None
    assert (partners.rows_NK >= 0).any()


def test_a_log_too_small_leaves_no_partners_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_complements(sample_examples(4), sample_catalogue(), sample_items(), 0, tmp_path)
    assert not (tmp_path / COMPLEMENTS).exists()
    assert "left out" in capsys.readouterr().err
