"""Consoles: what a person sees of a build. They read events and nothing else, and write to standard error only."""
