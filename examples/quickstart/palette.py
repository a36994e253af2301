"""Colours for heights: deep water to snow."""

import numpy as np

STOPS = np.array([0.0, 0.36, 0.42, 0.46, 0.62, 0.8, 1.0])
COLOURS = np.array(
    [
        [8, 24, 58],
        [38, 104, 168],
        [222, 205, 150],
        [104, 159, 72],
        [44, 98, 52],
        [121, 112, 102],
        [250, 250, 252],
    ]
)


def colours(heights: np.ndarray) -> np.ndarray:
    """Give an RGB colour (0 to 255) for each height (0 to 1)."""
    return np.stack([np.interp(heights, STOPS, COLOURS[:, c]) for c in range(3)], axis=-1).astype(int)
