"""What a success path may take for granted about the interpreter, so that it needs no lock.

With the global interpreter lock, CPython (from 3.10 on) lets another thread, a signal's handler or the garbage collector
run Python code in this one only where a function is called or returns, and at the end of a loop. A method of a core that
reads, decides and writes without any of these in between is therefore one step. Without that lock it is not, and then
the shells take their own around it.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["ONE_STEP"]

ONE_STEP: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether code without calls and loops is one step."""
