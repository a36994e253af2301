import tomllib

import pytest
import tomlkit
from hypothesis import assume, given
from hypothesis import strategies as st

from strata_engine.errors import SpecError, render
from strata_rules.spec.near import did_you_mean, near
from strata_rules.spec.source import decode_toml, parse_toml

HARD = '''\
# a comment with [brackets] and "quotes
title = 'x' # after
"quoted key" = """
[not.a.header]
key = "no" \\""" still
"""
raw = \'\'\'C:\\\'\'\'
dotted . path."with dot.s" = 3
array = [ # comment ]
  "a]", [1, 2], # ,
  { x = "}", "y.z" = [ true ] },
  1979-05-27 07:32:00,
]
\t[table . inner]
a = 1
[[list]]
name = "one"
[list.sub]
deep = 1
[[list]]
name = "two"\t
[[list.more]]
v = [
]
[[list.more]]
v = 'ü' # ü
'''


@pytest.mark.parametrize(
    ("path", "of", "line", "column", "underlined"),
    [
        (("title",), "value", 2, 9, "'x'"),
        (("quoted key",), "key", 3, 1, '"quoted key"'),
        (("quoted key",), "value", 3, 16, '"""'),
        (("raw",), "value", 7, 7, "'''C:\\'''"),
        (("dotted",), "key", 8, 1, "dotted"),
        (("dotted", "path"), "value", 8, 10, "path"),
        (("dotted", "path", "with dot.s"), "key", 8, 15, '"with dot.s"'),
        (("dotted", "path", "with dot.s"), "value", 8, 30, "3"),
        (("array",), "value", 9, 9, "[ # comment ]"),
        (("array", 0), "value", 10, 3, '"a]"'),
        (("array", 1, 1), "value", 10, 13, "2"),
        (("array", 2, "x"), "value", 11, 9, '"}"'),
        (("array", 2, "y.z", 0), "value", 11, 24, "true"),
        (("array", 3), "value", 12, 3, "1979-05-27 07:32:00"),
        (("table",), "key", 14, 3, "table"),
        (("table", "inner"), "key", 14, 2, "[table . inner]"),
        (("table", "inner", "a"), "value", 15, 5, "1"),
        (("list",), "key", 16, 1, "[[list]]"),
        (("list", 0), "value", 16, 1, "[[list]]"),
        (("list", 0, "sub", "deep"), "value", 19, 8, "1"),
        (("list", 1, "name"), "value", 21, 8, '"two"'),
        (("list", 1, "more", 1, "v"), "value", 26, 5, "'ü'"),
        (("list", 1, "absent"), "value", 20, 1, "[[list]]"),
        (("list", 0, "name", "deeper"), "value", 17, 8, '"one"'),
    ],
)
def test_everything_is_located(path, of, line, column, underlined):
    place = parse_toml(HARD, "f.toml").place(path, of=of)
    assert (place.line, place.column) == (line, column)
    assert place.text[place.column - 1 : place.column - 1 + place.length] == underlined


def test_line_ends_of_windows_are_no_part_of_a_line():
    document = parse_toml("a = [\r\n  1,\r\n  2\r\n]\r\n[t]\r\nk = 'v'\r\n", "f.toml")
    assert document.place(("a", 1))[1:] == (3, 3, 1, "  2")
    assert document.place(("t", "k"))[1:] == (6, 5, 3, "k = 'v'")


def test_what_is_nowhere_is_in_the_file():
    assert parse_toml("a = 1", "f.toml").place(("b",)) == ("f.toml", 0, 1, 1, None)


KEYS = st.text(min_size=1, max_size=5) | st.sampled_from(["a", "b-c", "a.b", '"', "'", "#", "[x]", " ", "ü"])
SCALARS = (
    st.text(max_size=20)
    | st.sampled_from(['"""', "'''", "]", "}", "# no", "a\nb", "x\\", '\\\\"', "\r\n"])
    | st.integers(-(10**6), 10**6)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes()
    | st.dates()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


def _paths(value, path=()):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield from _paths(each, (*path, name))


def _written(value):
    """Write a value where it stands; arrays over several lines, with comments."""
    if isinstance(value, list):
        return "[ # ]\n" + "".join(f"\t{_written(each)} , # ',\n" for each in value) + "]"
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{tomlkit.key(name).as_string()} = {_written(each)}" for name, each in value.items())
            + " }"
        )
    return tomlkit.item(value).as_string()


