"""The rules that build layered Python environments, and the `strata` command line."""
