"""`squall schema`."""

from __future__ import annotations

import click

from squall.cli.printing import print_json

__all__ = ["command"]


@click.command("schema")
def command() -> None:
    """The JSON Schema of the experiment document, for editors.

    Save it and name it in a document's first line: `# yaml-language-server: $schema=squall.schema.json`.
    """
    from squall.experiment.schema import document_schema

    print_json(document_schema())
