"""A picture in the terminal, two pixels to a character; shades instead where there are no colours."""

import numpy as np
from rich.console import Console
from rich.text import Text

SHADES = np.array(list(" .:-=+*#%@"))


def show(rgb: np.ndarray, caption: str) -> None:
    """Print rows of RGB pixels, of which there is an even number, and a line below them."""
    console = Console(width=rgb.shape[1], highlight=False, soft_wrap=True)
    if console.color_system is None:
        light = rgb.mean(axis=-1)[::2] / 256
        print("\n".join("".join(row).rstrip() for row in SHADES[(light * len(SHADES)).astype(int)]))
    else:
        for top, bottom in zip(rgb[::2], rgb[1::2], strict=True):
            line = Text()
            for upper, lower in zip(top, bottom, strict=True):
                line.append("▀", f"rgb({upper[0]},{upper[1]},{upper[2]}) on rgb({lower[0]},{lower[1]},{lower[2]})")
            console.print(line)
    console.print(caption, style="dim")
