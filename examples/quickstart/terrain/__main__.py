"""Draw an island: `strata run terrain -- SEED` draws another one."""

import shutil
import sys

import contourpy
import numpy as np
from palette import colours
from rich.console import Console
from rich.text import Text

from terrain.heights import island


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    size = shutil.get_terminal_size((80, 26))
    width, rows = min(size.columns, 120), min(size.lines - 3, 36)
    heights = island(seed, (rows * 2, width))
    rgb = colours(heights)
    lines = contourpy.contour_generator(z=heights)
    for level in np.arange(0.5, 1.0, 0.1):
        for line in lines.lines(level):
            x, y = np.rint(np.asarray(line).T).astype(int)
            rgb[y, x] = rgb[y, x] * 7 // 10
    console = Console(width=width, highlight=False)
    for top, bottom in zip(rgb[::2], rgb[1::2], strict=True):
        text = Text()
        for upper, lower in zip(top, bottom, strict=True):
            text.append("▀", f"rgb({upper[0]},{upper[1]},{upper[2]}) on rgb({lower[0]},{lower[1]},{lower[2]})")
        console.print(text)
    console.print(f"island {seed}: contourpy {contourpy.__version__}, numpy {np.__version__}", style="dim")


if __name__ == "__main__":
    main()
