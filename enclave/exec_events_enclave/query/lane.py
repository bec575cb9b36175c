"""The bytes of a query and who asks go in; it is debited, decided and kept; what the person gets comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from exec_events_enclave.budgets import EPSILON_MICRO, QUERIES, BudgetLedger, Debit
from exec_events_enclave.commitments import commitment
from exec_events_enclave.errors import QueryUnavailable
from exec_events_enclave.policy import Policy, micro
from exec_events_schemas.record import canonical

from .asked import ANSWERED, FAILED, REVIEW, SUPPRESSED, AskedQueries, Asking, Decided
from .model import read_query
from .overlap import Asked
from .process import ask_worker

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of a query: for its person, and for the events."""

    query_id: str
    query_hash: str
    dataset: str
    policy_digest: str
    data_digest: str
    outcome: str
    answer: bytes | None
    nonce: bytes | None
    overlaps: str | None
    epsilon_micro: int | None
    debits: tuple[Debit, ...]

    def query_answered(self) -> dict[str, Any]:
        """What the event query_answered says of it, beside who, when and which recorder."""
        found: dict[str, Any] = {
            "dataset": self.dataset,
            "policy_digest": self.policy_digest,
            "query_id": self.query_id,
            "query_hash": self.query_hash,
            "data_digest": self.data_digest,
            "outcome": self.outcome,
        }
        if self.answer is not None and self.nonce is not None:
            found["commitment"] = commitment(self.nonce, self.answer)
        if self.epsilon_micro is not None:
            found["epsilon_micro"] = self.epsilon_micro
        if self.overlaps is not None:
            found["overlaps"] = self.overlaps
        return found

    def budgets_debited(self) -> list[dict[str, Any]]:
        """The same for each event budget_debited."""
        about = {"dataset": self.dataset, "policy_digest": self.policy_digest}
        return [{**about, **debit._asdict()} for debit in self.debits]


class QueryLane:
    """Answers declared queries; ``ask`` does a job on the data."""

    def __init__(
        self,
        asked: AskedQueries,
        budgets: BudgetLedger,
        ask: Callable[[dict[str, Any]], dict[str, Any]] = ask_worker,
    ) -> None:
        self._asked = asked
        self._budgets = budgets
        self._ask = ask

    def answer(
        self, policy: Policy, person: str, raw: bytes, *, data_digest: str, query_id: str, nonce: bytes, now_us: int
    ) -> Outcome:
        """
        Answer, suppress, or leave to a steward.

        The same query of the same person gets the same answer, and costs no epsilon again.

        Raises:
            QueryError: it is no query, or not allowed; nothing was debited.
            BudgetSpent: the person has no query, or no epsilon, left; nothing was debited.
            QueryUnavailable: the site has to correct the dataset or its policy; a query was debited.
            StoreError: it could not be written down; nothing is answered.
        """
        query = read_query(raw, policy)
        asking = Asking(query_id, policy.name, policy.digest, data_digest, query, person, now_us)
        before = self._asked.same(asking)
        epsilon = _epsilon(policy)
        if before is not None:
            debits = self._budgets.debit(policy, person, query_id, {QUERIES: 1}, now_us)
            self._asked.keep(asking, before)
            return _outcome(asking, before, nonce, None if epsilon is None else 0, debits)
        # Debited first: a crash after it costs a query, and gives none away.
        costs = {QUERIES: 1} if epsilon is None else {QUERIES: 1, EPSILON_MICRO: epsilon}
        debits = self._budgets.debit(policy, person, query_id, costs, now_us)
        # Noise that is paid for protects a difference, too.
        days = policy.queries.overlap_days if policy.queries and epsilon is None else None
        overlap, others = self._asked.begin(asking, days)
        if overlap is not None:
            return _outcome(asking, Decided(REVIEW, overlap.query_id), nonce, epsilon, debits)
        decided = self._decide(policy, asking, others)
        self._asked.decide(query_id, decided)
        if decided.outcome == FAILED:
            decided = Decided(SUPPRESSED)
        return _outcome(asking, decided, nonce, epsilon, debits)

    def _decide(self, policy: Policy, asking: Asking, others: list[Asked]) -> Decided:
        job = {
            "policy": policy.model_dump(mode="json"),
            "query": asking.query.model_dump(mode="json"),
            "others": [[one.model_dump(mode="json") for one in other.query.where] for other in others],
        }
        result = self._ask(job)
        if "cells" in result:
            return Decided(ANSWERED, None, canonical({"cells": result["cells"]}))
        if "review" in result:
            return Decided(REVIEW, others[result["review"]].query_id)
        if "unavailable" in result:
            self._asked.decide(asking.query_id, Decided(FAILED))
            raise QueryUnavailable(f"{result['unavailable']}; tell the site's stewards")
        if "failed" in result:
            # That it failed may tell of the data: the person is told what everybody is whose answer is suppressed.
            logger.error("the worker failed on %s of %s: %s", asking.query_id, policy.name, result["failed"])
            return Decided(FAILED)
        return Decided(SUPPRESSED)


def _epsilon(policy: Policy) -> int | None:
    per_query = policy.queries.epsilon_per_query if policy.queries else None
    return None if per_query is None else micro(per_query)


def _outcome(asking: Asking, decided: Decided, nonce: bytes, epsilon: int | None, debits: tuple[Debit, ...]) -> Outcome:
    return Outcome(
        asking.query_id,
        asking.query.digest,
        asking.dataset,
        asking.policy_digest,
        asking.data_digest,
        decided.outcome,
        decided.answer,
        nonce if decided.answer is not None else None,
        decided.overlaps,
        epsilon,
        debits,
    )
