"""Bytecode: each wheel's modules compiled once per runtime, and layers that have it."""
