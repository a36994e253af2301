"""Which libraries are preloaded for which module: glibc's rules, on dynamic sections written down by hand."""

from __future__ import annotations

import glob
import re
from typing import Any

import msgspec
import pytest
from glob_samples import PATHS, PATTERNS

from strata_engine.errors import ActionError
from strata_rules.contents import Library, decode, encode
from strata_rules.link import dyld, glibc
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


# -- who would provide what is missing --------------------------------------------------------------------------------


def advice(linked: Linked) -> str:
    [warning] = linked.warnings
    assert warning.id == "unresolved-library"
    return "\n".join([warning.message, *warning.notes, str(warning.hint)])


def test_one_warning_names_who_would_provide_what_is_missing() -> None:
    low = layer(
        "framework-low@2",
        FOO,
        so("q/libarm.so", soname="libarm.so", machine="ARM"),
        so("z/libver.so.1", soname="libver.so.1"),
        so("o/libodd.so.5", soname="libodd-internal.so"),
        exclude=("none/**", "foo.libs/**"),
    )
    assert "libfoo.so.1" not in low.offers.libraries
    assert "libfoo.so.1" not in low.links
    wanted = ("libfoo.so.1", "libarm.so", "libver.so.2", "libodd.so.5", "libcudart.so.12", "libcusparse.so.12")
    said = advice(layer("app-x", ext("_e", *wanted), ext("_f", "libfoo.so.1"), below=(low,)))
    assert said == (
        "`app-x` needs `libarm.so`, `libcudart.so.12`, `libcusparse.so.12`, `libfoo.so.1`, `libodd.so.5`,"
        " `libver.so.2`, which no layer offers and Linux in general lacks\n"
        f"`libarm.so` is needed by `{SITE}/_e.cpython-312-x86_64-linux-gnu.so`\n"
        f"`framework-low@2` has it as `{SITE}/q/libarm.so`, for another machine type: `ARM`\n"
        f"`libcudart.so.12` is needed by `{SITE}/_e.cpython-312-x86_64-linux-gnu.so`\n"
        "`libcudart.so.12` is in the distribution `nvidia-cuda-runtime-cu12`\n"
        f"`libcusparse.so.12` is needed by `{SITE}/_e.cpython-312-x86_64-linux-gnu.so`\n"
        "`libcusparse.so.12` is in the distribution `nvidia-cusparse-cu12` or `nvidia-cusparse`\n"
        f"`libfoo.so.1` is needed by `{SITE}/_e.cpython-312-x86_64-linux-gnu.so` and 1 more\n"
        f"`framework-low@2` has it as `{SITE}/foo.libs/libfoo.so.1.2`, and leaves it out: `dynlib_exclude` has"
        " `foo.libs/**`\n"
        f"`libodd.so.5` is needed by `{SITE}/_e.cpython-312-x86_64-linux-gnu.so`\n"
        f"`framework-low@2` has `{SITE}/o/libodd.so.5`, but it calls itself `libodd-internal.so`, and the loader goes"
        " by that\n"
        f"`libver.so.2` is needed by `{SITE}/_e.cpython-312-x86_64-linux-gnu.so`\n"
        f"`framework-low@2` has another version of it, `libver.so.1`, as `{SITE}/z/libver.so.1`\n"
        "give `framework-low@2` a build of it for the target platform; require `nvidia-cuda-runtime-cu12`;"
        " require `nvidia-cusparse-cu12` or `nvidia-cusparse`; let `framework-low@2` offer it: take `foo.libs/**` out"
        ' of its `dynlib_exclude`; set `[tool.strata] dynlib = "launcher"`, with which the loader finds it by its file'
        " name; require versions that agree on `libver`; or see to it that the target systems have them"
    )


def test_what_is_needed_elsewhere_too_is_counted() -> None:
    low = layer("low", FOO, exclude=("*",))
    said = advice(layer("app", *(ext(f"_{number}", "libfoo.so.1") for number in range(3)), below=(low,)))
    assert "and 2 more" in said
    said = advice(layer("app", *(ext("_e", *(f"libn{number:02}.so" for number in range(12))),), below=(low,)))
    assert "and 4 more, which no layer offers" in said


