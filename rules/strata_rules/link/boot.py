"""The text of the files that make a layer find the layers below it (reference: CPython's getpath and site).

Pure: strings in, bytes out. It knows no tree and no store. What the text does:

* `bin/python` is a relative symlink to the runtime's, and `pyvenv.cfg` has an **empty** `home`, which makes CPython
  use the real path of its executable: so nothing in a layer names a place. A relative `home` would be taken relative
  to the current folder, and quietly start another Python's library.
* One `.pth` line imports the boot module. It sorts last, so that the layer's own `.pth` files come first, and it is
  guarded, because every layer below has one as well: unguarded, a diamond of layers gets a wrong order.
  Python 3.15 has `.start` files for that; from 3.18 on it ignores `import` lines in `.pth`.
* Libraries of lower layers are loaded by full path just before the extension module that needs them: glibc then takes
  them for a NEEDED of the same SONAME, and dyld for a need that reads as their install name. The environment stays as
  it is, so children are not disturbed. None of this has been run on macOS.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

BOOT_MODULE = "_strata_boot"
PTH_NAME = "zzz_layers.pth"
START_NAME = "zzz_layers.start"

PYVENV_CFG = b"home =\ninclude-system-site-packages = false\n"

_BOOT = '''\
"""Made by Strata: puts the layers below this one on sys.path, in order. Not to be edited."""

import os
import site
import sys

_RUNTIME = {runtime!r}
_LAYERS = {layers}
_SITE = {site!r}
_NEEDS = {needs}
_root = os.path.dirname(os.path.realpath(sys.prefix)) + "/"
_done = False


def main():
    global _done
    if _done:
        return
    _done = True
    _check()
    known = set(sys.path)
    for layer in _LAYERS:
        site.addsitedir(_root + layer + _SITE, known)
    if _NEEDS:
        _preload()


def _check():
    try:
        placed = os.path.samefile(sys.base_prefix, _root + _RUNTIME)
    except OSError:
        placed = False
    if placed:
        missing = [layer for layer in _LAYERS if layer != _RUNTIME and not os.path.isdir(_root + layer)]
        if not missing:
            return
        found = "not found: " + ", ".join(missing)
    else:
        found = "the Python found is in " + sys.base_prefix
    text = (
        "error: this layer was started without the layers that it needs\\n"
        "  layer: " + sys.prefix + "\\n"
        "  needs, in " + _root + ": " + ", ".join(_LAYERS) + "\\n"
        "  " + found + "\\n"
        "hint: unpack all of them side by side in one folder; a symlink must lead to that folder, not to one layer\\n"
    )
    os.write(2, text.encode("utf-8", "backslashreplace"))
    os._exit(1)


def _preload():
    from importlib.machinery import ExtensionFileLoader

    create = ExtensionFileLoader.create_module

    def create_module(self, spec):
        libraries = _NEEDS.pop(spec.name, ())
        if libraries:
            from _ctypes import dlopen

            for library in libraries:
                try:
                    dlopen(_root + library, os.RTLD_NOW | os.RTLD_LOCAL)
                except OSError as error:
                    raise ImportError(str(error), name=spec.name, path=_root + library) from None
        return create(self, spec)

    ExtensionFileLoader.create_module = create_module
'''

_LAUNCHER = """\
#!/bin/sh
# Made by Strata: starts Python with the libraries of the layers below on the loader's path.
self=$(readlink -f "$0") || exit 1
bin=${{self%/*}}
root=${{bin%/*/*}}
for layer in {layers}; do
    folder=$root/$layer/{dynlib}
    case ":${{{variable}:-}}:" in
    *":$folder:"*) ;;
    *) [ ! -d "$folder" ] || {variable}="${{{variable}:+${variable}:}}$folder" ;;
    esac
done
[ -z "${{{variable}:-}}" ] || export {variable}
# CPython takes sys.executable from this and removes it, so that children start through this script again.
__PYVENV_LAUNCHER__=$bin/python
export __PYVENV_LAUNCHER__
exec "$bin/python_" "$@"
"""


def pth(site: str) -> bytes:
    """Give the `.pth` file of a layer whose site-packages folder is `site`, relative to the layer."""
    return f"import sys; sitedir == sys.prefix + '/{site}' and __import__('{BOOT_MODULE}').main()\n".encode("ascii")


START = f"{BOOT_MODULE}:main\n".encode("ascii")


def boot(layers: Sequence[str], site: str, needs: Mapping[str, Sequence[str]]) -> bytes:
    """Give the boot module: `layers` in the order of sys.path, the runtime last; `needs` by extension module."""
    names = "".join(f"    {layer!r},\n" for layer in layers)
    lines = "".join(
        f"    {module!r}: (\n{''.join(f'        {library!r},{chr(10)}' for library in needs[module])}    ),\n"
        for module in sorted(needs)
    )
    text = _BOOT.format(
        runtime=layers[-1],
        layers=f"(\n{names})",
        site=f"/{site}",
        needs=f"{{\n{lines}}}" if needs else "{}",
    )
    return text.encode("utf-8")


def launcher(layers: Sequence[str], dynlib: str, *, mac: bool) -> bytes:
    """Give the `bin/python` script that sets the loader's search path; the first layer is searched first."""
    return _LAUNCHER.format(
        layers=" ".join(map(shlex.quote, layers)),
        dynlib=dynlib,
        variable="DYLD_LIBRARY_PATH" if mac else "LD_LIBRARY_PATH",
    ).encode("utf-8")
