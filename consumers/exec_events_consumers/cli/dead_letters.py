"""``exec-events dead-letters``: what could not be used, listed, shown, and taken once more."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exec_events_schemas.kafka_settings import SETTINGS_FILE
from exec_events_schemas.topics import SCHEME

from .options import Saying, clean_end, source_options, store_option

if TYPE_CHECKING:
    from exec_events_consumers.dead_letters import Kept, Replayed
    from exec_events_consumers.decode import DeadLetter

F = TypeVar("F", bound=Callable[..., Any])

_ROW_BYTES = 16


@click.group(name="dead-letters")
def dead_letters() -> None:
    """
    What a consumer could not decode, validate or chain, with its bytes untouched and the reason.

    A consumer of kafka:// sends it to the topic <prefix>.dead-letters, which --from kafka://… reads; all others
    keep it in the store's table dead_letters, which --store names.

    \b
    exec-events dead-letters list
    exec-events dead-letters list --from kafka://broker:9092
    exec-events dead-letters show 3
    exec-events dead-letters replay
    """


@dead_letters.command(name="list")
@source_options
@store_option
@click.option("--consumer", metavar="NAME", help="Of this consumer only; aggregate is one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_letters(
    source: str | None, store: str | None, kafka_settings: str | None, consumer: str | None, as_json: bool
) -> None:
    """
    List the dead letters: number, place, reason. On a topic, one that was sent twice is listed once.

    \b
    exec-events dead-letters list --json | jq -r .reason | sort | uniq -c
    """
    with clean_end():
        letters = [*_once(_kept(source, store, kafka_settings, consumer))]
        if as_json:
            for kept, times in letters:
                click.echo(json.dumps(_described(kept, times)))
        elif not letters:
            click.echo("There are no dead letters.")
        else:
            _print_table(letters)


@dead_letters.command()
@click.argument("number")
@source_options
@store_option
@click.option("--raw", is_flag=True, help="Write its bytes, and nothing else.")
def show(number: str, source: str | None, store: str | None, kafka_settings: str | None, raw: bool) -> None:
    """
    Show the dead letter NUMBER, as `list` names it: where it was, why it is none, and its bytes.

    \b
    exec-events dead-letters show 3
    exec-events dead-letters show 0:17 --from kafka://broker:9092 --raw > letter
    """
    with clean_end():
        for kept in _kept(source, store, kafka_settings, None):
            if kept.number != number:
                continue
            value = kept.letter.value
            if raw:
                sys.stdout.buffer.write(value or b"")
                return
            for name, what in _described(kept, 1).items():
                if name not in ("times", "bytes"):
                    click.echo(f"{name:>10}  {what}")
            click.echo(f"{'bytes':>10}  {'none' if value is None else f'{len(value):,}'}")
            click.echo("\n" + _readable(value or b""))
            return
    raise click.ClickException(f"there is no dead letter {number}; `exec-events dead-letters list` names them")


@dead_letters.command()
@source_options
@store_option
def replay(source: str | None, store: str | None, kafka_settings: str | None) -> None:
    """
    Take the aggregate's dead letters once more: what can be used now goes to the tables, and is one no more.

    For after an upgrade that knows a newer schema, or a mended fault. With --from kafka://… the topic's are
    brought into the store's table first, each once, and go from there; the topic stays as it is. What is still of
    no use stays in the table. An `aggregate` on the store may go on meanwhile.

    \b
    exec-events dead-letters replay
    exec-events dead-letters replay --from kafka://broker:9092 --store postgresql+psycopg://analyst@db/exec_events
    """
    from exec_events_consumers import aggregate as aggregating
    from exec_events_consumers.dead_letters import collect
    from exec_events_consumers.dead_letters import replay as take_again
    from exec_events_consumers.loop import Progress
    from exec_events_consumers.open_feed import default_store
    from exec_events_consumers.store import Store

    saying = Saying("replay")

    def say(replayed: Replayed) -> None:
        saying(Progress(records=replayed.taken + replayed.known + replayed.left))

    with clean_end(), closing(Store(store or default_store(), aggregating.NAME)) as opened:
        if _is_topic(source):
            came = collect(str(source), opened, _settings(kafka_settings))
            click.echo(f"replay: {came:,} new messages on the topic")
        done = take_again(opened, aggregating.aggregate, aggregating.known_hashes, say)
        click.echo(f"replay: {done.taken:,} taken, {done.known:,} were known already, {done.left:,} still of no use")


def _is_topic(source: str | None) -> bool:
    return source is not None and source.startswith(f"{SCHEME}://")


def _settings(kafka_settings: str | None) -> dict[str, Any]:
    return {SETTINGS_FILE: kafka_settings} if kafka_settings else {}


def _kept(source: str | None, url: str | None, kafka_settings: str | None, consumer: str | None) -> Iterator[Kept]:
    from exec_events_consumers.dead_letters import kept_in_store, kept_of_message
    from exec_events_consumers.open_feed import default_store
    from exec_events_consumers.store import open_engine

    if _is_topic(source):
        from exec_events_consumers.dead_letter_topic import topic_messages

        for message in topic_messages(str(source), _settings(kafka_settings)):
            kept = kept_of_message(message)
            if consumer in (None, kept.consumer):
                yield kept
        return
    engine = open_engine(url or default_store(), read_only=True)
    try:
        yield from kept_in_store(engine, consumer)
    finally:
        engine.dispose()


def _once(letters: Iterator[Kept]) -> Iterator[tuple[Kept, int]]:
    """Each with how often it is there: a consumer that was killed may have sent one again."""
    found: dict[tuple[str, str, int], tuple[Kept, int]] = {}
    for kept in letters:
        key = kept.consumer, kept.letter.partition, kept.letter.position
        first, times = found.get(key, (kept, 0))
        found[key] = first, times + 1
    yield from found.values()


def _described(kept: Kept, times: int) -> dict[str, Any]:
    letter: DeadLetter = kept.letter
    return {
        "number": kept.number,
        "consumer": kept.consumer or "a sink",
        "partition": letter.partition,
        "position": letter.position,
        "found_at": kept.found_at,
        "bytes": None if letter.value is None else len(letter.value),
        "times": times,
        "reason": letter.reason,
    }


def _print_table(letters: list[tuple[Kept, int]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("number", "consumer", "place", "found at", "bytes", "reason"):
        table.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
    for kept, times in letters:
        one = _described(kept, times)
        place = f"{one['partition']}:{one['position']}" + (f" ({times} times)" if times > 1 else "")
        size = "none" if one["bytes"] is None else f"{one['bytes']:,}"
        # As text: what is in a reason comes from outside, and is no markup.
        cells = (one["number"], one["consumer"], place, one["found_at"][:19], size, one["reason"])
        table.add_row(*map(Text, cells))
    Console().print(table)


def _readable(value: bytes) -> str:
    """Bytes as text where they are text that moves no cursor, as lines of hexadecimal numbers where not."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if text and all(letter.isprintable() or letter in "\n\t" for letter in text):
        return text
    lines = []
    for at in range(0, len(value), _ROW_BYTES):
        row = value[at : at + _ROW_BYTES]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<{3 * _ROW_BYTES}} {letters}")
    return "\n".join(lines)
