from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import nbformat
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient

from exec_events.canonical_json import MAX_DEPTH
from exec_events.hashing import Hasher
from exec_events.outputs import Outputs, canonical_outputs
from exec_events.stream_text import StreamText, resolve, settle, utf8_length

HASHER = Hasher()
SPECIAL = st.text(alphabet="ab\n\r\b\t█😀é", max_size=60)


def process_text(index: int, new: str, text: str) -> tuple[str, int]:
    """JupyterLab's Private.processText, line by line, on lists of UTF-16 code units."""
    for character in new:
        if character == "\b":
            if index > 0 and text[index - 1] != "\n":
                text = text[: index - 1] + text[index + 1 :]
                index -= 1
        elif character == "\r":
            while index > 0 and text[index - 1] != "\n":
                index -= 1
        elif character == "\n":
            text += "\n"
            index = len(text)
        else:
            text = text[:index] + character + text[index + 1 :]
            index += 1
    return text, index


def units(text: str) -> str:
    """Text as a string of UTF-16 code units."""
    data = text.encode("utf-16-le", "surrogatepass")
    return "".join(chr(int.from_bytes(data[i : i + 2], "little")) for i in range(0, len(data), 2))


def jupyterlab_text(chunks: list[str]) -> str:
    """What JupyterLab makes of a stream's messages."""
    text, index = "", 0
    for chunk in chunks:
        text, index = process_text(index, units(chunk), text)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    """A stream message."""
    return "stream", {"name": name, "text": text}


def display(text: Any, display_id: str | None = None, mime: str = "text/plain") -> tuple[str, dict[str, Any]]:
    """A display_data message."""
    transient = {} if display_id is None else {"display_id": display_id}
    return "display_data", {"data": {mime: text}, "metadata": {}, "transient": transient}


def result(text: str, display_id: str | None = None) -> tuple[str, dict[str, Any]]:
    """An execute_result message."""
    return "execute_result", {**display(text, display_id)[1], "execution_count": 1}


def update(text: str, display_id: str) -> tuple[str, dict[str, Any]]:
    """An update_display_data message."""
    return "update_display_data", display(text, display_id)[1]


def clear(*, wait: bool) -> tuple[str, dict[str, Any]]:
    """A clear_output message."""
    return "clear_output", {"wait": wait}


ERROR = ("error", {"ename": "ValueError", "evalue": "no", "traceback": ["\x1b[31mValueError\x1b[0m", "no"]})


def built(*messages: tuple[str, dict[str, Any]], **limits: int) -> Outputs:
    """Outputs of these messages."""
    outputs = Outputs(**limits)
    for kind, content in messages:
        outputs.add(kind, content, len(json.dumps(content)))
    return outputs


def texts(outputs: Outputs) -> list[Any]:
    """What each output shows, in short."""
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs.nbformat()]


def cut(text: str, places: list[int]) -> list[str]:
    """The text in pieces."""
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)] or [text]


