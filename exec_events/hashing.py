"""
Code, outputs and other contents go in, the hashes that stand for them in events come out.

`docs/hashing.md` says how to recompute each of them. A hash is compared only with hashes of the same field of an event,
so their inputs carry no prefix (except the syntax tree's, whose form may get a second version).
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any

from exec_events_schemas.record import HASH_PREFIX, hash_text

from .canonical_json import MAX_DEPTH, canonical_json
from .canonical_outputs import canonical_outputs
from .syntax_tree import syntax_tree

KEYED_PREFIX = "hmac-sha256:"
NONCE_BYTES = 32

_KEY_ID_INPUT = b"exec-events key id"
_TREE_INPUT = b"exec-events syntax tree 1\n"
_CACHE_SIZE = 512
# A list of outputs, an output, its data: values in it may be nested as deep as `Outputs` takes them.
_OUTPUTS_DEPTH = MAX_DEPTH + 4


class Hasher:
    """
    Hashes with one site's key, or plain ones without.

    Args:
        key: the site's secret of 16 bytes or more: equal contents then have equal hashes only here, and nobody
            without the key can tell by guessing what was hashed. None for plain SHA-256.

    Raises:
        ValueError: the key is too short to be a secret.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) < 16:
            raise ValueError("a hashing key needs 16 bytes or more; make one with `openssl rand 32`")
        self._key = key
        self.key_id = key_id(key) if key is not None else None
        self.prefix = HASH_PREFIX if key is None else f"{KEYED_PREFIX}{self.key_id}:"
        self._trees: dict[str, str | None] = {}

    def bytes(self, data: bytes) -> str:
        """``sha256:<64 hex>`` of the bytes, or with a key ``hmac-sha256:<8 hex key id>:<64 hex>``."""
        if self._key is None:
            return HASH_PREFIX + sha256(data).hexdigest()
        return self.prefix + hmac.digest(self._key, data, "sha256").hex()

    def text(self, text: str) -> str:
        """The hash of a string as UTF-8; lone surrogates as three bytes each (Python's "surrogatepass")."""
        return self.bytes(text.encode("utf-8", "surrogatepass"))

    def code(self, code: str) -> str:
        """The hash of a cell's source as it was sent: without a key, what ``sha256sum`` says of it."""
        return self.text(code)

    def ast(self, code: str) -> str | None:
        """The hash of Python source that white space and comments do not change; None when it has no `syntax_tree`."""
        return self.ast_of(code, self.code(code))

    def ast_of(self, code: str, code_hash: str) -> str | None:
        """The same for who has the ``code_hash`` already; code that ran lately costs nothing."""
        trees = self._trees
        if code_hash in trees:
            found = trees[code_hash] = trees.pop(code_hash)  # now the last to be forgotten
            return found
        tree = syntax_tree(code)
        tree_hash = None if tree is None else self.bytes(_TREE_INPUT + tree.encode())
        if len(trees) >= _CACHE_SIZE:
            del trees[next(iter(trees))]
        trees[code_hash] = tree_hash
        return tree_hash

    def json(self, value: Any) -> str:
        """The hash of a JSON value's RFC 8785 bytes; raises ValueError as `canonical_json` does."""
        return self.bytes(canonical_json(value))

    def outputs(self, outputs: list[dict[str, Any]]) -> str:
        """
        The hash of a cell's outputs, live or saved: the RFC 8785 bytes of their `canonical_outputs`.

        Raises ValueError where they are nested too deep to be hashed, or not JSON.
        """
        return self.bytes(outputs_bytes(outputs))


def outputs_bytes(outputs: list[dict[str, Any]]) -> bytes:
    """The bytes that are hashed for outputs, and kept where a site keeps contents; raises as `Hasher.outputs`."""
    return canonical_json(canonical_outputs(outputs), _OUTPUTS_DEPTH)


def key_id(key: bytes) -> str:
    """The name of a key in what it made: the first 8 hex digits of SHA-256("exec-events key id" || key)."""
    return sha256(_KEY_ID_INPUT + key).hexdigest()[:8]


def commit(nonce: bytes, body: bytes) -> str:
    """
    A commitment to a stored body: ``sha256:<hex>`` of SHA-256(nonce || body).

    The nonce is 32 random bytes stored with the body and erased with it: what is left tells nothing, and no
    other body fits it. Raises ValueError for a nonce of another length.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a commitment needs a nonce of {NONCE_BYTES} bytes, not {len(nonce)}")
    return hash_text(sha256(nonce + body).digest())
