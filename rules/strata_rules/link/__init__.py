"""Link: an installed layer becomes a deployed one, which works from wherever it is unpacked beside those it needs."""
