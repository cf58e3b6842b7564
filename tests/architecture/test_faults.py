"""Every fault is described well enough that its page in the reference can be made from it."""

from __future__ import annotations

import re

import pytest

from squall.faults import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_fault_says_what_the_target_feels(fault: type[Fault]) -> None:
    text = fault.__doc__ or ""
    assert text.strip(), f"{fault.type} has no docstring"
    assert text.split("\n\n")[0].rstrip().endswith("."), "its first paragraph is a sentence"


@pytest.mark.parametrize(("fault", "name"), [(fault, name) for fault in FAULTS.values() for name in fault.model_fields])
def test_a_field_says_what_it_is(fault: type[Fault], name: str) -> None:
    assert fault.model_fields[name].description, f"{fault.type}: {name} has no docstring"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_named_by_family_and_says_where_it_can_happen(fault: type[Fault]) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+(_[a-z]+)*", fault.type)
    assert fault.__module__.rpartition(".")[2] == fault.type.partition(".")[0], "a family has one file"
    assert fault.targets
