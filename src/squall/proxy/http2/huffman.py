"""Strings in HPACK's Huffman code (RFC 7541, appendix B). The code is canonical: the lengths say it all."""

from __future__ import annotations

import functools
from typing import Final

__all__ = ["HuffmanError", "decode"]

_LENGTHS: Final = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6"
    "f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn"
    "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
"""How many bits each symbol has, 0 to 255 and the end of the string, as digits to the base 32."""
_END: Final = 256
_PADDING_MOST: Final = 7
_REMEMBERED_BYTES_MOST: Final = 256


class HuffmanError(Exception):
    """These bytes are no Huffman-coded string."""


def _codes() -> list[tuple[int, int, int]]:
    """Length, code and symbol of each."""
    ranked = sorted((int(digit, 32), symbol) for symbol, digit in enumerate(_LENGTHS))
    codes, code, before = [], -1, ranked[0][0]
    for length, symbol in ranked:
        code = (code + 1) << (length - before)
        before = length
        codes.append((length, code, symbol))
    return codes


@functools.cache
def _steps() -> tuple[list[tuple[int, int] | None], frozenset[int]]:
    """Where four bits lead from each node of the tree, and which symbol ends on the way; the nodes that padding may end at.

    None is where no string leads: into the symbol for the end.
    """
    children: list[list[int]] = [[0, 0]]  # a node's number, or -1 - symbol; 0: nothing yet
    for length, code, symbol in _codes():
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = (code >> shift) & 1
            if not children[node][bit]:
                children.append([0, 0])
                children[node][bit] = len(children) - 1
            node = children[node][bit]
        children[node][code & 1] = -1 - symbol
    steps: list[tuple[int, int] | None] = []
    for start in range(len(children)):
        for bits in range(16):
            node, found = start, -1
            for shift in (3, 2, 1, 0):
                node = children[node][(bits >> shift) & 1]
                if node < 0:
                    node, found = 0, -1 - node
            steps.append(None if found == _END else (node, found))
    padding, node = {0}, 0
    for _ in range(_PADDING_MOST):
        node = children[node][1]
        padding.add(node)
    return steps, frozenset(padding)


def decode(data: bytes) -> bytes:
    """The string; HuffmanError for bytes that are none."""
    return _remembered(data) if len(data) <= _REMEMBERED_BYTES_MOST else _decoded(data)


def _decoded(data: bytes) -> bytes:
    steps, padding = _steps()
    node, text = 0, bytearray()
    for byte in data:
        for bits in (byte >> 4, byte & 15):
            step = steps[node << 4 | bits]
            if step is None:
                raise HuffmanError
            node, symbol = step
            if symbol >= 0:
                text.append(symbol)
    if node not in padding:
        raise HuffmanError
    return bytes(text)


_remembered = functools.lru_cache(maxsize=1024)(_decoded)
