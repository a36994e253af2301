"""Archive: a deployed layer becomes one reproducible file."""
