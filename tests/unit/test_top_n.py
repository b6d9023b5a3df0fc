"""The MovieLens benchmark's reading, split and metrics, on a few rows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.top_n import metrics, read
from guidelens.errors import InputError
from guidelens.models.histories import Histories


def test_rows_are_dealt_8_to_1_to_1_and_each_lands_once(tmp_path: Path) -> None:
    rows = [(user, film, 1000 + film) for user in range(1, 11) for film in range(1, 11)]
    lines = "".join(f"{user}\t{film}\t3\t{ts}\n" for user, film, ts in rows)
    (tmp_path / "ml-100k.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines)
    train, val, test = read(tmp_path)
    assert [len(part.products) for part in (train, val, test)] == [80, 10, 10]
    assert (sum(part.matrix().toarray() for part in (train, val, test)) == 1).all()
    assert all((np.diff(train.products[a:b]) > 0).all() for a, b in zip(train.offsets[:-1], train.offsets[1:], strict=True))


def test_a_folder_without_the_ratings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"u\.data"):
        read(tmp_path)


class Known:
    """Scores film f by -f."""

    def scores(self, histories: Histories) -> np.ndarray:
        return np.tile(-np.arange(5, dtype=np.float32), (len(histories), 1))


def test_the_best_possible_order_scores_1_and_known_films_are_left_out() -> None:
    known, hidden = Histories.of_lists([[0], [1], [2]], 5), Histories.of_lists([[1, 2], [2], []], 5)
    ndcg, recall = metrics(Known(), known, hidden, (known,))
    assert ndcg == pytest.approx([1.0, 1 / np.log2(3)])
    assert recall.tolist() == [1.0, 1.0]
