"""A notebook document in JupyterLab's hands: its cells run in a kernel, its outputs saved with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg

from exec_events.testing import Message, NotebookClient, Result, RunningServer


class OpenNotebook:
    """A notebook open in a front end: run cells, edit them, save."""

    def __init__(self, server: RunningServer, path: Path, client: NotebookClient) -> None:
        self.server = server
        self.path = path
        self.client = client
        self.document: NotebookNode = nbformat.read(path, as_version=4)

    @property
    def code_cells(self) -> list[NotebookNode]:
        """The cells that can be run, in order."""
        return [cell for cell in self.document.cells if cell.cell_type == "code"]

    def cell(self, cell_id: str) -> NotebookNode:
        """The cell of this id."""
        return next(cell for cell in self.document.cells if cell.id == cell_id)

    async def run(self, cell: NotebookNode) -> Result:
        """Run one cell and put what comes of it into the document."""
        result = await self.client.execute(cell.source, cell_id=cell.id)
        cell.outputs = merged(result.outputs)
        cell.execution_count = result.execution_count
        return result

    async def save(self) -> None:
        """Save through the server, as the save button does."""
        nbformat.validate(self.document)
        model = {"type": "notebook", "format": "json", "content": self.document}
        await asyncio.to_thread(self.server.rest, "PUT", f"/api/contents/{quote(self.path.name)}", model)


def merged(messages: list[Message]) -> list[NotebookNode]:
    """Output messages as a notebook holds them: what a stream says in one go is one output."""
    outputs: list[NotebookNode] = []
    for message in messages:
        output = output_from_msg(message)
        last = outputs[-1] if outputs else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            outputs.append(output)
    return outputs
