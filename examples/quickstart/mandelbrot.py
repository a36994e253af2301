"""The Mandelbrot set in the terminal."""

import shutil
import sys

import numpy as np
from picture import show


def escape_times(width: int, height: int, limit: int = 120) -> np.ndarray:
    """Count, smoothly, how long each point of the plane takes to escape; 0 for those that never do."""
    x = np.linspace(-2.2, 0.8, width)
    y = np.linspace(-1.15, 1.15, height)
    c = x[None, :] + 1j * y[:, None]
    z = np.zeros_like(c)
    times = np.zeros(c.shape)
    inside = np.ones(c.shape, dtype=bool)
    for step in range(limit):
        z[inside] = z[inside] ** 2 + c[inside]
        escaped = inside & (np.abs(z) > 8)
        times[escaped] = step + 2 - np.log2(np.log2(np.abs(z[escaped])))
        inside &= ~escaped
    return times


def colours(times: np.ndarray) -> np.ndarray:
    """Turn escape times into RGB."""
    phase = np.sqrt(np.maximum(times, 0)) * 0.9
    rgb = 0.5 + 0.5 * np.cos(phase[..., None] + np.array([3.2, 2.6, 2.0]))
    rgb[times == 0] = 0
    return (rgb * 255).astype(int)


def main() -> None:
    size = shutil.get_terminal_size((80, 26))
    width, rows = min(size.columns, 120), min(size.lines - 3, 36)
    rgb = colours(escape_times(width, rows * 2))
    show(rgb, f"numpy {np.__version__} on Python {sys.version.split()[0]}, from {sys.prefix}")


if __name__ == "__main__":
    main()