def saved(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they stand in an .ipynb file, with lines split, parsed without nbformat."""
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.from_dict(item) for item in copy.deepcopy(outputs)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    return json.loads(nbformat.writes(notebook))["cells"][0]["outputs"]


class TestStreamText:
    @given(st.lists(SPECIAL, max_size=6))
    @example(["abc\r", "x", "\b\bz"])
    @example(["😀a\r", "x"])
    def test_is_jupyterlabs(self, chunks: list[str]) -> None:
        """Any text in any chunks resolves to what JupyterLab's own algorithm makes of it."""
        text = StreamText()
        for chunk in chunks:
            text.append(chunk, utf8_length(chunk))
        assert text.text() == jupyterlab_text(chunks) == resolve("".join(chunks))

    @given(SPECIAL)
    def test_resolving_is_idempotent(self, raw: str) -> None:
        """Resolved text resolves to itself."""
        assert resolve(resolve(raw)) == resolve(raw)

    @given(SPECIAL, SPECIAL)
    @example("abcd\rxy", "z\b\b")
    def test_settled_text_continues_as_before(self, raw: str, more: str) -> None:
        """Nothing that follows can tell whether the text before was settled."""
        finished, rest = settle(raw)
        assert finished + resolve(rest + more) == resolve(raw + more)

    def test_backspace_also_deletes_what_is_under_the_cursor(self) -> None:
        """JupyterLab's quirk: within a line a backspace deletes two characters."""
        assert resolve("abcd\rxy\b") == "xd"

    def test_half_an_astral_character_is_overwritten(self) -> None:
        """Overwriting counts UTF-16 code units, as JavaScript does."""
        assert resolve("😀\rx") == "x\ude00"

    def test_a_long_lived_progress_bar_holds_only_what_it_shows(self) -> None:
        """A stream that overwrites itself settles, so its size stays bounded."""
        outputs = Outputs(limit=1_000_000)
        for step in range(50_000):
            outputs.add(*stream(f"\r{step:6d} {'█' * 40}"), 0)
        assert not outputs.overflow
        assert texts(outputs) == [f" 49999 {'█' * 40}"]
        assert outputs.counts()[0]["bytes"] == 50_000 * (1 + 6 + 1 + 120)

    def test_many_small_chunks_are_one_text(self) -> None:
        """Plain chunks beyond the joining threshold lose nothing, also when a carriage return follows."""
        chunks = [f"{number} " for number in range(5000)]
        assert texts(built(*map(stream, chunks))) == ["".join(chunks)]
        assert texts(built(*map(stream, chunks), stream("\rX"))) == ["X" + "".join(chunks)[1:]]

    def test_backspaces_and_carriage_returns_cost_linear_time(self) -> None:
        """A megabyte of the most expensive text takes seconds at most, not hours."""
        resolve("a" * 300_000 + "\r" + "b\b" * 200_000 + "\rc" * 100_000)


class TestMessages:
    def test_consecutive_messages_of_a_stream_are_one_output(self) -> None:
        """Streams merge while they follow each other, and only then."""
        outputs = built(stream("a"), stream("b"), stream("E", "stderr"), stream("c"), display("d"), stream("e"))
        assert texts(outputs) == ["ab", "E", "c", "d", "e"]

    def test_the_cursor_is_carried_across_messages(self) -> None:
        """A carriage return in a later message goes back in the text of earlier ones."""
        assert texts(built(stream("10%"), stream("\r20%"), stream("\rdone\n"))) == ["done\n"]

    def test_clear_output(self) -> None:
        """clear_output empties at once; with wait, when the next output comes."""
        assert texts(built(stream("a"), clear(wait=False))) == []
        assert texts(built(stream("a"), clear(wait=True))) == ["a"]
        assert texts(built(stream("a"), clear(wait=True), stream("b"))) == ["b"]
        assert texts(built(stream("a"), clear(wait=True), clear(wait=False), stream("b"), stream("c"))) == ["bc"]

    def test_an_update_changes_every_showing_of_its_display(self) -> None:
        """update_display_data replaces the content of all outputs with its display_id, which stay displays."""
        outputs = built(display("1", "d"), stream("s"), display("2", "d"), display("x", "other"), update("3", "d"))
        assert texts(outputs) == ["3", "s", "3", "x"]
        assert outputs.display_ids == {"d", "other"}

    def test_a_second_display_updates_the_first(self) -> None:
        """A display_data with a known display_id updates what shows it and is shown itself."""
        assert texts(built(display("1", "d"), display("2", "d"))) == ["2", "2"]

    def test_a_result_is_not_updated(self) -> None:
        """A result with a display_id updates earlier displays, but later updates leave it alone, as in JupyterLab."""
        assert texts(built(display("1", "d"), result("2", "d"), update("3", "d"))) == ["3", "2"]

    def test_a_cleared_display_is_not_updated(self) -> None:
        """After clear_output its displays are gone, so updates of them change nothing."""
        outputs = built(display("1", "d"), clear(wait=True), stream("s"), update("2", "d"))
        assert texts(outputs) == ["s"]
        assert outputs.update_display("d", update("3", "d")[1]) is False

    def test_an_update_of_an_unknown_display_is_counted_only(self) -> None:
        """An update of a display that is not here is counted and shown nowhere."""
        outputs = built(update("1", "elsewhere"))
        assert outputs.nbformat() == []
        assert outputs.counts() == [{"kind": "display_data", "mime": "text/plain", "count": 1, "bytes": 1}]

    def test_another_execution_updates_a_display(self) -> None:
        """update_display shows the new content and counts nothing, as the message is another execution's."""
        outputs = built(display("1", "d"))
        assert outputs.update_display("d", update("22", "d")[1]) is True
        assert outputs.update_display("e", update("22", "e")[1]) is False
        assert texts(outputs) == ["22"]
        assert outputs.counts()[0]["bytes"] == 1

    def test_a_page_is_the_last_output(self) -> None:
        """The first page payload of the reply is a display after all messages."""
        outputs = built(stream("a"))
        pages = [{"source": "page", "data": {"text/plain": text}, "start": 0} for text in "pq"]
        outputs.add_payload({"status": "ok", "payload": [{"source": "set_next_input"}, *pages]})
        outputs.add(*stream("b"), 0)
        assert texts(outputs) == ["ab", "p"]
        assert built().nbformat() == []

    def test_what_is_saved(self) -> None:
        """Outputs have the fields of nbformat, without transient, and validate as a notebook."""
        outputs = built(stream("a"), display("d", "id"), result("r"), ERROR).nbformat()
        assert outputs == [
            {"output_type": "stream", "name": "stdout", "text": "a"},
            {"output_type": "display_data", "data": {"text/plain": "d"}, "metadata": {}},
            {"output_type": "execute_result", "data": {"text/plain": "r"}, "metadata": {}, "execution_count": 1},
            {"output_type": "error", **ERROR[1]},
        ]
        cell = nbformat.v4.new_code_cell("", outputs=[nbformat.from_dict(item) for item in outputs])
        nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))

    def test_numbers_are_what_javascript_makes_of_them(self) -> None:
        """JSON values pass through doubles, as they would through the browser."""
        value = {"big": 2**53 + 1, "one": 1.0, "nan": float("nan"), "half": 0.5, "tiny": 1e-7, "huge": 10**400}
        [output] = built(display(value, mime="application/json")).nbformat()
        assert output["data"]["application/json"] == {
            "big": 2**53,
            "one": 1,
            "nan": None,
            "half": 0.5,
            "tiny": 1e-7,
            "huge": None,
        }


