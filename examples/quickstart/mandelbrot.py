"""The Mandelbrot set in the terminal, two pixels to a character."""

import shutil
import sys

import numpy as np
from rich.console import Console
from rich.text import Text


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
    console = Console(width=width, highlight=False)
    for top, bottom in zip(rgb[::2], rgb[1::2], strict=True):
        line = Text()
        for upper, lower in zip(top, bottom, strict=True):
            line.append("▀", f"rgb({upper[0]},{upper[1]},{upper[2]}) on rgb({lower[0]},{lower[1]},{lower[2]})")
        console.print(line)
    console.print(f"numpy {np.__version__} on Python {sys.version.split()[0]}, from {sys.prefix}", style="dim")


if __name__ == "__main__":
    main()
