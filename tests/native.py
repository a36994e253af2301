"""Shared libraries and an extension module made on the spot, with the C compiler of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

EXTENSION = """
#include <stddef.h>
typedef struct { size_t a[2]; } head;  /* of PyModuleDef_Base, whose rest is zero */
extern void *PyModule_Create2(void *, int);
extern void *PyLong_FromLong(long);
extern int bar(void);
static void *value(void *self, void *args) { return PyLong_FromLong(bar()); }
static struct { const char *name; void *call; int flags; const char *doc; } methods[] = {{"value", value, 4, 0}, {0}};
static struct { size_t base[5]; const char *name; const char *doc; size_t size; void *methods; void *rest[4]; }
    module = {{1, 0, 0, 0, 0}, "_fooext", 0, -1, methods};
void *PyInit__fooext(void) { return PyModule_Create2(&module, 1013); }
"""
"""The module `_fooext`, whose `value()` is what the C function `bar` gives; Python's headers need not be here."""


def compiled(folder: Path, name: str, source: str, *flags: str) -> bytes:
    """Compile a shared object."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.c").write_text(source)
    out = folder / name
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(out), str(folder / "a.c"), *flags], check=True)
    return out.read_bytes()
