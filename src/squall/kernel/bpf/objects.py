"""The built objects: found by name, told apart by the hash of their source. Pure: reads files only."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from squall.errors import CannotInject

__all__ = ["Object", "names"]

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "objects")
_SUFFIX = ".bpf.o"
_SOURCE_SECTION = ".squall.source"
_ELF64_LITTLE = b"\x7fELF\x02\x01"


def names() -> list[str]:
    """Every object that this Squall brings."""
    return sorted(name.removesuffix(_SUFFIX) for name in os.listdir(_FOLDER) if name.endswith(_SUFFIX))


@dataclass(frozen=True, slots=True)
class Object:
    """One built object by its name, "network" for bpf/network.bpf.c."""

    name: str

    @property
    def path(self) -> str:
        """Where it is; CannotInject when this installation lacks it."""
        path = os.path.join(_FOLDER, self.name + _SUFFIX)
        if not os.path.isfile(path):
            raise CannotInject(f"the installation is damaged: {path} is not there")
        return path

    def source_hash(self) -> str:
        """SHA-256 (hex) of the sources that it was built from, as the build wrote it into it; "" for none."""
        with open(self.path, "rb") as file:
            return _section(file.read(), _SOURCE_SECTION).decode("ascii", "replace")


def _section(image: bytes, wanted: str) -> bytes:
    """The contents of an ELF section, empty where there is none (elf(5))."""
    if not image.startswith(_ELF64_LITTLE):
        return b""
    offset, size, number, strings = struct.unpack_from("<Q", image, 40)[0], *struct.unpack_from("<HHH", image, 58)
    headers = [struct.unpack_from("<IIQQQQ", image, offset + index * size) for index in range(number)]
    names_at = headers[strings][4]
    for name, _, _, _, at, length in headers:
        begin = names_at + name
        if image[begin : image.index(b"\0", begin)].decode() == wanted:
            return image[at : at + length]
    return b""
