"""What the routes answer one person: how they are recorded, what they agreed to, and what the spool has of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cell_runs import Cell, CellRuns
from .clock import now_us, rfc3339
from .consent import Consents, Everybody, Permissions
from .deliver import DeliveryState
from .errors import NotThisText
from .hashing import Hasher
from .privacy import Pseudonyms
from .recorder import Recorder
from .watch.execution import Identity

# So long an answer waits for what was recorded before the question to be on disk.
WRITTEN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Site:
    """What the admin chose, as people are told."""

    mode: str
    identity: str
    contents: str
    required: bool
    retention_days: float
    actions: bool

    def policy(self) -> dict[str, Any]:
        """What holds for everybody."""
        return {
            "mode": self.mode,
            "identity": self.identity,
            "contents": self.contents,
            "required": self.required,
            "retention_days": self.retention_days,
        }


class Answers:
    """
    Answers on one server; what reads the spool does so on other threads.

    ``state`` gives the sinks, and the problems there are. ``consents`` is None in mode ``audit``.
    """

    def __init__(
        self,
        site: Site,
        recorder: Recorder,
        consents: Consents | None,
        folder: Path,
        pseudonyms: Pseudonyms,
        hasher: Hasher,
        started_at: str,
        state: Callable[[], tuple[Sequence[DeliveryState], list[str]]],
    ) -> None:
        self._site = site
        self._recorder = recorder
        self.consents = consents
        self._permissions: Permissions = consents or Everybody()
        self._folder = folder
        self._pseudonyms = pseudonyms
        self._hasher = hasher
        self._started_at = started_at
        self._state = state
        self._runs = CellRuns(folder, hasher)
        self._deciding = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._verifying = asyncio.Lock()

    def policy(self, who: Identity) -> dict[str, Any]:
        """`GET policy`."""
        subject = self._recorder.subject(who)
        sinks, problems = self._state()
        recording = self._permissions.covers(subject, rfc3339(now_us()))
        consent = self.consent(who)
        since = max(self._started_at, consent["at"] or "") if consent else self._started_at
        return self._site.policy() | {
            "recording": recording,
            "consent": consent,
            "sinks": [
                {"name": sink.sink, "problem": sink.problem, "lag": sink.lag, "delivered": sink.delivered}
                for sink in sinks
            ],
            "actions": self._site.actions and recording,
            "subject": subject,
            "problems": problems,
            "recording_since": since if recording else None,
        }

    def consent(self, who: Identity) -> dict[str, Any] | None:
        """`GET consent`: what is asked, and whether it was given; None where nobody is asked."""
        if self.consents is None:
            return None
        at = self.consents.given_at(self._recorder.subject(who))
        text = self.consents.text
        return {"version": text.version, "text": text.text, "given": at is not None, "at": at}

    async def give(self, consents: Consents, who: Identity, version: str) -> None:
        """`PUT consent`: recorded from now on. Raises NotThisText for another version, and OSError."""
        if version != consents.text.version:
            raise NotThisText(f"this server asks for consent to version {consents.text.version} of its text")
        subject = self._recorder.subject(who)
        async with self._deciding:
            if consents.given_at(subject) is not None:
                return
            at = now_us()
            draft = await asyncio.to_thread(consents.draft, subject, rfc3339(at))
            # At one moment of the event loop, so that nothing is recorded before the consent itself.
            consents.give(subject, draft)
            self._recorder.consented(who, consents.text, at)
            await asyncio.to_thread(consents.sync)

    async def withdraw(self, consents: Consents, who: Identity) -> None:
        """`DELETE consent`: recorded no more, from this moment on. Raises OSError where that will not last."""
        subject = self._recorder.subject(who)
        async with self._deciding:
            given = consents.given_at(subject) is not None
            try:
                consents.withdraw(subject)
            finally:
                if given:
                    self._recorder.withdrew(who, consents.text)
            await asyncio.to_thread(consents.sync)

    async def cells(self, who: Identity, path: str, cells: list[Cell]) -> dict[str, Any]:
        """`POST cells`: the last run of each cell, and which run now."""
        subject, notebook = self._recorder.subject(who), self._pseudonyms.notebook(path.lstrip("/"))
        pending = self._recorder.running(subject, notebook)
        await self._recorder.written(WRITTEN_SECONDS)
        async with self._looking:  # who waits for the first look takes no thread from others
            found = await asyncio.to_thread(self._runs.last, subject, notebook, cells)
        return {"cells": found, "pending": [cell.id for cell in cells if cell.id in pending]}

    async def events(self, who: Identity, limit: int) -> dict[str, Any]:
        """`GET events`: this person's, the newest first."""
        from .own_events import own_events

        await self._recorder.written(WRITTEN_SECONDS)
        return {"events": await asyncio.to_thread(own_events, self._folder, self._recorder.subject(who), limit)}

    async def verify(self, notebook: dict[str, Any]) -> dict[str, Any]:
        """`POST verify`; raises ConfigurationError and SourceError as `verify_shown` does."""
        from .own_events import verify_shown

        async with self._verifying:  # it reads all of the spool: one at a time
            return await asyncio.to_thread(verify_shown, self._folder, notebook, self._hasher)
