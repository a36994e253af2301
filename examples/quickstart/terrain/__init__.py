"""An island that never was, with contour lines."""
