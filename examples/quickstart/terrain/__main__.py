"""Draw an island: `strata run terrain -- SEED` draws another one."""

import shutil
import sys

import contourpy
import numpy as np
from palette import colours
from picture import show

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
    show(rgb, f"island {seed}: contourpy {contourpy.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
