"""How popular products are, as a release says it and its readers check it."""

from pathlib import Path

import pytest

from guidelens.errors import BundleError
from guidelens.inference.popularity import read_popularity, write_popularity


def test_what_was_counted_comes_back(tmp_path: Path) -> None:
    write_popularity(tmp_path, [1.0, 7.0, 0.0], [1, 2, 0])
    found = read_popularity(tmp_path, 3)
    assert found.weights_N.tolist() == [1.0, 7.0, 0.0]
    assert found.clicks_N is not None and found.clicks_N.tolist() == [1, 2, 0]


def test_a_release_that_did_not_count_clicks_says_so(tmp_path: Path) -> None:
    (tmp_path / "popularity.json").write_text('{"popularity": [1.0, 2.0]}')
    assert read_popularity(tmp_path, 2).clicks_N is None


@pytest.mark.parametrize("content", ["[1, 2, 3]", "{}", "nonsense", '{"popularity": [1.0, 2.0]}', '{"popularity": [1.0, 2.0, 3.0], "clicks": [1]}'])
def test_a_popularity_of_other_products_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "popularity.json").write_text(content)
    with pytest.raises(BundleError, match="popularity"):
        read_popularity(tmp_path, 3)