def test_offers_change_with_what_is_told_and_with_nothing_else() -> None:
    """An exclusion that excludes nothing, or a rebuilt library, leaves the input of the layers above as it was."""
    offers = encode(layer("np", FOO, BAR).offers)
    assert encode(layer("np", FOO, BAR, exclude=("nothing/**",)).offers) == offers
    assert encode(layer("np", FOO, BAR, exclude=("foo.libs/**",)).offers) != offers


# -- macOS ------------------------------------------------------------------------------------------------------------

ARM = Target(dyld, "ARM64")


def mac(name: str, *files: Library, below: tuple[Linked, ...] = (), **more: Any) -> Linked:
    return link_libraries(
        name,
        files,
        SITE,
        [linked.offers for linked in below],
        ARM,
        excluded=excluder(more.pop("exclude", ())),
        same=lambda first, second: first == second,
        **more,
    )


def dylib(path: str, name: str, *needed: str, rpath: tuple[str, ...] = (), machine: str = "ARM64") -> Library:
    return Library(path=f"{SITE}/{path}", soname=name, needed=needed, rpath=rpath, machine=machine)


def bundle(path: str, *needed: str, rpath: tuple[str, ...] = (), weak: tuple[str, ...] = ()) -> Library:
    path = f"{SITE}/{path}.cpython-312-darwin.so"
    return Library(path=path, needed=needed, rpath=rpath, weak=weak, machine="ARM64")


MAC_FOO = dylib("foo/libfoo.1.dylib", "@rpath/libfoo.1.dylib")


def test_dyld_takes_a_loaded_image_by_its_install_name() -> None:
    mid = dylib("mid/libmid.dylib", "/opt/made/libmid.dylib", "@rpath/libfoo.1.dylib", "/usr/lib/libSystem.B.dylib")
    low = mac("framework-low", MAC_FOO)
    up = mac("framework-up", mid, below=(low,))
    app = mac("app", bundle("pkg/_e", "/opt/made/libmid.dylib", "@rpath/libfoo.1.dylib"), below=(up, low))
    assert app.needs == {
        "pkg._e": (f"framework-low/{SITE}/foo/libfoo.1.dylib", f"framework-up/{SITE}/mid/libmid.dylib")
    }
    assert low.links == {"libfoo.1.dylib": f"{SITE}/foo/libfoo.1.dylib"}
    assert not app.warnings


def test_what_dyld_finds_is_left_to_it() -> None:
    low = mac("low", MAC_FOO)
    own = dylib("pkg/.dylibs/libfoo.1.dylib", "/DLC/pkg/.dylibs/libfoo.1.dylib", "@loader_path/libbar.dylib")
    beside = dylib("pkg/.dylibs/libbar.dylib", "/DLC/pkg/.dylibs/libbar.dylib")
    for module in (
        bundle("pkg/_e", "@loader_path/.dylibs/libfoo.1.dylib"),
        bundle("pkg/deep/_e", "@loader_path/../.dylibs/libfoo.1.dylib"),
        bundle("pkg/_e", "@rpath/libfoo.1.dylib", rpath=("/nowhere", "@loader_path/.dylibs")),
        bundle("pkg/_e", "@rpath/.dylibs/libfoo.1.dylib", rpath=("@loader_path/",)),
    ):
        app = mac("app", own, beside, module, below=(low,))
        assert app.needs == {}
        assert not app.warnings


def test_search_paths_of_who_loads_hold_for_what_is_loaded() -> None:
    inner = dylib("pkg/lib/libinner.dylib", "@rpath/libinner.dylib", "@rpath/libfoo.1.dylib")
    own = dylib("pkg/other/libfoo.1.dylib", "@rpath/libfoo.1.dylib")
    module = bundle("pkg/_e", "@rpath/libinner.dylib", rpath=("@loader_path/lib", "@loader_path/other"))
    assert mac("app", inner, own, module, below=(mac("low", MAC_FOO),)).needs == {}


