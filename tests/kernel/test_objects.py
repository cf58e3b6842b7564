"""The built objects are what their sources say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from squall.kernel.bpf import Object
from squall.kernel.bpf.objects import names

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path.name.removesuffix(".bpf.c") for path in (ROOT / "bpf").glob("*.bpf.c"))


def test_every_source_has_its_object_and_no_object_is_without_one() -> None:
    assert names() == SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_an_object_was_built_from_its_source_as_it_is_now(name: str) -> None:
    headers = b"".join(path.read_bytes() for path in sorted((ROOT / "bpf").glob("*.h")))
    source = (ROOT / "bpf" / f"{name}.bpf.c").read_bytes()
    assert Object(name).source_hash() == hashlib.sha256(source + headers).hexdigest(), "run `make bpf`"
