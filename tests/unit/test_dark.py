"""Frames taken in the dark."""

import numpy as np

from guidelens.data.images.dark import brightened


def test_a_dark_frame_gets_back_most_of_what_the_dark_took() -> None:
    random = np.random.default_rng(7)
    lit = np.kron(random.integers(0, 255, (14, 14, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    dark = (lit * 0.2).astype(np.uint8)
    found = brightened(dark)
    assert found is not None and found.shape == lit.shape
    assert np.abs(found.astype(int) - lit).mean() < 0.4 * np.abs(dark.astype(int) - lit).mean()


def test_lit_and_flat_frames_are_left_alone() -> None:
    lit = np.random.default_rng(8).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    assert brightened(lit) is None
    assert brightened(np.full((224, 224, 3), 20, np.uint8)) is None
