"""`strata cache`: what the shared store holds, whether it is whole, making it smaller; keys to sign with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from strata_engine import collect, known
from strata_engine.errors import Diagnostic, HostError, SpecError, host_error
from strata_engine.store import LocalStore, open_store, store_folder
from strata_engine.words import size
from strata_rules.cli.doctor import doctor
from strata_rules.cli.help import EPILOG, HelpContext
from strata_rules.cli.options import AGES, SIZES, Settings, StrataCommand, json_option, quantity_callback
from strata_rules.cli.output import emit, emit_document, say, say_diagnostic

MOST_SAID = 10
"""Damaged blobs that are told of one by one."""


class _InOrder(click.Group):
    """Lists its commands in the order in which they are declared."""

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        del ctx
        return list(self.commands)


@click.group("cache", cls=_InOrder, epilog=EPILOG)
def command() -> None:
    """Look at the store that all stacks of this user share, or make it smaller; try out remote caches.

    Nothing in a store is needed: what is missing is fetched or made again. STRATA_CACHE_DIR says where the store is.
    """


@command.command("stats", cls=StrataCommand, short_help="Say what the store holds.")
@json_option
@click.pass_obj
def stats(settings: Settings, *, as_json: bool) -> None:
    """Say where the store is and how much it holds."""
    with _store(settings) as store:
        found = collect.stats(store)
        workspaces = sum(1 for _ in known.workspaces(store.folder))
    if as_json:
        fields = {"folder": str(store.folder), **msgspec.to_builtins(found), "workspaces": workspaces}
        emit_document("strata.cache-stats", 1, fields)
        return
    emit(f"store            {store.folder}")
    emit(f"results          {found.results}")
    emit(f"blobs            {found.blobs} ({size(found.bytes)})")
    emit(f"  small, as rows {found.small_blobs} ({size(found.small_bytes)})")
    emit(f"  files          {found.large_blobs} ({size(found.large_bytes)})")
    emit(f"temporary        {found.temporary}")
    emit(f"quarantined      {found.quarantined}")
    emit(f"known workspaces {workspaces}")


@command.command("verify", cls=StrataCommand, short_help="Read all of the store and set aside what is damaged.")
@json_option
@click.pass_obj
def verify(settings: Settings, *, as_json: bool) -> int:
    """Read all of the store. What is damaged is put into its `quarantine` folder.

    The next build that needs it fetches it or makes it again. Exits with 3 where something was damaged.
    """
    from strata_engine.verify import verify as read_all  # noqa: PLC0415 - the other commands do without

    said = 0

    def tell(diagnostic: Diagnostic) -> None:
        nonlocal said
        said += 1
        if said <= MOST_SAID:
            say_diagnostic(diagnostic, settings)

    with _store(settings, tell) as store:
        found = read_all(store)
    if said > MOST_SAID:
        say(f"and {said - MOST_SAID} more", quiet=settings.quiet)
    if as_json:
        emit_document("strata.cache-verify", 1, {"clean": found.clean, **msgspec.to_builtins(found)})
    else:
        counts = ((found.results, "result"), (found.blobs, "blob"))
        emit(f"read             {_counted(*counts)}, {size(found.bytes)}")
        counts = ((found.damaged_results, "result"), (found.damaged_blobs, "blob"))
        emit(f"damaged          {'nothing' if found.clean else f'{_counted(*counts)}, {size(found.damaged_bytes)}'}")
        if found.incomplete_results:
            emit(f"lacks blobs      {_counted((found.incomplete_results, 'result'))}; they are fetched or made again")
    return 0 if found.clean else HostError.exit_code


@command.command("gc", cls=StrataCommand, short_help="Remove what was not used for long, or is too much.")
@click.option(
    "--max-size",
    metavar="SIZE",
    callback=quantity_callback("size", SIZES, "10GB"),
    help="Remove what was used least recently until the store is no larger, as in 10GB.",
)
@click.option(
    "--max-age",
    metavar="AGE",
    callback=quantity_callback("age", AGES, "30d"),
    help="Remove what was not used for so long, as in 30d.",
)
@click.option("--dry-run/--no-dry-run", default=False, help="Say what would be removed, and remove nothing.")
@json_option
@click.pass_obj
def gc(settings: Settings, max_size: int | None, max_age: int | None, *, dry_run: bool, as_json: bool) -> None:
    """Make the store smaller. What the last good builds of known workspaces need is kept."""
    if max_size is None and max_age is None:
        raise SpecError.of(
            "nothing-to-collect",
            "`strata cache gc` needs `--max-size` or `--max-age`",
            hint="as in `strata cache gc --max-size 10GB --max-age 30d`; `strata cache clear` removes all",
        )
    with _store(settings) as store:
        found = collect.collect(
            store,
            max_bytes=max_size,
            max_age=max_age,
            pins=known.needs(store.folder),
            dry_run=dry_run,
        )
    _tell(settings, found, as_json=as_json, dry_run=dry_run)


@command.command("clear", cls=StrataCommand, short_help="Empty the store.")
@json_option
@click.pass_obj
def clear(settings: Settings, *, as_json: bool) -> None:
    """Remove everything from the store. Layers that are built stay as they are."""
    with _store(settings) as store:
        found = collect.clear(store)
    _tell(settings, found, as_json=as_json, dry_run=False)


@command.command("keygen", cls=StrataCommand, short_help="Make a key to sign results with.")
@click.argument("file", metavar="FILE")
@click.pass_obj
def keygen(settings: Settings, file: str) -> None:
    """Make a key to sign results with, and print its public part.

    FILE gets the private key, which only you can read; a file that is there is never replaced. The line that is printed
    belongs into `public_keys` of `[tool.strata.remote]`, the private key into STRATA_SIGNING_KEY of whoever may sign.
    """
    from strata_engine.files import write_new  # noqa: PLC0415 - the other commands do without
    from strata_engine.remote.signing import new_key  # noqa: PLC0415 - the other commands do without

    key = new_key()
    try:
        write_new(Path(file), key.private_pem(), 0o600)
    except FileExistsError:
        hint = "name another file: who has the public key would no longer know your results"
        raise SpecError.of("key-exists", f"`{file}` is there already", hint=hint) from None
    except OSError as error:
        raise host_error(error, file) from error
    emit(key.public.text)
    say(f"the private key is in {file}: nobody else may read it", quiet=settings.quiet)


command.add_command(doctor)


@contextlib.contextmanager
def _store(settings: Settings, tell: Callable[[Diagnostic], None] | None = None) -> Iterator[LocalStore]:
    store = open_store(store_folder(), tell or (lambda diagnostic: say_diagnostic(diagnostic, settings)))
    try:
        yield store
    finally:
        store.close()


def _tell(settings: Settings, found: collect.Collected, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        emit_document("strata.cache-gc", 1, {"dry_run": dry_run, **msgspec.to_builtins(found)})
        return
    removed = f"{_counted((found.results, 'result'), (found.blobs, 'blob'))}, {size(found.freed_bytes)}"
    would = "would remove" if dry_run else "removed"
    say(f"{would} {removed}; {size(found.kept_bytes)} stay", quiet=settings.quiet)


def _counted(*counts: tuple[int, str]) -> str:
    return " and ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
