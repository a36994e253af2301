"""Lock: what a layer is made of, resolved once by uv, kept in git, and read by everything downstream."""
