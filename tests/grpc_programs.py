"""The gRPC service of `programs/grpc_service.py` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["grpc_program"]

_PROGRAM = Path(__file__).parent / "programs" / "grpc_service.py"


@contextmanager
def grpc_program(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """It runs: its process and its port."""
    with subprocess.Popen([sys.executable, str(_PROGRAM), str(port)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().split()
            assert said[:1] == ["ready"], said
            yield process, int(said[1])
        finally:
            process.kill()
