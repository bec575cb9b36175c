"""What stands for a run in events: its commitment, and the chain of code that led to it (pure; docs/hashing.md)."""

from __future__ import annotations

from hashlib import sha256

from exec_events_schemas.record import HASH_PREFIX, hash_bytes

NONCE_BYTES = 32
PREFIX = "salted-sha256:"

_COMMITMENT = b"\x02"
_LINK = b"\x03"
_NO_CODE = b"exec-events code chain 1\n"


def commitment(nonce: bytes, outputs: bytes) -> str:
    """
    ``salted-sha256:<hex>`` of SHA-256(0x02 ‖ nonce ‖ outputs).

    A plain hash of a short output tells the output: whoever guesses it can hash it. The nonce is secret until the
    outputs are released. Raises ValueError for a nonce that is not 32 bytes long.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a commitment needs a nonce of {NONCE_BYTES} bytes, not {len(nonce)}")
    return PREFIX + sha256(_COMMITMENT + nonce + outputs).hexdigest()


def no_code() -> str:
    """The code chain of a kernel that has run nothing."""
    return HASH_PREFIX + sha256(_NO_CODE).hexdigest()


def next_link(chain: str, code: str) -> str:
    """The code chain after one more cell: SHA-256(0x03 ‖ the chain before ‖ SHA-256(code))."""
    code_hash = sha256(code.encode("utf-8", "surrogatepass")).digest()
    return HASH_PREFIX + sha256(_LINK + hash_bytes(chain) + code_hash).hexdigest()