class TestCounts:
    def test_cover_all_that_was_received(self) -> None:
        """Rows count every body, also cleared and replaced ones, in bytes of UTF-8 or RFC 8785."""
        outputs = built(
            stream("é\rx"),
            stream("a", "console"),
            display("1", "d"),
            clear(wait=False),
            update("22", "d"),
            display({"a": 1.0}, mime="application/json"),
            ERROR,
        )
        assert outputs.counts() == [
            {"kind": "display_data", "mime": "application/json", "count": 1, "bytes": 7},
            {"kind": "display_data", "mime": "text/plain", "count": 2, "bytes": 3},
            {"kind": "error", "mime": "application/vnd.jupyter.error", "count": 1, "bytes": 33},
            {"kind": "stream", "mime": "other", "count": 1, "bytes": 1},
            {"kind": "stream", "mime": "stdout", "count": 1, "bytes": 4},
        ]

    @pytest.mark.parametrize("mime", ["", "text", "text/", "secret/x", "text/a b", "text/" + "a" * 200, "é/é"])
    def test_odd_names_are_other(self, mime: str) -> None:
        """What is no plain MIME type is counted as other, so names carry nothing out."""
        assert built(display("1", mime=mime)).counts()[0]["mime"] == "other"

    def test_rows_are_bounded_and_lose_nothing(self) -> None:
        """However many MIME types a kernel invents: at most 32 rows of a kind and 64 in all, with all bodies."""
        outputs = built(stream("1"), stream("1", "stderr"), stream("1", "x"), ERROR)
        for number in range(100):
            bundle = {"data": {f"text/x-{number}": "1"}, "metadata": {}}
            outputs.add("display_data", bundle, 0)
            outputs.add("execute_result", bundle, 0)
        rows = outputs.counts()
        assert len(rows) == 64
        assert sum(row["kind"] == "display_data" for row in rows) == 32
        assert sum(row["count"] for row in rows) == 204


