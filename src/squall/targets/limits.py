"""What is never hit, whoever asks: pid 1, kernel threads, Squall and its ancestors, the way in, the screen, what the user lists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.kernel import namespaces, proc
from squall.targets.configuration import config_files, strings
from squall.targets.netns import NetnsTarget
from squall.targets.process import ProcessTarget, command_names

if TYPE_CHECKING:
    from squall.targets.cgroup import CgroupTarget

__all__ = ["OWN_MARK", "Protected", "group_protection", "protection"]

OWN_MARK = "SQUALL_RUN"
"""Every process that Squall starts carries this variable; its value is the run's id."""
_WAY_IN = {"sshd", "sshd-session", "systemd-logind", "dropbear", "getty", "agetty", "login"}
_SCREEN = {
    "Xorg",
    "X",
    "Xwayland",
    "Xvfb",
    "gnome-shell",
    "kwin_wayland",
    "kwin_x11",
    "weston",
    "sway",
    "mutter",
    "gdm",
    "sddm",
    "lightdm",
}


@dataclass(frozen=True, slots=True)
class Protected:
    """The commands that the user's own configuration protects, read once a run."""

    commands: frozenset[str] = frozenset()

    @classmethod
    def load(cls) -> Protected:
        """From `protected = ["name", ...]` in the config files; InputError for what cannot be read as that."""
        commands: set[str] = set()
        for path, content in config_files():
            commands.update(strings(path, "protected", content.get("protected", []), "command names"))
        return cls(frozenset(commands))


def protection(target: ProcessTarget, protected: Protected) -> str | None:
    """Why a process (or one that it covers) must not be hit, None when it may be."""
    own = {os.getpid(), *proc.ancestors(os.getpid())}
    for identity in target.all:
        reason = _reason(identity.pid, own, protected)
        if reason is not None:
            return (
                f"{target.label}: {reason}"
                if identity == target.identity
                else f"{target.label}: pid {identity.pid} below it {reason}"
            )
    return None


def group_protection(target: CgroupTarget | NetnsTarget, protected: Protected) -> str | None:
    """Why a cgroup (a container) or a network namespace must not be hit because of who is in it, None when it may be.

    What Squall itself has put into a target's cgroup is no reason; ways in and screens count where they are this
    machine's, and not those of a container with pids of its own.
    """
    own = {1, os.getpid(), *proc.ancestors(os.getpid())}
    if isinstance(target, NetnsTarget):
        home = (target.namespace.device, target.namespace.inode)
        if any(namespaces.network_of(pid) == home for pid in own):
            return f"{target.label} is the one of pid 1, of Squall itself or of one of its ancestors"
    here = _pid_namespace("self")
    for pid in target.processes():
        if pid in own:
            return f"{target.label} holds pid {pid}, which is pid 1, Squall itself or one of its ancestors"
        reason = _named_reason(pid, protected, ours=_pid_namespace(pid) == here)
        if reason is not None:
            return f"{target.label} holds pid {pid}, which {reason}"
    return None


def _pid_namespace(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _reason(pid: int, own: set[int], protected: Protected) -> str | None:
    stat = proc.read_stat(pid)
    if pid == 1:
        return "is pid 1, the system's own"
    if pid in own:
        return "is Squall itself or one of its ancestors"
    if stat is not None and stat.kernel_thread:
        return "is a thread of the kernel"
    if proc.environment_value(pid, OWN_MARK) is not None:
        return "is a part of Squall"
    return _named_reason(pid, protected, ours=True)


def _named_reason(pid: int, protected: Protected, *, ours: bool) -> str | None:
    """A reason that lies in what the process is called; `ours`: it is one of this machine's own, not of a container's."""
    stat = proc.read_stat(pid)
    names = command_names(proc.command_line(pid)) | ({stat.comm} if stat is not None else set())
    groups = (
        ({"squall"}, "is a part of Squall"),
        (_WAY_IN if ours else set(), "is a way into this machine"),
        (_SCREEN if ours else set(), "is the display server"),
        (protected.commands, "is protected by the configuration"),
    )
    return next((why for group, why in groups if names & group), None)
