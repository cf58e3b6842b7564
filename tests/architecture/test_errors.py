"""The whole tree of errors fits in one docstring, and that docstring is true."""

from __future__ import annotations

import re

from squall import errors


def documented() -> dict[str, int]:
    """Each error in the docstring's list with its depth, in order."""
    lines = re.findall(r"^( *)- `(\w+)`:", errors.__doc__ or "", re.MULTILINE)
    return {name: len(indent) // 4 for indent, name in lines}


def depth(cls: type[BaseException]) -> int:
    return len([base for base in cls.__mro__ if issubclass(base, errors.SquallError)]) - 1


def test_the_documented_tree_is_the_real_one() -> None:
    real = {name: depth(getattr(errors, name)) for name in errors.__all__}
    assert documented() == {name: real[name] for name in documented()}
    assert set(documented()) == set(real)


def test_a_child_stands_below_its_parent_in_the_documented_tree() -> None:
    above: list[str] = []
    for name, level in documented().items():
        del above[level:]
        if above:
            assert issubclass(getattr(errors, name), getattr(errors, above[-1])), (
                f"{name} does not descend from {above[-1]}"
            )
        above.append(name)


def test_every_error_ends_the_command_line_with_a_documented_status() -> None:
    assert {getattr(errors, name).exit_status for name in errors.__all__} <= {1, 2, 4, 5}