class TestLimits:
    def test_too_many_bytes(self) -> None:
        """Beyond the limit nothing is retained and nothing can be shown, while counts go on."""
        outputs = built(*[stream("x" * 1000)] * 20, limit=10_000)
        assert outputs.overflow
        assert outputs.size == 0
        assert outputs.counts()[0]["bytes"] == 20_000
        outputs.add(*display("y", "d"), 0)
        assert outputs.size == 0
        assert outputs.display_ids == set()
        with pytest.raises(ValueError, match="more than is kept"):
            outputs.nbformat()

    def test_too_many_outputs(self) -> None:
        """The number of outputs is bounded as their bytes are."""
        assert not built(*[display("x")] * 10, max_outputs=10).overflow
        assert built(*[display("x")] * 11, max_outputs=10).overflow

    def test_frames_that_replace_each_other_are_no_overflow(self) -> None:
        """Cleared and replaced outputs give their bytes back."""
        frames = [message for _ in range(50) for message in (clear(wait=True), display("x" * 5000))]
        assert not built(*frames, limit=20_000).overflow
        assert not built(display("x", "d"), *[update("x" * 5000, "d")] * 50, limit=20_000).overflow

    def test_each_showing_of_a_display_is_charged(self) -> None:
        """A display shown a thousand times and then made large is as large as the notebook would be."""
        assert built(*[display("x", "d")] * 1000, update("x" * 10_000, "d"), limit=5_000_000).overflow

    def test_json_nested_too_deep(self) -> None:
        """JSON too deep to be hashed is an overflow, never an exception."""
        deep: Any = 1
        for _ in range(MAX_DEPTH + 1):
            deep = [deep]
        assert built(display(deep, mime="application/json")).overflow
        fits = built(display(deep[0], mime="application/json"))
        assert HASHER.outputs(fits.nbformat())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
KINDS = ("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output", "status")
STREAM_FIELDS = ["name", "text"]
BUNDLE_FIELDS = ["data", "metadata", "transient", "display_id", "execution_count", "text/plain", "application/json"]
OTHER_FIELDS = ["ename", "evalue", "traceback", "wait", "status", "payload", "source"]
FIELDS = st.sampled_from(STREAM_FIELDS + BUNDLE_FIELDS + OTHER_FIELDS)
CONTENTS = JSON | st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON, max_size=4), max_size=6)


