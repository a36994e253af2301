"""Wheels: fetched, unpacked once by install scheme, merged into the packages of a layer."""
