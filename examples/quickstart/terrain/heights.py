"""Heights made of a few octaves of smooth noise."""

import numpy as np


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    grid = rng.random((cells + 2, cells + 2))
    y = np.linspace(0, cells, shape[0], endpoint=False)
    x = np.linspace(0, cells, shape[1], endpoint=False)
    yi, xi = y.astype(int), x.astype(int)
    fade = [t * t * (3 - 2 * t) for t in (y - yi, x - xi)]
    top = grid[yi][:, xi] * (1 - fade[1]) + grid[yi][:, xi + 1] * fade[1]
    low = grid[yi + 1][:, xi] * (1 - fade[1]) + grid[yi + 1][:, xi + 1] * fade[1]
    return top * (1 - fade[0])[:, None] + low * fade[0][:, None]


def island(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Give heights from 0 to 1, low at the edges."""
    rng = np.random.default_rng(seed)
    heights = sum(_smooth_noise(rng, shape, 3 * 2**octave) / 2**octave for octave in range(5))
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]
    heights = heights * (1.15 - np.clip(x**2 + y**2, 0, 1.15))
    return (heights - heights.min()) / np.ptp(heights)