class TestAttack:
    @given(st.lists(st.tuples(st.sampled_from(KINDS) | JSON, CONTENTS, st.booleans()), max_size=8))
    @settings(max_examples=300, deadline=None)
    def test_no_content_raises(self, messages: list[tuple[Any, Any, bool]]) -> None:
        """Whatever JSON a kernel sends as content is shown or skipped, and what is shown can be hashed."""
        outputs = Outputs()
        for kind, content, is_reply in messages:
            if is_reply:
                outputs.add_payload(content)
                outputs.update_display(kind, content)
            else:
                outputs.add(kind, content, 10)
        outputs.counts()
        if not outputs.overflow:
            HASHER.outputs(outputs.nbformat())

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            ("stream", {}),
            ("stream", {"name": "stdout", "text": 1}),
            ("stream", {"name": ["stdout"], "text": "a"}),
            ("stream", None),
            ("display_data", {"data": "text"}),
            ("execute_result", {"data": {"text/plain": "1"}, "metadata": [1]}),
            ("error", {"ename": "E", "evalue": "v"}),
            ("error", {"ename": "E", "evalue": "v", "traceback": [1]}),
            ("clear_output", []),
        ],
    )
    def test_malformed_content_is_counted_as_such(self, kind: str, content: Any) -> None:
        """A message that breaks the protocol is skipped and said to be malformed."""
        outputs = built(stream("a"))
        outputs.add(kind, content, 0)
        assert outputs.malformed == 1
        assert texts(outputs) == ["a"]

    @given(st.lists(JSON, max_size=4))
    def test_no_saved_outputs_raise(self, saved_outputs: list[Any]) -> None:
        """Whatever a notebook holds as outputs has a canonical form, which is its own."""
        once = canonical_outputs(saved_outputs)
        assert HASHER.outputs(canonical_outputs(once)) == HASHER.outputs(once)


MESSAGES = st.lists(
    st.one_of(
        st.builds(stream, SPECIAL, st.sampled_from(["stdout", "stderr"])),
        st.builds(display, st.text() | st.lists(st.text()), st.sampled_from([None, "d"])),
        st.builds(display, JSON, st.none(), st.sampled_from(["application/json", "application/x+json"])),
        st.builds(update, st.text(), st.just("d")),
        st.builds(result, st.text(alphabet="a\n\r\x0b\u2028")),
        st.builds(clear, wait=st.booleans()),
        st.just(ERROR),
    ),
    max_size=8,
)


class TestCanonical:
    @given(MESSAGES)
    def test_live_is_saved(self, messages: list[tuple[str, dict[str, Any]]]) -> None:
        """Outputs written to a notebook file and parsed again hash as the live messages did."""
        live = built(*messages).nbformat()
        assert HASHER.outputs(saved(live)) == HASHER.outputs(live)

    @given(MESSAGES)
    def test_is_idempotent(self, messages: list[tuple[str, dict[str, Any]]]) -> None:
        """The canonical form of the canonical form is itself."""
        once = canonical_outputs(built(*messages).nbformat())
        assert canonical_outputs(copy.deepcopy(once)) == once

    @given(SPECIAL, st.lists(st.integers(0, 100), max_size=5))
    def test_chunks_do_not_matter(self, text: str, places: list[int]) -> None:
        """A stream has one hash, live or saved chunk by chunk and unresolved, however it was cut."""
        chunks = cut(text, places)
        whole = HASHER.outputs(built(stream(text)).nbformat())
        assert HASHER.outputs(built(*map(stream, chunks)).nbformat()) == whole
        unresolved = [{"output_type": "stream", "name": "stdout", "text": chunk.splitlines(True)} for chunk in chunks]
        assert HASHER.outputs(unresolved) == whole

    @given(st.lists(st.text(alphabet="ab\n"), min_size=1), st.lists(st.text(alphabet="ab\n"), min_size=1), st.randoms())
    def test_interleaving_does_not_matter(self, out: list[str], err: list[str], random: Any) -> None:
        """stdout and stderr hash the same however the kernel mixed them, as long as neither goes back."""
        mixed = [stream(text) for text in out] + [stream(text, "stderr") for text in err]
        order = [kind for kind, texts_ in (("stdout", out), ("stderr", err)) for _ in texts_]
        random.shuffle(order)
        left: dict[str, Iterator[str]] = {"stdout": iter(out), "stderr": iter(err)}
        shuffled = [stream(next(left[name]), name) for name in order]
        assert HASHER.outputs(built(*shuffled).nbformat()) == HASHER.outputs(built(*mixed).nbformat())

    def test_prompt_number_and_transient_do_not_matter(self) -> None:
        """The execution count is not an output; neither are transient and fields nobody shows."""
        plain = {"output_type": "execute_result", "data": {"text/plain": "1"}, "metadata": {}, "execution_count": 1}
        other = {**plain, "execution_count": None, "transient": {"display_id": "d"}, "more": 1}
        assert HASHER.outputs([plain]) == HASHER.outputs([other])

    def test_typed_input_does_not_matter(self) -> None:
        """The stdin stream that JupyterLab saves for typed input was never said by the kernel."""
        typed = {"output_type": "stream", "name": "stdin", "text": "name? x\n"}
        live = built(stream("a"), stream("b")).nbformat()
        with_input = [{**live[0], "text": "a"}, typed, {**live[0], "text": "b"}]
        assert HASHER.outputs(with_input) == HASHER.outputs(live)

    def test_what_is_shown_does_matter(self) -> None:
        """Text, MIME type, metadata, order and kind of an output each change the hash."""
        shown = [
            built(),
            built(display("1")),
            built(display("2")),
            built(display("1", mime="text/html")),
            built(("display_data", {"data": {"text/plain": "1"}, "metadata": {"text/plain": {"w": 1}}})),
            built(result("1")),
            built(stream("1")),
            built(stream("1", "stderr")),
            built(stream("1"), display("1")),
            built(display("1"), stream("1")),
            built(ERROR),
        ]
        assert len({HASHER.outputs(outputs.nbformat()) for outputs in shown}) == len(shown)

    def test_lists_in_json_stay_lists(self) -> None:
        """Lists of strings are joined in text, never in JSON."""
        assert HASHER.outputs(built(display(["a", "b"])).nbformat()) == HASHER.outputs(built(display("ab")).nbformat())
        for mime in ("application/json", "application/vnd.x+json"):
            as_list, as_text = built(display(["a", "b"], mime=mime)), built(display("ab", mime=mime))
            assert HASHER.outputs(as_list.nbformat()) != HASHER.outputs(as_text.nbformat())


