"""
A cell's outputs go in, live or from a saved notebook, the form that is hashed comes out.

What nbformat joins when it reads a notebook is joined here by the same rules (``nbformat/v4/rwbase.py``).
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from .stream_text import resolve

TYPED_INPUT = "stdin"


def canonical_outputs(outputs: list[dict[str, Any]]) -> list[Any]:
    """
    The form of outputs that is hashed, from `Outputs.nbformat` or from a cell of a saved notebook.

    Multi-line lists are joined; consecutive messages of a stream are joined and resolved; then, in each run of
    stream outputs, the text of each name is joined, names sorted, empty ones left out: how a kernel cuts and
    interleaves its streams does not matter. Only what is shown stays: ``output_type`` with ``name`` and ``text``, or
    ``data`` and ``metadata``, or ``ename``, ``evalue`` and ``traceback``. ``stdin`` streams, which JupyterLab adds for
    what was typed, are left out: the kernel did not say them. What is no output of nbformat 4 stays as it is.
    Idempotent.
    """
    canonical: list[Any] = []
    for is_stream, group in groupby(map(_canonical_output, outputs), _is_stream):
        run = list(group)
        canonical += _canonical_streams(run) if is_stream else run
    return canonical


def _canonical_output(output: Any) -> Any:
    kind = output.get("output_type") if isinstance(output, dict) else None
    if kind == "stream":
        text = output.get("text")
        if isinstance(text, list) and all(isinstance(line, str) for line in text):
            text = "".join(text)
        return {"output_type": kind, "name": output.get("name"), "text": text}
    if kind in ("display_data", "execute_result"):
        data = output.get("data")
        if isinstance(data, dict):
            data = {mime: joined_body(str(mime), body) for mime, body in data.items()}
        return {"output_type": kind, "data": data, "metadata": output.get("metadata") or {}}
    if kind == "error":
        return {"output_type": kind, **{key: output.get(key) for key in ("ename", "evalue", "traceback")}}
    return output


def _is_stream(output: Any) -> bool:
    return (
        isinstance(output, dict)
        and output.get("output_type") == "stream"
        and isinstance(output["name"], str)
        and isinstance(output["text"], str)
    )


def _canonical_streams(run: list[dict[str, Any]]) -> list[dict[str, Any]]:
    texts: dict[str, list[str]] = {}
    for name, parts in groupby(run, lambda stream: str(stream["name"])):
        if name != TYPED_INPUT:
            texts.setdefault(name, []).append(resolve("".join([part["text"] for part in parts])))
    joined = {name: "".join(texts[name]) for name in sorted(texts)}
    return [{"output_type": "stream", "name": name, "text": text} for name, text in joined.items() if text]


def joined_body(mime: str, body: Any) -> Any:
    """A body that nbformat joins when it reads a notebook, joined; any other as it is."""
    if isinstance(body, list) and not _is_json(mime) and all(isinstance(line, str) for line in body):
        return "".join(body)
    return body


def _is_json(mime: str) -> bool:
    """Whether lists are values of their own and never joined."""
    return mime == "application/json" or (mime.startswith("application/") and mime.endswith("+json"))
