"""What a change of a schema breaks: a rule, where, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

_NEW_VERSION = "start a new version: exec-events schemas new-version NAME"
NEXT_STEPS = {
    "property-removed": f"put it back (producers may leave an optional one out), or {_NEW_VERSION}",
    "property-added-required": f"make it optional, or {_NEW_VERSION}",
    "property-made-required": f"make it optional again, or {_NEW_VERSION}",
    "property-made-optional": f"make it required again, or {_NEW_VERSION}",
    "type-narrowed": f"keep the released type, or {_NEW_VERSION}",
    "type-widened": f"keep the released type and add an optional property for the new kind of value, or {_NEW_VERSION}",
    "enum-narrowed": f"keep the released values (producers need not use them), or {_NEW_VERSION}",
    "enum-widened": f"keep the released values, for old readers refuse a new one, or {_NEW_VERSION}",
    "bound-narrowed": f"keep the released bound, or {_NEW_VERSION}",
    "bound-widened": f"keep the released bound, for old readers refuse what is beyond it, or {_NEW_VERSION}",
    "pattern-changed": f"keep the released pattern, or {_NEW_VERSION}",
    "closed-content-opened": "state additionalProperties: false; nothing a schema does not name may leave a server",
    "keyword-not-allowed": "say it with the allowed keywords; compatibility cannot be proved with others",
    "identity-changed": "restore $id and version; a new version is a new file: exec-events schemas new-version NAME",
    "example-rejected": "do not change the example, it stands for stored events; change the schema",
    "example-missing": "add some: every rule a schema states deserves one that keeps it and one that breaks it",
    "example-refused": "correct the example, or the schema where the example is right",
    "bad-example-accepted": "let the schema refuse it, or remove it from bad/",
    "bad-example-unclear": "let it break exactly one rule, so that its name says why it is refused",
    "upcast-fails": "complete the step, so that every example of the older version is valid in the newer one",
    "models-stale": "run python schemas/generate_models.py and commit models.py",
    "schema-removed": "put the file back; stored events name it",
    "not-a-superset": f"compare with the released schema and allow all that it allows, or {_NEW_VERSION}",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of `NEXT_STEPS` that is broken at ``path``; ``text`` says by what."""

    rule: str
    path: str
    text: str

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return NEXT_STEPS[self.rule]

    def __str__(self) -> str:
        return f"{self.rule} at {self.path or '/'}: {self.text}"
