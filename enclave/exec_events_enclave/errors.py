"""What can go wrong in the enclave; each text tells a person what to do next."""

from __future__ import annotations


class EnclaveError(Exception):
    """Base of every error this package raises of its own."""


class PolicyError(EnclaveError):
    """A policy file that cannot be used; the text has a line for each thing that is wrong in it."""


class BudgetSpent(EnclaveError):
    """A budget does not have what was asked of it; nothing was debited."""

    def __init__(self, budget: str, left: int, asked: int, again: str) -> None:
        super().__init__(f"the budget of {budget} has {left} left and {asked} were asked for; {again}")
        self.budget = budget
        self.left = left


class StoreError(EnclaveError):
    """A file of the enclave's that cannot be opened or written; nothing may run that it should have counted."""


class QueryError(EnclaveError):
    """A declared query that is none, or that the policy does not allow; nothing was looked at and nothing debited."""


class QueryUnavailable(EnclaveError):
    """The dataset's file is not what its policy says; the site has to correct one of them."""
