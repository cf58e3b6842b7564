"""What a process settles for itself or its child: name, place in the OOM killer's order, cgroup, how soon it is woken.

Imports nothing but the interpreter's own: workers start with it, and every import delays a fault.
"""

import os

__all__ = ["be_first", "be_killed_first", "be_named", "be_on_time", "join"]


def be_named(name: str) -> None:
    """Name this thread for `ps` and /proc/PID/comm; 15 characters at most."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def be_killed_first(pid: int | None = None) -> None:
    """Let the OOM killer take this process (or a child) before any other; what anybody may ask for himself."""
    with open(f"/proc/{pid or 'self'}/oom_score_adj", "w") as file:
        file.write("1000")


def be_on_time() -> None:
    """Let timers of this thread end when they are due, not up to 50 us later, and have it run before others if allowed."""
    try:
        with open("/proc/self/timerslack_ns", "w") as file:
            file.write("1")
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        # sched(7): in a session of its own, niceness counts by this alone
        with open("/proc/self/autogroup", "w") as file:
            file.write("-15")
    except OSError:  # without these it is less accurate, not wrong
        pass


def be_first() -> None:
    """Let this process and its threads run as soon as there is something to do, whoever else is busy, if allowed.

    For one that needs little time but must not wait for it: a lease that is renewed late has lapsed.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        be_on_time()


def join(folder: str, pid: int | None = None) -> None:
    """Move a process (this one, unless said otherwise) into a cgroup; OSError where that is not allowed."""
    with open(f"{folder}/cgroup.procs", "w") as file:
        file.write(str(pid or os.getpid()))
