from __future__ import annotations

import hmac
import json
import subprocess
import sys
import textwrap
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from exec_events.canonical_json import canonical_json
from exec_events.hashing import Hasher, commit, key_id, outputs_bytes
from exec_events.privacy import Pseudonyms
from exec_events.syntax_tree import MAX_CHARACTERS, syntax_tree
from exec_events_schemas.record import Head, hash_bytes, hash_text, seal

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "hashing-vectors.json").read_text())
KEY = bytes.fromhex(VECTORS["key"])
PLAIN, KEYED = Hasher(), Hasher(KEY)


def expected(data: bytes) -> dict[str, str]:
    """The plain and the keyed hash of bytes, made with the standard library alone."""
    name = sha256(b"exec-events key id" + KEY).hexdigest()[:8]
    return {
        "plain": "sha256:" + sha256(data).hexdigest(),
        "keyed": f"hmac-sha256:{name}:{hmac.new(KEY, data, sha256).hexdigest()}",
    }


def stated(vector: dict[str, Any]) -> dict[str, str]:
    """The plain and the keyed hash that the vector gives."""
    return {form: vector[form] for form in ("plain", "keyed")}


def vectors(name: str) -> pytest.MarkDecorator:
    """A test for each vector of one field."""
    return pytest.mark.parametrize("vector", VECTORS[name])


class TestVectors:
    def test_key_id(self) -> None:
        """The name of a key is as documented."""
        assert VECTORS["key_id"] == key_id(KEY) == KEYED.key_id == sha256(b"exec-events key id" + KEY).hexdigest()[:8]

    @vectors("code_hash")
    def test_code(self, vector: dict[str, Any]) -> None:
        """code_hash is the hash of the source's UTF-8."""
        code = vector["code"]
        assert stated(vector) == expected(code.encode()) == {"plain": PLAIN.code(code), "keyed": KEYED.code(code)}

    @vectors("code_ast_hash")
    def test_tree(self, vector: dict[str, Any]) -> None:
        """code_ast_hash is the hash of the documented text of the tree, null where there is none."""
        code, tree = vector["code"], vector["tree"]
        assert syntax_tree(code) == tree
        assert stated(vector) == {"plain": PLAIN.ast(code), "keyed": KEYED.ast(code)}
        if tree is not None:
            assert stated(vector) == expected(b"exec-events syntax tree 1\n" + tree.encode())

    @vectors("user_expressions_hash")
    def test_user_expressions(self, vector: dict[str, Any]) -> None:
        """user_expressions_hash is the hash of the object's RFC 8785 bytes."""
        value = vector["user_expressions"]
        assert stated(vector) == expected(rfc8785.dumps(value))
        assert stated(vector) == {"plain": PLAIN.json(value), "keyed": KEYED.json(value)}

    @vectors("outputs_hash")
    def test_outputs(self, vector: dict[str, Any]) -> None:
        """outputs_hash is the hash of the RFC 8785 bytes of the documented form."""
        text = vector["rfc8785"]
        assert rfc8785.dumps(json.loads(text, parse_int=float)).decode() == text
        assert stated(vector) == expected(text.encode())
        assert stated(vector) == {"plain": PLAIN.outputs(vector["outputs"]), "keyed": KEYED.outputs(vector["outputs"])}

    @vectors("commitment")
    def test_commitment(self, vector: dict[str, Any]) -> None:
        """A commitment is the hash of nonce and body."""
        nonce, body = bytes.fromhex(vector["nonce"]), vector["body"].encode()
        assert vector["commitment"] == commit(nonce, body) == "sha256:" + sha256(nonce + body).hexdigest()

    @pytest.mark.parametrize(("domain", "field"), [("subject", "name"), ("notebook", "path")])
    def test_pseudonyms(self, domain: str, field: str) -> None:
        """A pseudonym is half an HMAC of its domain and the name, under the key it names."""
        for vector in VECTORS["pseudonym"][domain]:
            name = vector[field]
            digest = hmac.new(KEY, domain.encode() + b"\0" + name.encode(), sha256).digest()
            assert vector["pseudonym"] == f"p:{VECTORS['key_id']}:{digest[:16].hex()}"
            assert vector["pseudonym"] == getattr(Pseudonyms(KEY), domain)(name)

    def test_records(self) -> None:
        """A record is RFC 8785, its hash RFC 6962's leaf hash, and the next record's prev."""
        previous = None
        for vector in VECTORS["record"]:
            record = rfc8785.dumps({"event": vector["event"], "seal": vector["seal"]})
            assert record.decode() == vector["record"]
            assert vector["hash"] == "sha256:" + sha256(b"\0" + record).hexdigest()
            assert vector["seal"]["prev"] == previous
            seq, previous = vector["seal"]["seq"], vector["hash"]
            head = Head(seq - 1, hash_bytes(vector["seal"]["prev"])) if seq else None
            sealed, new_head = seal(vector["event"], vector["seal"]["chain"], head)
            assert (sealed, hash_text(new_head.hash)) == (record, vector["hash"])


