"""
What exec-events gives its users for their tests: real servers, a client like JupyterLab, the records.

    async with RunningServer(config="c.ExecEvents.required = True") as server:
        async with NotebookClient(server, notebook="n.ipynb") as client:
            result = await client.execute("1 + 1", cell_id="a")
        records = await asyncio.to_thread(wait_for_records, server.data_dir, executions_of(1))
"""

from __future__ import annotations

from .client import NotebookClient
from .messages import LEGACY, V1, Message, Result
from .records import Record, events, executions_of, records, wait_for_records
from .rest import RestError
from .server import RunningServer, ServerStartError

__all__ = [
    "LEGACY",
    "V1",
    "Message",
    "NotebookClient",
    "Record",
    "RestError",
    "Result",
    "RunningServer",
    "ServerStartError",
    "events",
    "executions_of",
    "records",
    "wait_for_records",
]
