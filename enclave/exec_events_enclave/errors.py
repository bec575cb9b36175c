"""What can go wrong in the enclave; each text tells a person what to do next."""

from __future__ import annotations


class EnclaveError(Exception):
    """Base of every error this package raises of its own."""


class PolicyError(EnclaveError):
    """A policy file that cannot be used; the text has a line for each thing that is wrong in it."""
