"""The user's own configuration of this machine, read when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squall.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["config_files", "strings"]


def config_files() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each config file with what it holds: $SQUALL_CONFIG, else /etc/squall/config.toml and ~/.config/squall/config.toml.

    InputError for a file that cannot be read: what the user meant must not be guessed.
    """
    named = os.environ.get("SQUALL_CONFIG")
    home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    paths = [Path(named)] if named else [Path("/etc/squall/config.toml"), Path(home) / "squall/config.toml"]
    for path in paths:
        if not named and not path.is_file():
            continue
        import tomllib  # only here: a guardian starts without it

        try:
            yield path, tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path}: the configuration cannot be read: {error}") from error


def strings(path: Path, key: str, value: object, what: str) -> list[str]:
    """This key's value as the list of texts that it must be; InputError for anything else."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{path}: `{key}` must be a list of {what}")
    return value
