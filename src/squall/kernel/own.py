"""What a process settles for itself or its child: its name, its place in the OOM killer's order, its cgroup.

Imports nothing but the interpreter's own: workers start with it, and every import delays a fault.
"""

import os

__all__ = ["be_killed_first", "be_named", "join"]


def be_named(name: str) -> None:
    """Name this thread for `ps` and /proc/PID/comm; 15 characters at most."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def be_killed_first(pid: int | None = None) -> None:
    """Let the OOM killer take this process (or a child) before any other; what anybody may ask for himself."""
    with open(f"/proc/{pid or 'self'}/oom_score_adj", "w") as file:
        file.write("1000")


def join(folder: str, pid: int | None = None) -> None:
    """Move a process (this one, unless said otherwise) into a cgroup; OSError where that is not allowed."""
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write(str(pid or os.getpid()))
