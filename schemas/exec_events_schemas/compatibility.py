"""
A released schema and a changed one of the same version in, the rules that the change breaks out.

Within a version only optional additions are allowed: then all that was ever stored still validates, and a
reader made for the released schema still reads what is written by the changed one. So a value allowed anew
breaks a rule as much as one no longer allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .errors import ContractError
from .keywords import keyword_violations, well_formed, without_annotations, without_string_bounds
from .violation import Violation

Schema = dict[str, Any]
# keyword -> +1 where a greater value allows more, -1 where it allows less
BOUNDS = {"minimum": -1, "maximum": 1, "minLength": -1, "maxLength": 1, "minItems": -1, "maxItems": 1}


def check(released: Schema, changed: Schema, examples: Sequence[dict[str, Any]] = ()) -> list[Violation]:
    """
    The rules of compatibility that ``changed`` breaks; empty when it may take the place of ``released``.

    ``examples`` are the data of events that were valid under the released schema. Raises ContractError
    when jsonsubschema, which has the last word, is not installed.
    """
    well_formed(released)
    well_formed(changed)
    found = [*_identity(released, changed), *keyword_violations(changed), *_compare(released, changed, "")]
    # A keyword that is not allowed may be a reference to another place.
    if not any(violation.rule == "keyword-not-allowed" for violation in found):
        found += _rejected(changed, examples)
    # What jsonsubschema would add to a rule that is named already is only less clear.
    return found or _not_a_superset(released, changed)


def _identity(released: Schema, changed: Schema) -> Iterator[Violation]:
    for keyword in ("$id", "version"):
        if released.get(keyword) != changed.get(keyword):
            text = f"{keyword} was {released.get(keyword)!r} and is {changed.get(keyword)!r}"
            yield Violation("identity-changed", keyword, text)


def _compare(released: Any, changed: Any, path: str) -> Iterator[Violation]:
    """The rules broken at one place, and below it."""
    if not isinstance(released, dict) or not isinstance(changed, dict):
        return  # true and false are schemas too, but no keywords of ours
    if released.get("type") != changed.get("type"):
        yield from _types(released.get("type"), changed.get("type"), path)
        return
    yield from _values(released, changed, path)
    yield from _bounds(released, changed, path)
    if released.get("pattern") != changed.get("pattern"):
        yield Violation(
            "pattern-changed", path, f"the pattern was {released.get('pattern')} and is {changed.get('pattern')}"
        )
    yield from _properties(released, changed, path)
    yield from _items(released, changed, path)


def _types(released: Any, changed: Any, path: str) -> Iterator[Violation]:
    before, after = _type_set(released), _type_set(changed)
    text = f"the type was {released} and is {changed}"
    if before - after:
        yield Violation("type-narrowed", path, text)
    if after - before:
        yield Violation("type-widened", path, text)


def _type_set(value: Any) -> set[str]:
    """All types a ``type`` allows: none given allows all, and every integer is a number."""
    if value is None:
        return {"null", "boolean", "object", "array", "number", "integer", "string"}
    types = {value} if isinstance(value, str) else set(value)
    return types | {"integer"} if "number" in types else types


def _values(released: Schema, changed: Schema, path: str) -> Iterator[Violation]:
    before, after = _allowed(released), _allowed(changed)
    if after is not None and (before is None or (gone := _minus(before, after))):
        text = "any value was allowed before" if before is None else f"no longer allowed: {gone}"
        yield Violation("enum-narrowed", path, text)
    if before is not None and (after is None or (new := _minus(after, before))):
        text = "any value is allowed now" if after is None else f"allowed anew: {new}"
        yield Violation("enum-widened", path, text)


def _allowed(schema: Schema) -> list[Any] | None:
    """The values a schema lists; None when it lists none. A const is a list of one."""
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _minus(some: list[Any], others: list[Any]) -> list[Any]:
    """Those of ``some`` that are not in ``others``; true is not 1 here."""
    kinds = [(type(other), other) for other in others]
    return [value for value in some if (type(value), value) not in kinds]


def _bounds(released: Schema, changed: Schema, path: str) -> Iterator[Violation]:
    for keyword, direction in BOUNDS.items():
        before, after = released.get(keyword), changed.get(keyword)
        if before == after:
            continue
        narrowed = before is None or (after is not None and (after - before) * direction < 0)
        rule = "bound-narrowed" if narrowed else "bound-widened"
        yield Violation(rule, path, f"{keyword} was {_or_none(before)} and is {_or_none(after)}")


def _or_none(bound: Any) -> str:
    return "not there" if bound is None else str(bound)


def _properties(released: Schema, changed: Schema, path: str) -> Iterator[Violation]:
    before, after = released.get("properties", {}), changed.get("properties", {})
    required_before, required_after = set(released.get("required", ())), set(changed.get("required", ()))
    for name in before:
        place = f"{path}/{name}"
        if name not in after:
            yield Violation("property-removed", place, "the property is gone; stored events have it")
        else:
            if name in required_after - required_before:
                yield Violation("property-made-required", place, "stored events without it would be refused")
            if name in required_before - required_after:
                yield Violation("property-made-optional", place, "readers rely on it being there")
            yield from _compare(before[name], after[name], place)
    for name in sorted(required_after - set(before)):
        yield Violation("property-added-required", f"{path}/{name}", "stored events do not have it")


def _items(released: Schema, changed: Schema, path: str) -> Iterator[Violation]:
    before, after = released.get("items"), changed.get("items")
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _compare(before, after, f"{path}/[]")
    elif before != after:
        rule = "type-narrowed" if before is None else "type-widened"
        yield Violation(rule, f"{path}/[]", f"items was {before} and is {after}")


def _rejected(changed: Schema, examples: Sequence[dict[str, Any]]) -> Iterator[Violation]:
    import jsonschema_rs

    validator = jsonschema_rs.Draft7Validator(without_annotations(changed))
    for number, example in enumerate(examples):
        for error in validator.iter_errors(example):
            place = "/".join(("", *map(str, error.instance_path)))
            yield Violation("example-rejected", f"examples[{number}]{place}", error.message)
            break


def _not_a_superset(released: Schema, changed: Schema) -> list[Violation]:
    try:
        from jsonsubschema import isSubschema
    except ModuleNotFoundError as error:
        raise ContractError('the proof needs jsonsubschema: pip install "exec-events[schemas]"') from error
    text = "an event valid under the released schema is not valid under this one"
    try:
        if isSubschema(without_string_bounds(released), without_string_bounds(changed)):
            return []
    except Exception as error:  # it fails in many ways on what it cannot decide; what is not proved is refused
        text = f"jsonsubschema cannot decide: {type(error).__name__}: {error}"
    return [Violation("not-a-superset", "", text)]
