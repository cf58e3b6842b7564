"""How long each x86-64 instruction is: enough to know where instructions begin, no more (Intel SDM vol. 2, appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Undecodable", "instructions", "length"]

_LONGEST = 15
_LEGACY = frozenset(b"\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65")
_WIDE, _NARROW_OPERAND, _NARROW_ADDRESS = 8, 0x66, 0x67


class Undecodable(ValueError):  # noqa: N818 - reads as what it says
    """There is no instruction here, or none that is known."""


def _bytes(*ranges: int | tuple[int, int]) -> frozenset[int]:
    return frozenset(
        value for one in ranges for value in (range(one[0], one[1] + 1) if isinstance(one, tuple) else (one,))
    )


# The map of one-byte opcodes.
_ARITHMETIC = frozenset(row * 8 + column for row in range(8) for column in range(4))
_MODRM = _ARITHMETIC | _bytes(
    0x63, 0x69, 0x6B, (0x80, 0x81), (0x83, 0x8F), 0xC0, 0xC1, 0xC6, 0xC7, (0xD0, 0xD3), (0xD8, 0xDF), 0xF6, 0xF7, 0xFE, 0xFF
)  # fmt: skip
_BYTE = frozenset(row * 8 + 4 for row in range(8)) | _bytes(
    0x6A, 0x6B, (0x70, 0x7F), 0x80, 0x83, 0xA8, (0xB0, 0xB7), 0xC0, 0xC1, 0xC6, 0xCD, (0xE0, 0xE7), 0xEB
)  # fmt: skip
_WORD_OR_LONG = frozenset(row * 8 + 5 for row in range(8)) | _bytes(0x68, 0x69, 0x81, 0xA9, (0xB8, 0xBF), 0xC7)
_LONG = _bytes(0xE8, 0xE9)
_PLAIN = _bytes(
    (0x50, 0x5F), (0x6C, 0x6F), (0x90, 0x99), (0x9B, 0x9F), (0xA4, 0xA7), (0xAA, 0xAF), 0xC3, 0xC9, 0xCB, 0xCC, 0xCF,
    0xD7, (0xEC, 0xEF), 0xF1, 0xF4, 0xF5, (0xF8, 0xFD),
)  # fmt: skip

# The map behind 0F.
_PLAIN_0F = _bytes((0x05, 0x09), 0x0B, (0x30, 0x37), 0x77, (0xA0, 0xA2), (0xA8, 0xAA), (0xC8, 0xCF))
_LONG_0F = _bytes((0x80, 0x8F))
_BYTE_0F = _bytes((0x70, 0x73), 0xA4, 0xAC, 0xBA, 0xC2, (0xC4, 0xC6))
_NONE_0F = _bytes(0x04, 0x0A, 0x0C, 0x0E, 0x0F, (0x24, 0x27), 0x39, (0x3B, 0x3F), (0xA6, 0xA7))


_ALONE = dict.fromkeys(_PLAIN, 0) | dict.fromkeys((0xC2, 0xCA), 2) | {0xC8: 3}  # ENTER has 16 and 8 bits
_ALONE |= dict.fromkeys(_LONG, 4) | dict.fromkeys(range(0xA0, 0xA4), 8)
"""What follows opcodes that have no ModRM and are the same with any operand size."""


def length(code: bytes, at: int) -> int:
    """The length in bytes of the instruction that begins at an offset; Undecodable where none does."""
    end, operand_narrow, address_narrow, wide = at, False, False, False
    while end < len(code) and code[end] in _LEGACY and end - at < _LONGEST:
        operand_narrow |= code[end] == _NARROW_OPERAND
        address_narrow |= code[end] == _NARROW_ADDRESS
        end += 1
    try:
        if 0x40 <= code[end] <= 0x4F:  # noqa: PLR2004 - REX
            wide = bool(code[end] & _WIDE)
            end += 1
        opcode = code[end]
        end = _end(code, end + 1, opcode, 2 if operand_narrow and not wide else 4)
    except IndexError:
        raise Undecodable(f"the code ends within an instruction at {at:#x}") from None
    if wide and 0xB8 <= opcode <= 0xBF:  # noqa: PLR2004 - MOV r64, imm64
        end += 4
    elif address_narrow and 0xA0 <= opcode <= 0xA3:  # noqa: PLR2004 - MOV with an absolute address
        end -= 4
    if end - at > _LONGEST or end > len(code):
        raise Undecodable(f"no instruction is as long as the one at {at:#x}")
    return end - at


def _end(code: bytes, at: int, opcode: int, immediate: int) -> int:
    """Where an instruction ends; `at` is behind its opcode, `immediate` the size of an operand-sized one."""
    if opcode == 0x0F:  # noqa: PLR2004
        return _second_map(code, at)
    if opcode in (0xC4, 0xC5, 0x62):
        return _vector(code, at, opcode)
    if opcode in _ALONE:
        return at + _ALONE[opcode]
    if opcode not in _MODRM | _BYTE | _WORD_OR_LONG:
        raise Undecodable(f"{opcode:#04x} begins no instruction")
    if opcode in (0xF6, 0xF7):  # TEST has an immediate; NOT, NEG, MUL and DIV have none
        tests = (code[at] >> 3 & 7) < 2  # noqa: PLR2004
        return at + _modrm(code, at) + (0 if not tests else 1 if opcode == 0xF6 else immediate)  # noqa: PLR2004
    at += _modrm(code, at) if opcode in _MODRM else 0
    return at + (1 if opcode in _BYTE else immediate if opcode in _WORD_OR_LONG else 0)


def _second_map(code: bytes, at: int) -> int:
    opcode, at = code[at], at + 1
    if opcode == 0x38:  # noqa: PLR2004
        return at + 1 + _modrm(code, at + 1)
    if opcode == 0x3A:  # noqa: PLR2004
        return at + 2 + _modrm(code, at + 1)
    if opcode in _PLAIN_0F:
        return at
    if opcode in _LONG_0F:
        return at + 4
    if opcode in _NONE_0F:
        raise Undecodable(f"0f {opcode:02x} begins no instruction")
    return at + _modrm(code, at) + (opcode in _BYTE_0F)


def _vector(code: bytes, at: int, prefix: int) -> int:
    """VEX (C4, C5) and EVEX (62): the map is in the prefix, the rest is as behind 0F."""
    if prefix == 0xC5:  # noqa: PLR2004
        map_, at = 1, at + 1
    elif prefix == 0xC4:  # noqa: PLR2004
        map_, at = code[at] & 0x1F, at + 2
    else:
        map_, at = code[at] & 7, at + 3
    opcode, at = code[at], at + 1
    if map_ == 1:
        return at if opcode == 0x77 else at + _modrm(code, at) + (opcode in _BYTE_0F)  # noqa: PLR2004
    if map_ in (2, 5, 6):
        return at + _modrm(code, at)
    if map_ == 3:  # noqa: PLR2004
        return at + _modrm(code, at) + 1
    raise Undecodable(f"there is no map {map_}")


def _modrm(code: bytes, at: int) -> int:
    """The bytes of ModRM, SIB and displacement."""
    mode, rm = code[at] >> 6, code[at] & 7
    if mode == 3:  # noqa: PLR2004 - a register
        return 1
    size = 1
    if rm == 4:  # noqa: PLR2004 - a SIB byte follows
        size += 1
        if mode == 0 and code[at + 1] & 7 == 5:  # noqa: PLR2004 - no base but a displacement
            size += 4
    elif rm == 5 and mode == 0:  # noqa: PLR2004 - relative to the next instruction
        size += 4
    return size + (0, 1, 4)[mode]


def instructions(code: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each instruction, one after another from a first one; Undecodable at one that is not known."""
    at = begin
    while at < end:
        size = length(code, at)
        yield at, size
        at += size
