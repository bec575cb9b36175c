"""What can be wrong with what a reader or a maintainer hands to the contract."""

from __future__ import annotations


class ContractError(Exception):
    """Base of every error this package raises; its text says what to do next."""


class MalformedRecord(ContractError):
    """Bytes, or a value, that are no record."""


class UnknownSchema(ContractError):
    """An event names a schema, or a person names one, that this version does not have."""


class IncompatibleSchema(ContractError):
    """A changed schema breaks a rule of compatibility."""


class LabelKeyError(ContractError):
    """A key of servers' labels that cannot be used."""


class SourceError(ContractError):
    """A SOURCE that cannot be read: missing, unreadable, or of an unknown kind."""
