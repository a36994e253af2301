"""Python runtimes: chosen at the rim, downloaded and unpacked or captured from this machine, described by facts."""
