"""
A login at a JupyterHub in, an event of it on the Hub's own event log out: the Hub has none of its own.

It is an event of the Hub's, beside its starts and stops of servers, and goes where its handlers take those.
"""

from __future__ import annotations

from typing import Any

# Not one of the record's schemas: those a handler leaves to the recorder.
SCHEMA: dict[str, Any] = {
    "$id": "https://exec-events.org/jupyterhub/login",
    "version": "1",
    "title": "Login at a JupyterHub",
    "description": "Somebody has logged in. Attempts that failed are in the Hub's log alone.",
    "personal-data": True,
    "type": "object",
    "required": ["username", "authenticator"],
    "properties": {
        "username": {"type": "string", "description": "The user, by the Hub's name."},
        "authenticator": {"type": "string", "description": "The class that let them in."},
    },
}


def record_login(authenticator: Any, handler: Any, auth_model: dict[str, Any]) -> dict[str, Any]:
    """For ``c.Authenticator.post_auth_hook``; whatever goes wrong with the event, the login does not."""
    try:
        log = handler.eventlog
        if SCHEMA["$id"] not in log.schemas:
            log.register_event_schema(SCHEMA)
        data = {"username": auth_model["name"], "authenticator": type(authenticator).__name__}
        log.emit(schema_id=SCHEMA["$id"], data=data)
    except Exception:
        authenticator.log.exception("exec-events: fault, while looking at a login")
    return auth_model
