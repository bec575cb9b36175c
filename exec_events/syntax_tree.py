"""
Python source goes in, a text of its syntax tree that white space and comments do not change comes out.

The text is the same on every Python that parses the source to the same tree: it is not `ast.dump`,
whose form follows the Python version.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

MAX_CHARACTERS = 20_000

# Where a name is read or written, how a string was spelled, and comments: not what the code does.
_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
# Escapes like "\\d" and numbers run into names ("1or 2") are all that the parser itself warns of.
_MAY_WARN = re.compile(r"\\|[0-9][A-Za-z_]")


def syntax_tree(code: str) -> str | None:
    """
    The tree of a module's source as text: nodes are ``Name(field=value,...)``.

    Fields are in the order of Python's grammar; those that are None or an empty list are left out
    (so a newer grammar with more optional fields gives the same text), and so are ``ctx``, ``kind``,
    ``type_comment`` and positions. Each item of a list is followed by a comma. Integers are written by
    `hex`, other constants and names by `ascii`. In f-strings, neighbouring pieces of text are one.

    None when the source does not parse, or is longer than `MAX_CHARACTERS`, or nested deeper than Python can go.
    """
    if len(code) > MAX_CHARACTERS:
        return None
    try:
        return _text(_parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parse(code: str) -> ast.Module:
    if _MAY_WARN.search(code) is None:
        return ast.parse(code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


_FIELDS = {
    kind: tuple(name for name in kind._fields if name not in _LEFT_OUT)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}


def _text(tree: ast.AST) -> str:
    """Without recursion: a sum of a thousand terms is a tree a thousand nodes deep."""
    out: list[str] = []
    todo: list[Any] = [tree]
    while todo:
        item = todo.pop()
        if type(item) is str:
            out.append(item)
        else:
            todo.extend(reversed(_parts(item)))
    return "".join(out)


def _parts(node: ast.AST) -> list[Any]:
    """The text of a node in order: strings that are final, and nodes with more in them."""
    kind = type(node)
    parts: list[Any] = []
    opening = f"{kind.__name__}("
    for name in _FIELDS[kind]:
        value = getattr(node, name, None)
        if value is None or value == []:
            continue
        parts.append(f"{opening}{name}=")
        opening = ","
        if type(value) is list:
            parts.append("[")
            for item in _joined_text(value) if kind is ast.JoinedStr else value:
                parts += _item(item), ","
            parts.append("]")
        else:
            parts.append(_item(value))
    parts.append(")" if parts else f"{opening})")
    return parts


def _item(value: Any) -> Any:
    """The text of a value, if it takes no more than a look at it (as most do); else the node."""
    kind = type(value)
    if kind not in _FIELDS:
        return _constant(value)
    if kind is ast.Name:
        return f"Name(id={_constant(value.id)})"
    if kind is ast.Constant:
        return f"Constant(value={_constant(value.value)})"
    return value if _FIELDS[kind] else f"{kind.__name__}()"


def _constant(value: Any) -> str:
    # Not repr: which characters it escapes, and which integers it refuses, depends on the Python.
    if type(value) is int:
        return hex(value)
    return ascii(value)


def _joined_text(pieces: list[ast.expr]) -> list[ast.expr]:
    """Python 3.11 and later ones cut the text of an f-string in different pieces."""
    joined: list[ast.expr] = []
    for piece in pieces:
        if isinstance(piece, ast.Constant) and isinstance(piece.value, str):
            if joined and isinstance(joined[-1], ast.Constant):
                joined[-1] = ast.Constant(value=str(joined[-1].value) + piece.value)
                continue
            if not piece.value:
                continue
        joined.append(piece)
    return joined
