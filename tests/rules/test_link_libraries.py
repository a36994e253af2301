"""Which libraries are preloaded for which module: glibc's rules, on dynamic sections written down by hand."""

from __future__ import annotations

import pytest

from strata_engine.errors import ActionError
from strata_rules.contents import Library, decode, encode
from strata_rules.link import glibc
from strata_rules.link.globs import excluder
from strata_rules.link.libraries import Linked, Target, link_libraries, module_name
from strata_rules.link.offers import Offers

SITE = "lib/python3.12/site-packages"


def so(path: str, *needed: str, soname: str = "", runpath: str = "", rpath: str = "", machine: str = "X") -> Library:
    return Library(
        path=f"{SITE}/{path}",
        soname=soname,
        needed=needed,
        runpath=tuple(filter(None, [runpath])),
        rpath=tuple(filter(None, [rpath])),
        machine=machine,
    )


def ext(path: str, *needed: str, runpath: str = "", rpath: str = "") -> Library:
    return so(f"{path}.cpython-312-x86_64-linux-gnu.so", *needed, runpath=runpath, rpath=rpath)


def layer(name: str, *libraries: Library, below: tuple[Linked, ...] = (), exclude: tuple[str, ...] = ()) -> Linked:
    return link_libraries(
        name,
        libraries,
        SITE,
        [linked.offers for linked in below],
        Target(glibc, "X"),
        excluded=excluder(exclude),
        same=lambda first, second: first.rpartition("/")[2] == second.rpartition("/")[2] == "libsame.so",
    )


FOO = so("foo.libs/libfoo.so.1.2", soname="libfoo.so.1")
BAR = so("bar/libbar.so.2", "libfoo.so.1", soname="libbar.so.2")


def test_lower_libraries_come_dependencies_first() -> None:
    np = layer("framework-np", FOO)
    sk = layer("framework-sk@3", BAR, below=(np,))
    app = layer("app-x", ext("pkg/_ext", "libbar.so.2", "libfoo.so.1", "libc.so.6"), below=(sk, np))
    expected = (f"framework-np/{SITE}/foo.libs/libfoo.so.1.2", f"framework-sk@3/{SITE}/bar/libbar.so.2")
    assert app.needs == {"pkg._ext": expected}
    assert not app.warnings


def test_modules_of_lower_layers_are_served_in_the_layer_that_runs() -> None:
    np = layer("framework-np", FOO)
    sk = layer("framework-sk", ext("_sk", "libfoo.so.1"), ext("_both", "libfoo.so.1"), below=(np,))
    app = layer("app-x", ext("_both"), below=(sk, np))
    # The application's own `_both` stands before the framework's, and needs nothing.
    assert app.needs == {"_sk": (f"framework-np/{SITE}/foo.libs/libfoo.so.1.2",)}
    assert app.offers.modules == {}


@pytest.mark.parametrize("path", ["$ORIGIN/../foo.libs", "${ORIGIN}/../foo.libs"])
def test_what_the_loader_finds_is_left_to_it(path: str) -> None:
    np = layer("framework-np", FOO)
    own = so("foo.libs/libfoo.so.1", soname="libfoo.so.1")
    for found in (ext("pkg/_e", "libfoo.so.1", runpath=path), ext("pkg/_e", "libfoo.so.1", rpath=path)):
        assert layer("app-x", own, found, below=(np,)).needs == {}


def test_the_layers_own_library_is_left_to_its_package() -> None:
    np = layer("framework-np", FOO)
    own = so("elsewhere/libfoo.so.1", soname="libfoo.so.1")
    assert layer("app-x", own, ext("pkg/_e", "libfoo.so.1"), below=(np,)).needs == {}


def test_an_rpath_is_inherited_and_a_runpath_is_not() -> None:
    np = layer("framework-np", FOO)
    inner = so("pkg/libinner.so", "libfoo.so.1", soname="libinner.so")
    own = so("pkg/libfoo.so.1", soname="libfoo.so.1")
    by_rpath = layer("a", own, inner, ext("pkg/_e", "libinner.so", rpath="$ORIGIN"), below=(np,))
    assert by_rpath.needs == {}
    # With a RUNPATH the loader finds libinner and not libfoo; here no own libfoo is there to be found by its package.
    by_runpath = layer("a", inner, ext("pkg/_e", "libinner.so", runpath="$ORIGIN"), below=(np,))
    assert by_runpath.needs == {
        "pkg._e": (f"framework-np/{SITE}/foo.libs/libfoo.so.1.2",),
        "pkg.libinner": (f"framework-np/{SITE}/foo.libs/libfoo.so.1.2",),
    }


def test_what_is_loaded_from_above_brings_its_neighbours() -> None:
    np = layer("framework-np", FOO, BAR)  # libbar needs libfoo, and no search path says where it is
    app = layer("app-x", ext("_e", "libbar.so.2"), below=(np,))
    assert [path.rpartition("/")[2] for path in app.needs["_e"]] == ["libfoo.so.1.2", "libbar.so.2"]


def test_libraries_that_need_each_other_end() -> None:
    np = layer("np", so("liba.so", "libb.so", soname="liba.so"), so("libb.so", "liba.so", soname="libb.so"))
    assert len(layer("app", ext("_e", "liba.so"), below=(np,)).needs["_e"]) == 2


