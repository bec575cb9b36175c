"""What can go wrong on the producer's side; each text tells a person what to do next."""

from __future__ import annotations


class ExecEventsError(Exception):
    """Base of every error this package raises."""


class NotRecorded(ExecEventsError):
    """In ``required`` mode: an execution could not be made durable, so it must not run."""


class SpoolError(ExecEventsError):
    """The spool cannot be opened, written, or owned."""


class SinkError(ExecEventsError):
    """A sink could not take a batch; the batch is tried again."""


class NotThisText(ExecEventsError):
    """Consent was given to another text than the one the site asks for."""


class ConfigurationError(ExecEventsError):
    """A setting that cannot work."""