def _parses(text):
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None  # tomlkit writes some text that tomllib does not take


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_the_text_at_a_place_is_the_key_and_the_value(values):
    text = "".join(f" {tomlkit.key(name).as_string()}= {_written(each)} # =\n" for name, each in values.items())
    parsed = _parses(text)
    assume(parsed is not None)
    document = parse_toml(text, "f.toml")
    for path, value in _paths(parsed):
        if path:
            spans = document.spans[path]
            assert tomllib.loads(f"k = {text[spans.value.start : spans.value.end]}") == {"k": value}
            if isinstance(path[-1], str):
                assert list(tomllib.loads(f"{text[spans.key.start : spans.key.end]} = 1")) == [path[-1]]


MIXED = st.lists(st.tuples(st.sampled_from(["inline", "header", "array", "dotted"]), VALUES), max_size=5)


@given(MIXED)
def test_headers_and_dotted_keys_lead_to_their_values(parts):
    lines, expected = [], {}
    for number, (form, value) in enumerate(parts):
        name = f"k{number}"
        written = _written(value)
        match form:
            case "inline":
                lines.append((0, f"{name} = {{ x = 1, y = {{ z = [ {written} ] }} }} # c"))
                expected[name, "y", "z", 0] = written
            case "dotted":
                lines.append((0, f"{name} .'a b'. c={written}"))
                expected[name, "a b", "c"] = written
            case "header":
                lines.append((1, f"[ {name} . inner ]# [c]\nv = {written}"))
                expected[name, "inner", "v"] = written
            case "array":
                lines.append((1, f"[[{name}]]\n[[{name}]]\nv = {written}\n[{name}.sub]\nw = {written}"))
                expected[name, 1, "v"] = written
                expected[name, 1, "sub", "w"] = written
    text = "\n".join(line for _, line in sorted(lines, key=lambda each: each[0]))
    assume(_parses(text) is not None)
    document = parse_toml(text, "f.toml")
    for path, written in expected.items():
        span = document.spans[path].value
        assert text[span.start : span.end] == written


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        (
            "a = 1\nb = two\n",
            "error[toml-syntax]: this is not TOML: invalid value\n"
            "  --> f.toml:2:5\n   |\n 2 | b = two\n   |     ^\nhint: strings are in quotes",
        ),
        (
            "a = [1,\n",
            "error[toml-syntax]: this is not TOML: it ends in the middle of a value\n"
            "  --> f.toml:1:7\n   |\n 1 | a = [1,\n   |       ^\n"
            "hint: write the rest of it, or close its bracket or quote",
        ),
        (
            "[a]\nx = 1\n[a]\n",
            "error[toml-syntax]: this is not TOML: this name is defined twice\n"
            "  --> f.toml:3:1\n   |\n 3 | [a]\n   | ^^^\n"
            "hint: remove one of the two, or write `[[…]]` for one more table of an array",
        ),
    ],
)
def test_a_syntax_error_has_its_place(text, rendered):
    with pytest.raises(SpecError) as caught:
        parse_toml(text, "f.toml")
    assert render(caught.value.diagnostics[0]) == rendered


def test_bytes_that_are_no_text_have_their_place():
    with pytest.raises(SpecError) as caught:
        decode_toml(b"a = 1\nb = '\xc3\xbc\xff'\n", "f.toml")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "toml-syntax"
    assert (diagnostic.place.line, diagnostic.place.column) == (2, 7)


def test_a_document_that_is_nested_too_deeply_is_refused():
    with pytest.raises(SpecError):
        parse_toml("a = " + "[" * 100_000, "f.toml")


def test_credentials_are_masked_in_the_line_that_is_shown():
    document = parse_toml('url = "https://user:p@ss@host/simple" # https://x@y', "f.toml")
    place = document.place(("url",))
    assert place.text == 'url = "https://*********@host/simple" # https://*@y'
    assert place.length == len('"https://user:p@ss@host/simple"')


def test_near_words_are_suggested():
    assert near("requirments", ["requirements", "runtime"]) == "requirements"
    assert near("Launch-Module", ["launch_module"]) == "launch_module"
    assert did_you_mean("zzz", ["requirements"]) is None
