"""A language for sets of actions: `rdeps(//..., changed(main)) & kind(Archive)`.

It parses a text into a value and evaluates that over a `World`, which says what there is; it reads no file, runs
nothing and knows neither layers nor git. What a person writes wrong is told with its place in the text.

    EXPR  ::=  EXPR `|` EXPR  |  EXPR `-` EXPR  |  EXPR `&` EXPR  |  `(` EXPR `)`  |  NAME `(` EXPR `,` … `)`  |  WORD

`&` binds more tightly than `|` and `-`, which go from left to right. `-` stands between blanks, for labels have dashes.
A WORD is a label or a shell pattern of labels; one with blanks, commas or brackets of its own stands in quotes, except
that a platform's brackets, as in `app/archive[win_amd64,zip]`, need none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol, TypeAlias

from strata_engine.errors import Diagnostic, Place, SpecError
from strata_engine.graph import Relations

Labels: TypeAlias = frozenset[str]


class World(Protocol):
    """What can be asked about."""

    def labels(self) -> Labels:
        """List all actions."""
        ...

    def relations(self) -> Relations:
        """Give what needs what."""
        ...

    def match(self, pattern: str) -> Labels:
        """List the actions that a word means. Raises SpecError where it means none."""
        ...

    def attributes(self, label: str) -> Mapping[str, Sequence[str]]:
        """Give what `attr`, `kind`, `input` and `output` look at, by name."""
        ...

    def state(self, name: str, argument: str | None) -> Labels:
        """Answer a function about builds (`stale`, `ran`, …). Raises SpecError."""
        ...


class Word(NamedTuple):
    """A label or a pattern."""

    text: str
    at: int


class Call(NamedTuple):
    """A function and its arguments."""

    name: str
    arguments: tuple[Expression, ...]
    at: int


class Operation(NamedTuple):
    """Two sets made one, by `|`, `-` or `&`."""

    operator: str
    left: Expression
    right: Expression


Expression: TypeAlias = Word | Call | Operation


class Function(NamedTuple):
    """What a function is called with, for people; optional arguments stand in square brackets."""

    usage: str
    means: str
    least: int
    most: int


FUNCTIONS: Mapping[str, Function] = {
    "deps": Function("deps(X[, DEPTH])", "X and what it needs, DEPTH steps far", 1, 2),
    "rdeps": Function("rdeps(U, X[, DEPTH])", "X and what of U needs it, DEPTH steps far", 2, 3),
    "allpaths": Function("allpaths(X, Y)", "what lies on any way from X to what it needs of Y", 2, 2),
    "somepath": Function("somepath(X, Y)", "one shortest way from X to what it needs of Y", 2, 2),
    "kind": Function("kind(MNEMONIC[, X])", "the actions of a mnemonic", 1, 2),
    "attr": Function("attr(NAME, PATTERN[, X])", "the actions with an attribute that matches", 2, 3),
    "input": Function("input(PATTERN[, X])", "the actions that read a matching file of the workspace", 1, 2),
    "output": Function("output(PATTERN[, X])", "the actions whose output is put at a matching place", 1, 2),
    "stale": Function("stale()", "what is not up to date of what a build is for, or was built before", 0, 0),
    "ran": Function("ran([RUN])", "what was executed in a build, the last one without RUN", 0, 1),
    "hit": Function("hit([RUN])", "what came from a cache in a build", 0, 1),
    "failed": Function("failed([RUN])", "what failed in a build", 0, 1),
    "critical": Function("critical([RUN])", "what the end of a build waited for", 0, 1),
    "slow": Function("slow(TIME)", "what took at least TIME when it was last executed, as in `5s`", 1, 1),
    "changed": Function("changed(COMMIT)", "what reads a file that is not as it was in a commit", 1, 1),
}
"""All functions of the language."""

_SETS = frozenset(("deps", "rdeps", "allpaths", "somepath"))
_STATE = frozenset(("stale", "ran", "hit", "failed", "critical", "slow", "changed"))

MOST_NESTED = 50
"""Levels of parentheses and calls, at most."""

MOST_TOKENS = 1000
"""Words and marks, at most: who has more to say has a program to say it."""

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<quoted>"[^"]*"|'[^']*')
    | (?P<mark>[()|&,])
    | (?P<minus>-(?=\s))
    | (?P<word>(?:\[[^\]\s]*\]|[^\s()|&,"'])+)
    )""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> Expression:
    """Read an expression. Raises SpecError, with the place in the text."""
    return _Parser(text).whole()


def words(expression: Expression) -> Iterator[str]:
    """List the words of an expression, arguments of functions among them."""
    match expression:
        case Word(text=text):
            yield text
        case Operation(left=left, right=right):
            yield from words(left)
            yield from words(right)
        case Call(arguments=arguments):
            for argument in arguments:
                yield from words(argument)


def evaluate(expression: Expression, world: World, text: str = "") -> Labels:
    """Give the actions that an expression means. Raises SpecError, placed in `text`."""
    return _Evaluation(world, text).of(expression)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._next = 0
        self._depth = 0

    def _split(self, text: str) -> list[_Token]:
        tokens = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                here = len(text) - len(text[at:].lstrip())
                raise wrong(text, here, f"`{text[here]}` has no end" if text[here] in "\"'" else "this means nothing")
            kind = str(match.lastgroup)
            found = match[kind]
            start = match.start(kind)
            tokens.append(_Token(kind, found[1:-1] if kind == "quoted" else found, start))
            at = match.end()
        return tokens

    def whole(self) -> Expression:
        """Read all of it."""
        if len(self._tokens) > MOST_TOKENS:
            raise wrong(self._text, 0, f"it has more than {MOST_TOKENS} words and marks")
        if not self._tokens:
            raise wrong(self._text, 0, "an empty query asks for nothing")
        found = self._sum()
        if (extra := self._peek()) is not None:
            raise wrong(self._text, extra.at, f"`{extra.text}` is not expected here")
        return found

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, *texts: str) -> _Token | None:
        token = self._peek()
        if token is None or token.kind not in ("mark", "minus") or token.text not in texts:
            return None
        self._next += 1
        return token

    def _sum(self) -> Expression:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise wrong(self._text, 0, f"it is nested more than {MOST_NESTED} deep")
        found = self._product()
        while (operator := self._take("|", "-")) is not None:
            found = Operation(operator.text, found, self._product())
        self._depth -= 1
        return found

    def _product(self) -> Expression:
        found = self._one()
        while self._take("&") is not None:
            found = Operation("&", found, self._one())
        return found

    def _one(self) -> Expression:
        token = self._peek()
        if token is None:
            raise wrong(self._text, len(self._text.rstrip()), "something is missing here")
        if self._take("(") is not None:
            found = self._sum()
            self._close(token)
            return found
        if token.kind not in ("word", "quoted"):
            raise wrong(self._text, token.at, f"`{token.text}` is not expected here")
        self._next += 1
        after = self._peek()
        called = after is not None and after.text == "(" and after.kind == "mark" and token.kind == "word"
        return self._call(token) if called else Word(token.text, token.at)

    def _call(self, name: _Token) -> Call:
        opened = self._take("(")
        assert opened is not None
        function = FUNCTIONS.get(name.text)
        if function is None:
            near = get_close_matches(name.text, FUNCTIONS, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"functions are {', '.join(f'`{n}`' for n in FUNCTIONS)}"
            raise wrong(self._text, name.at, f"there is no function `{name.text}`", hint, len(name.text))
        arguments: list[Expression] = []
        if self._take(")") is None:
            arguments.append(self._sum())
            while self._take(",") is not None:
                arguments.append(self._sum())
            self._close(opened)
        if not function.least <= len(arguments) <= function.most:
            raise wrong(self._text, name.at, f"it is `{function.usage}`", None, len(name.text))
        return Call(name.text, tuple(arguments), name.at)

    def _close(self, opened: _Token) -> None:
        if self._take(")") is None:
            there = self._peek()
            if there is not None:
                raise wrong(self._text, there.at, f"`{there.text}` is not expected here", "`)` or an operator is")
            raise wrong(self._text, opened.at, "this `(` is not closed")


class _Evaluation:
    def __init__(self, world: World, text: str) -> None:
        self._world = world
        self._text = text

    def of(self, expression: Expression) -> Labels:
        """Give what an expression means."""
        match expression:
            case Word(text=text, at=at):
                return self._placed(at, len(text), lambda: self._world.match(text))
            case Operation(operator=operator, left=left, right=right):
                first, second = self.of(left), self.of(right)
                return first | second if operator == "|" else first & second if operator == "&" else first - second
            case Call(name=name, arguments=arguments, at=at):
                if name in _SETS:
                    return self._relation(name, arguments)
                if name in _STATE:
                    argument = self._text_of(arguments[0]) if arguments else None
                    return self._placed(at, len(name), lambda: self._world.state(name, argument))
                return self._filter(name, arguments)

    def _relation(self, name: str, arguments: Sequence[Expression]) -> Labels:
        relations = self._world.relations()
        sets = [self.of(each) for each in arguments[: 1 if name == "deps" else 2]]
        depth = self._depth(arguments[len(sets)]) if len(arguments) > len(sets) else None
        match name:
            case "deps":
                return frozenset(relations.below(sets[0], depth))
            case "rdeps":
                return frozenset(relations.above(sets[1], depth, within=sets[0] | sets[1]))
            case "allpaths":
                return frozenset(relations.between(*sets))
            case _:
                return frozenset(relations.shortest(*sets))

    def _filter(self, name: str, arguments: Sequence[Expression]) -> Labels:
        attribute = self._text_of(arguments[0]) if name == "attr" else name
        rest = arguments[1:] if name == "attr" else arguments
        pattern = self._text_of(rest[0])
        among = self.of(rest[1]) if len(rest) > 1 else self._world.labels()
        self._check_attribute(attribute, among, arguments[0])
        return frozenset(
            label
            for label in among
            if any(fnmatchcase(value, pattern) for value in self._world.attributes(label).get(attribute, ()))
        )

    def _check_attribute(self, name: str, among: Labels, at: Expression) -> None:
        """Refuse an attribute that no action can have."""
        known = self._world.attributes(next(iter(among))) if among else {name: ()}
        if name not in known and isinstance(at, Word):
            near = get_close_matches(name, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"attributes are {', '.join(f'`{n}`' for n in known)}"
            raise wrong(self._text, at.at, f"actions have no attribute `{name}`", hint, len(name))

    def _text_of(self, argument: Expression) -> str:
        if isinstance(argument, Word):
            return argument.text
        at = argument.at if isinstance(argument, Call) else 0
        raise wrong(self._text, at, "a plain word is expected here, not a set")

    def _depth(self, argument: Expression) -> int:
        text = self._text_of(argument)
        if not (text.isascii() and text.isdigit() and len(text) < 7):
            at = argument.at if isinstance(argument, Word) else 0
            raise wrong(self._text, at, f"`{text}` is no number of steps", None, len(text))
        return int(text)

    def _placed(self, at: int, length: int, answer: Callable[[], Labels]) -> Labels:
        try:
            return answer()
        except SpecError as error:
            raise SpecError(*(self._at(each, at, length) for each in error.diagnostics)) from None

    def _at(self, diagnostic: Diagnostic, at: int, length: int) -> Diagnostic:
        return diagnostic if diagnostic.place is not None else diagnostic._replace(place=_place(self._text, at, length))


def _place(text: str, at: int, length: int = 1) -> Place:
    return Place("query", 1, at + 1, max(1, length), text)


def wrong(text: str, at: int, message: str, hint: str | None = None, length: int = 1) -> SpecError:
    """Make the error of a query that cannot be understood."""
    hint = hint or "`strata graph query --help` shows the language"
    error = SpecError.of("bad-query", message, _place(text, at, length), hint=hint)
    assert isinstance(error, SpecError)
    return error


def functions_text() -> Iterable[tuple[str, str]]:
    """List the functions and what they mean, for help."""
    return [(function.usage, function.means) for function in FUNCTIONS.values()]