def test_needs_relative_to_two_files_are_two_needs() -> None:
    found = [dylib(f"{name}/libx.dylib", f"/DLC/{name}/libx.dylib") for name in ("a", "b")]
    low = mac("low", MAC_FOO)
    wrap = [
        dylib("a/libwrap.dylib", "/DLC/a/libwrap.dylib", "@loader_path/libx.dylib"),
        dylib("b/libwrap.dylib", "/DLC/b/libwrap.dylib", "@loader_path/libx.dylib", "@loader_path/libgone.dylib"),
    ]
    module = bundle("_e", "@loader_path/a/libwrap.dylib", "@loader_path/b/libwrap.dylib")
    said = advice(mac("app", *found[:1], *wrap, module, below=(low,), exclude=("*",)))
    assert f"`@loader_path/libx.dylib` is needed by `{SITE}/b/libwrap.dylib`" in said
    assert "which no layer offers and macOS lacks" in said


def test_weak_needs_are_met_and_not_missed() -> None:
    low = mac("low", MAC_FOO)
    module = bundle("_e", weak=("@rpath/libfoo.1.dylib", "@rpath/libgone.dylib"))
    app = mac("app", module, below=(low,))
    assert app.needs == {"_e": (f"low/{SITE}/foo/libfoo.1.dylib",)}
    assert not app.warnings


def test_a_library_under_another_install_name_is_named_and_found_by_a_launcher() -> None:
    low = mac("low", dylib("foo/libfoo.1.dylib", "/DLC/foo/libfoo.1.dylib"), exclude=())
    module = bundle("_e", "@rpath/libfoo.1.dylib")
    said = advice(mac("app", module, below=(low,)))
    assert f"`low` has `{SITE}/foo/libfoo.1.dylib`, but it calls itself `/DLC/foo/libfoo.1.dylib`" in said
    assert 'dynlib = "launcher"' in said
    assert not mac("app", module, below=(low,), launcher=True).warnings
    other = mac("low", dylib("foo/libfoo.2.dylib", "@rpath/libfoo.2.dylib"))
    assert "another version of it, `@rpath/libfoo.2.dylib`" in advice(mac("app", module, below=(other,)))


def test_the_other_architecture_of_a_universal_file_is_not_missed() -> None:
    both = [msgspec.structs.replace(MAC_FOO, machine=machine) for machine in ("ARM64", "X86")]
    low = mac("low", *both, dylib("x/libintel.dylib", "@rpath/libintel.dylib", machine="X86"))
    assert list(low.offers.libraries) == ["@rpath/libfoo.1.dylib"]
    assert list(low.offers.withheld) == ["@rpath/libintel.dylib"]
    assert low.links == {"libfoo.1.dylib": f"{SITE}/foo/libfoo.1.dylib"}


def test_macos_own_libraries() -> None:
    system = (
        "/usr/lib/libc++.1.dylib",
        "/System/Library/Frameworks/Security.framework/Versions/A/Security",
        "@rpath/libswiftCore.dylib",
        "@executable_path/../lib/libpython3.12.dylib",
        "/Library/Frameworks/Python.framework/Versions/3.12/Python",
    )
    assert all(map(dyld.is_system, system))
    assert not any(map(dyld.is_system, ("/usr/local/lib/libomp.dylib", "@rpath/libomp.dylib", "libc++.1.dylib")))


# -- dynlib_exclude ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(glob, "translate"), reason="glob.translate is new in 3.13")
def test_exclusions_are_globs() -> None:
    for pattern in PATTERNS:
        theirs = re.compile(glob.translate("/" + pattern, recursive=True, include_hidden=True, seps="/"))
        ours = excluder([pattern])
        for path in PATHS:
            assert (ours(path) is not None) == (theirs.search("/" + path) is not None), (pattern, path)


def test_the_first_pattern_that_matches_is_named() -> None:
    assert excluder(["b", "a/**", "*"])("x/a/c") == "a/**"
    assert excluder([])("a") is None
