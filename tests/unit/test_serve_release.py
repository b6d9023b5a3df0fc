"""What the ingress reads of a release by itself."""

import json
from pathlib import Path

import pytest

from guidelens.errors import BundleError
from serve.release import popularity


def test_the_last_rung_knows_which_products_are_popular(tmp_path: Path) -> None:
    (tmp_path / "popularity.json").write_text(json.dumps({"popularity": [1.0, 7.0, 0.0]}))
    assert popularity(tmp_path, 3).tolist() == [1.0, 7.0, 0.0]


@pytest.mark.parametrize("content", ["[1, 2, 3]", "{}", "nonsense", '{"popularity": [1.0, 2.0]}'])
def test_a_popularity_of_other_products_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "popularity.json").write_text(content)
    with pytest.raises(BundleError, match="popularity"):
        popularity(tmp_path, 3)