class TestHasher:
    def test_short_keys_are_refused(self) -> None:
        """A key that could be guessed is refused."""
        with pytest.raises(ValueError, match="16 bytes"):
            Hasher(b"secret")

    def test_nonces_have_32_bytes(self) -> None:
        """A commitment with another nonce, which could be confused with the body, is refused."""
        with pytest.raises(ValueError, match="32 bytes"):
            commit(b"short", b"body")

    @given(st.text(st.characters(), max_size=20))
    def test_any_string_has_a_code_hash(self, code: str) -> None:
        """Also lone surrogates and null characters are hashed, and no parser is tripped by them."""
        assert PLAIN.code(code) == "sha256:" + sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
        PLAIN.ast(code)

    @vectors("outputs_hash")
    def test_kept_outputs_hash_as_the_event_says(self, vector: dict[str, Any]) -> None:
        """The bytes kept as contents are those that were hashed."""
        assert outputs_bytes(vector["outputs"]).decode() == vector["rfc8785"]

    def test_trees_are_remembered_within_bounds(self) -> None:
        """The cache of trees gives what was computed, and forgets the oldest."""
        hasher = Hasher()
        for number in range(2000):
            assert hasher.ast(f"x = {number}") == Hasher().ast(f"x  =  {number}  # again")
        assert len(hasher._trees) <= 512


class TestTree:
    @pytest.mark.parametrize(
        ("code", "same"),
        [
            ("1+1", "1 + 1 # two"),
            ("f(a,b)", "f(\n    a,\n    b,\n)\n"),
            ("if x:\n  y", "if x:\n\n    y  \n"),
            ("(x)", "x"),
            ("'a' 'b'", '"ab"'),
            ("u'a'", "'a'"),
            ("16", "0x1_0"),
            ("f'{a}' 'b' 'c'", "f'{a}bc'"),
            ("x = 1; y = 2", "x = 1\ny = 2"),
            ("def f(): pass # type: () -> int", "def f():\n    pass"),
        ],
    )
    def test_layout_does_not_matter(self, code: str, same: str) -> None:
        """White space, comments, parentheses and spelling of constants leave the hash alone."""
        assert PLAIN.ast(code) == PLAIN.ast(same) is not None

    @pytest.mark.parametrize(
        ("code", "other"),
        [
            ("x", "y"),
            ("1", "2"),
            ("1", "1.0"),
            ("1", "True"),
            ("'1'", "1"),
            ("'a'", "b'a'"),
            ("None", "..."),
            ("0.0", "0j"),
            ("a - b - c", "a - (b - c)"),
            ("x = 1", "x == 1"),
            ("f(*a)", "f(**a)"),
            ("{**a}", "{a: None}"),
            ("def f(a, b=1): pass", "def f(a, *, b=1): pass"),
            ("from . import a", "from .. import a"),
            ("f'{a}'", "f'{a!r}'"),
            ("f'{a}b'", "f'{a}' f'{b}'"),
            ("async def f(): pass", "def f(): pass"),
            ("if a: pass\nelif b: pass", "if a: pass\nif b: pass"),
            ("'a),Name(id='", "'a'"),
        ],
    )
    def test_meaning_does_matter(self, code: str, other: str) -> None:
        """Names, constants with their types, and structure change the hash."""
        assert None not in (PLAIN.ast(code), PLAIN.ast(other))
        assert PLAIN.ast(code) != PLAIN.ast(other)

    @pytest.mark.parametrize("code", ["%matplotlib inline", "1 +", "x\0y", "(" * 5000, "\ud800", "1;" * MAX_CHARACTERS])
    def test_none_where_there_is_no_tree(self, code: str) -> None:
        """What does not parse, or is too long to parse on the server's loop, has no tree hash."""
        assert PLAIN.ast(code) is None

    def test_a_sum_of_hundreds_of_terms_has_a_tree(self) -> None:
        """Nesting as deep as Python's parser goes is no problem for the text."""
        assert PLAIN.ast("+".join(["x"] * 900)) is not None

    def test_no_warnings(self) -> None:
        """Code that the parser warns of neither warns nor fails on the server, whatever its filters."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert PLAIN.ast(r"'\d'") is not None
            assert PLAIN.ast("1or 2") is not None

    def test_integers_too_long_to_print_have_a_tree(self) -> None:
        """An integer beyond Python's limit for decimal digits is written in hex."""
        assert PLAIN.ast("0x" + "f" * 10_000) is not None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner) | st.lists(st.floats(allow_nan=False, allow_infinity=False)) | st.dictionaries(st.text(), inner)
    ),
    max_leaves=20,
)