CELLS = [
    "import sys, time\nfor i in range(4):\n    print(f'\\r{i}/3', end='', flush=True)\nprint('\\ndone', flush=True)",
    "print('é' * 3, flush=True)\nprint('to stderr', file=sys.stderr, flush=True)\n{'a': [1, 2.5]}",
    "from IPython.display import display, clear_output, HTML, JSON\nh = display('first', display_id='bar')\n"
    "h.update(HTML('<b>second</b>\\n<i>third</i>'))\ndisplay({'application/json': {'x': 1.0, 'y': 2**60}}, raw=True)",
    "print('gone')\nclear_output(wait=True)\nprint('stays')",
    "print('before')\nclear_output()\n1",
    "1 / 0",
    "x = 1",
]


class ListeningClient(NotebookClient):
    """An nbclient that also gives us what it hears, per cell."""

    heard: dict[int, Outputs]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        outputs = self.heard.setdefault(cell_index, Outputs())
        outputs.add(msg["msg_type"], json.loads(json.dumps(msg["content"])), 100)
        return super().process_message(msg, cell, cell_index)


def test_a_notebook_run_by_nbclient_hashes_as_its_live_messages() -> None:
    """A real kernel's messages and the file saved from them give the same hash, cell by cell."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
    client = ListeningClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
    client.heard = {}
    client.execute()
    cells = json.loads(nbformat.writes(notebook))["cells"]
    for position, cell in enumerate(cells):
        live = client.heard[position]
        assert live.malformed == 0
        assert HASHER.outputs(cell["outputs"]) == HASHER.outputs(live.nbformat()), CELLS[position]
    assert texts(client.heard[0]) == ["3/3\ndone\n"]
    assert texts(client.heard[3]) == ["stays\n"]
    assert client.heard[2].nbformat()[0]["data"]["text/html"] == "<b>second</b>\n<i>third</i>"
    assert client.heard[5].nbformat()[0]["ename"] == "ZeroDivisionError"