def test_all_conflicts_are_told_at_once() -> None:
    one = layer("framework-a", FOO, so("libz9.so", soname="libz9.so"))
    two = layer("framework-b", FOO, so("libz9.so", soname="libz9.so"))
    assert layer("app-x", ext("_e"), below=(one, two)).needs == {}, "what nobody needs is no conflict"
    with pytest.raises(ActionError) as caught:
        layer("app-x", ext("_e", "libfoo.so.1"), ext("_f", "libz9.so"), below=(one, two))
    assert [diagnostic.id for diagnostic in caught.value.diagnostics] == ["library-conflict"] * 2
    text = str(caught.value.diagnostics)
    assert "libfoo.so.1" in text
    assert "libz9.so" in text
    assert f"framework-b/{SITE}/foo.libs/libfoo.so.1.2" in text
    two = layer("framework-b", FOO, exclude=("foo.libs/**",))
    assert "_e" in layer("app-x", ext("_e", "libfoo.so.1"), below=(one, two)).needs


def test_two_of_one_name_in_one_layer() -> None:
    twice = layer("np", so("a/libq.so", soname="libq.so"), so("b/libq.so", soname="libq.so"))
    assert [warning.id for warning in twice.warnings] == ["ambiguous-library"]
    assert twice.links == {}
    with pytest.raises(ActionError, match=r"libq\.so"):
        layer("app", ext("_e", "libq.so"), below=(twice,))
    equal = layer("np", so("a/libsame.so", soname="libsame.so"), so("b/libsame.so", soname="libsame.so"))
    assert not equal.warnings
    assert equal.links == {"libsame.so": f"{SITE}/a/libsame.so"}


def test_links_have_file_name_and_soname_and_no_extension_modules() -> None:
    linked = layer(
        "np",
        FOO,
        ext("_e"),
        so("x/_plain.so"),
        so("x/_abi.abi3.so"),
        so("x/libnoname.so"),
        so("PIL/deep/libpng16.so", soname="libpng16.so"),
        exclude=("PIL/**/libpng16.*",),
    )
    assert linked.links == {
        "libfoo.so.1.2": f"{SITE}/foo.libs/libfoo.so.1.2",
        "libfoo.so.1": f"{SITE}/foo.libs/libfoo.so.1.2",
        "libnoname.so": f"{SITE}/x/libnoname.so",
    }


def test_what_nobody_has_is_a_warning_and_the_systems_is_not() -> None:
    linked = layer("app", ext("_e", "libhidden.so.4", "libstdc++.so.6", "libz.so.1", "libcuda.so.1", "libm.so.6"))
    assert [warning.id for warning in linked.warnings] == ["unresolved-library"]
    assert "`libhidden.so.4`" in linked.warnings[0].message
    assert linked.warnings[0].severity == "warning"
    # A layer's private libz is not for others: the interpreter may have loaded the system's already.
    lower = layer("np", so("libz.so.1", soname="libz.so.1"))
    assert layer("app", ext("_e", "libz.so.1"), below=(lower,)).needs == {}


def test_another_machines_library_is_not_taken() -> None:
    lower = layer("np", so("libq.so", soname="libq.so", machine="ARM"))
    assert layer("app", ext("_e", "libq.so"), below=(lower,)).needs == {}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pkg/_c.cpython-312-x86_64-linux-gnu.so", "pkg._c"),
        ("pkg/_c.abi3.so", "pkg._c"),
        ("_c.so", "_c"),
        ("some-data/_c.so", None),
        ("pkg/libx.so.1", None),
        ("a.libs/liba.so", None),
    ],
)
def test_module_names(path: str, name: str | None) -> None:
    assert module_name(f"{SITE}/{path}", SITE) == name
    assert module_name(f"lib/{path}", SITE) is None


def test_system_libraries() -> None:
    assert all(map(glibc.is_system, ["libc.so.6", "ld-linux-x86-64.so.2", "libpython3.12.so.1.0", "libgcc_s.so.1"]))
    assert not any(
        map(glibc.is_system, ["libcrypto.so.3", "libgomp.so.1", "libcudart.so.12", "libmkl.so.1", "libcx.so"])
    )


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", ["libx.so", "a/b/libx.so.1"], []),
        ("PIL/**/libpng16.*", ["s/PIL/libpng16.so", "s/PIL/a/b/libpng16.so.1"], ["s/PIL/libpng15.so", "s/libpng16.so"]),
        ("triton/**", ["s/triton/a/b.so"], ["s/mytriton/b.so"]),
        ("lib[ab]?.so", ["x/liba1.so"], ["x/libc1.so", "x/liba.so"]),
        ("lib[!a].so", ["libb.so"], ["liba.so"]),
        ("a*b", ["x/a.b"], ["x/a/b"]),
    ],
)
def test_exclude_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    excluded = excluder([pattern])
    assert all(map(excluded, yes))
    assert not any(map(excluded, no))


def test_offers_are_read_back() -> None:
    offers = layer("np", FOO, BAR, ext("_e", "libfoo.so.1")).offers
    assert decode(encode(offers), Offers) == offers
