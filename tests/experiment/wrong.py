"""What the tests of wrong documents share: the beginnings of documents that are right, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from squall.documents import DocumentError
from squall.experiment.document import read_experiment

__all__ = ["BODY", "HEAD", "ROUTE", "problems"]

HEAD = "apiVersion: squall.dev/v1alpha1\nkind: Experiment\nmetadata: {name: it}\nspec:\n"
"""Four lines, so that a spec's first line is line 5."""

BODY = HEAD + "  duration: 20s\n  targets: {process: {command: shop}}\n  faults:\n    - {type: process.pause}\n"
"""Eight lines that are right."""

ROUTE = HEAD + '  duration: 20s\n  targets: {route: {listen: "a:1", upstream: "b:2"}}\n  faults:\n'


def problems(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read_experiment(text, "e.yaml")
    assert caught.value.exit_status == 2
    return str(caught.value).splitlines()
