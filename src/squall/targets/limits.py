"""What is never hit, whoever asks: pid 1, kernel threads, Squall and its ancestors, the way in, the screen, what the user lists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from squall.errors import InputError
from squall.kernel import proc
from squall.targets.process import ProcessTarget, command_names

__all__ = ["OWN_MARK", "Protected", "protection"]

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
        """From `protected = ["name", ...]` in the config: $SQUALL_CONFIG, else /etc/squall/config.toml and ~/.config/squall/config.toml.

        InputError for a file that cannot be read: what was meant to be protected must not be guessed.
        """
        named = os.environ.get("SQUALL_CONFIG")
        home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
        paths = [Path(named)] if named else [Path("/etc/squall/config.toml"), Path(home) / "squall/config.toml"]
        commands: set[str] = set()
        for path in paths:
            if not named and not path.is_file():
                continue
            import tomllib  # only here: a guardian starts without it

            try:
                listed = tomllib.loads(path.read_text()).get("protected", [])
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise InputError(f"{path}: the configuration cannot be read: {error}") from error
            if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                raise InputError(f"{path}: `protected` must be a list of command names")
            commands.update(listed)
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


def _reason(pid: int, own: set[int], protected: Protected) -> str | None:
    stat = proc.read_stat(pid)
    names = command_names(proc.command_line(pid)) | ({stat.comm} if stat is not None else set())
    if pid == 1:
        return "is pid 1, the system's own"
    if pid in own:
        return "is Squall itself or one of its ancestors"
    if stat is not None and stat.kernel_thread:
        return "is a thread of the kernel"
    if "squall" in names or proc.environment_value(pid, OWN_MARK) is not None:
        return "is a part of Squall"
    groups = (
        (_WAY_IN, "is a way into this machine"),
        (_SCREEN, "is the display server"),
        (protected.commands, "is protected by the configuration"),
    )
    return next((why for group, why in groups if names & group), None)