class TestCanonicalJson:
    @given(JSON)
    def test_is_rfc_8785(self, value: Any) -> None:
        """The fast way gives the bytes of an RFC 8785 library for every JSON value that has a canonical form."""
        assert canonical_json(value) == rfc8785.dumps(value)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (2**53 + 1, "9007199254740992"),
            (2**64, "18446744073709552000"),
            (-(10**21), "-1e+21"),
            (10**400, "null"),
            (float("nan"), "null"),
            (-0.0, "0"),
            (1.0, "1"),
            ([1e-7, 0.000001, 1e21, 123456789012345680000.0], "[1e-7,0.000001,1e+21,123456789012345680000]"),
            ("\ud800a", '"\ufffda"'),
            ("\ud83d" + "\ude00", '"😀"'),
            ({"\ud800": 1, "a": (1, "x")}, '{"a":[1,"x"],"\ufffd":1}'),
            ({"\ufb33": 1, "😀": 2}, '{"😀":2,"\ufb33":1}'),
        ],
    )
    def test_what_javascript_makes_of_it(self, value: Any, text: str) -> None:
        """Values without a canonical form become what a browser would make of them."""
        assert canonical_json(value).decode() == text

    @pytest.mark.parametrize("value", [{1: 2}, object(), [b"bytes"], {"a": {1, 2}}])
    def test_what_is_not_json_is_refused(self, value: Any) -> None:
        """Anything but JSON is a ValueError."""
        with pytest.raises(ValueError, match="not a"):
            canonical_json(value)

    def test_nesting_is_bounded(self) -> None:
        """Nesting beyond the limit is a ValueError, never a crash, and up to it is fine."""
        deep: Any = 1
        for _ in range(200):
            deep = [deep]
        assert canonical_json(deep) == b"[" * 200 + b"1" + b"]" * 200
        with pytest.raises(ValueError, match="too deep"):
            canonical_json([deep])
        for _ in range(100_000):
            deep = [deep, "\ud800"]
        with pytest.raises(ValueError, match="too deep"):
            canonical_json(deep)


def test_hashes_do_not_depend_on_the_interpreters_hash_seed() -> None:
    """Another process, with another order of sets, gives the same hashes."""
    code = textwrap.dedent("""
        from exec_events.hashing import Hasher
        print(Hasher().ast("x = {1, 2, 3}"), Hasher().json({"b": 1, "a": 2}))
    """)
    runs = {subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}) for seed in "12"}
    assert len(runs) == 1
