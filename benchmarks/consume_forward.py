"""From Kafka into a stand-in for Learning Observer: the rate, of what a bare websockets client feeds it."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import orjson
from websockets.asyncio.client import connect

from exec_events_consumers.cli.forward import BATCH_RECORDS
from exec_events_consumers.decode import Decoded, decode
from exec_events_consumers.feed import Fetched
from exec_events_consumers.kafka_feed import KafkaFeed
from exec_events_consumers.learning_observer.authentication import open_authentication
from exec_events_consumers.learning_observer.forward import Forward, open_store
from exec_events_consumers.learning_observer.frames import SOURCE, frame_of, text_of
from exec_events_consumers.learning_observer.identities import PeopleFile
from exec_events_consumers.learning_observer.sending import Sender
from exec_events_consumers.loop import run
from tests.pipeline.learning_observer_stand_in import StandInProcess
from tools.kafka_broker import Broker

from .consume_log import SUBJECTS, ClassLog, filled_topic, subject_of
from .consume_rate import Clock
from .figures import Figure
from .fleet import median_ratio, progress

RATE = 3000.0


async def measure(quick: bool) -> list[Figure]:
    """Rounds of both, interleaved, each into a server of its own."""
    return await asyncio.to_thread(_measure, *((10_000, 2) if quick else (40_000, 5)))


def _measure(count: int, rounds: int) -> list[Figure]:
    rates: dict[str, list[float]] = {"bare": [], "forward": []}
    with Broker() as broker, tempfile.TemporaryDirectory(prefix="exec-events-bench-") as name:
        folder = Path(name)
        people = folder / "people.csv"
        lines = [f"{subject_of(number)},{_student(subject_of(number))}\n" for number in range(SUBJECTS)]
        people.write_text("subject,learning_observer_id\n" + "".join(lines))
        source = f"kafka://{broker.servers}/{filled_topic(broker, count)}"
        frames = _frames(count)
        for turn in range(rounds):
            for which in ("bare", "forward") if turn % 2 else ("forward", "bare"):
                gc.collect()
                with StandInProcess("benchmarks.forward_reducers:REDUCERS", kvs="memory") as server:
                    if which == "bare":
                        rate = asyncio.run(_bare(server.url, frames, count))
                    else:
                        rate = _forward(source, server.url, people, folder / f"{uuid.uuid4().hex}.db", count)
                    counted = sum(state["executions"] for state in server.states("count").values())
                if counted != count:
                    raise RuntimeError(f"{which}: the server counted {counted:,} of {count:,}")
                rates[which].append(rate)
            progress(
                f"consume-forward {turn + 1}/{rounds}: " + ", ".join(f"{k} {v[-1]:,.0f}/s" for k, v in rates.items())
            )
    middle, ratios = median_ratio(rates["forward"], rates["bare"])
    note = f"{SUBJECTS} people, a stand-in; bare websockets {median(rates['bare']):,.0f}/s"
    absolute = median(rates["forward"])
    return [
        Figure("forward to Learning Observer", absolute, "/s", RATE, note=note, rounds=tuple(rates["forward"])),
        Figure("forward, of bare websockets", middle, "x", note="the same frames, made before", rounds=ratios),
    ]


def _student(subject: str) -> str:
    return f"s{subject.rpartition(':')[2].lstrip('0') or '0'}"


def _frames(count: int) -> dict[str, list[str]]:
    """What the forwarder makes of the topic, by student."""
    frames: dict[str, list[str]] = {}
    for number, (record, raw) in enumerate(ClassLog().records(count)):
        event = decode(Fetched("bench", number, record, raw))
        assert isinstance(event, Decoded)
        frames.setdefault(_student(event.event["subject"]), []).append(text_of(frame_of(event)))
    return frames


async def _bare(url: str, frames: Mapping[str, Sequence[str]], count: int) -> float:
    """Frames per second that a client can bring, a connection for each student, and one barrier at each one's end."""

    async def feed(student: str, texts: Sequence[str]) -> None:
        async with connect(url, compression=None, ping_timeout=None) as connection:
            await connection.send(_text({"event": "lock_fields", "fields": {"source": SOURCE}}))
            await connection.send(_text({"event": "test_framework_fake_identity", "user_id": student}))
            await connection.recv()
            for text in texts:
                await connection.send(text)
            await connection.send(_text({"event": "fetch_blob", "activity": "bench"}))
            await connection.recv()

    began = time.perf_counter()
    await asyncio.gather(*[feed(student, texts) for student, texts in frames.items()])
    return count / (time.perf_counter() - began)


def _text(frame: dict[str, object]) -> str:
    return orjson.dumps(frame).decode()


def _forward(source: str, url: str, people: Path, database: Path, count: int) -> float:
    """Events per second, from the end of the first batch to that of the last."""
    clock, stop = Clock(), threading.Event()
    with (
        closing(open_store(f"sqlite:///{database}")) as store,
        closing(KafkaFeed(source, uuid.uuid4().hex, batch_records=BATCH_RECORDS)) as feed,
        closing(Sender(url, open_authentication("testcase_auth", None, insecure=True), store.owner)) as sender,
    ):
        step = Forward(store, sender, PeopleFile(people), stop, mine=feed.mine)
        return clock.rate(run(feed, store, step, once=True, stop=stop, on_progress=clock), count)
