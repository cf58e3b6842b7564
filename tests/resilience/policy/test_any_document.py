"""Whatever stands in a settings file, it is in force whole or refused whole; nothing else happens."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from squall_resilience.client import PoolSettings
from squall_resilience.errors import SettingsError
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.files import Unreadable, parse
from squall_resilience.policy.live import LiveSettings
from squall_resilience.policy.settings import PolicySettings

VALUES = st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.sampled_from(
    ["", "3s", "1m30s", "40%", "-1s", "null", "any", "all", "open", "none", "1e9h", "٣s", "s", "%", "9" * 400 + "s"]
)  # fmt: skip
ANYTHING = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
PARTS = {
    name: st.fixed_dictionaries({}, optional={field.name: ANYTHING for field in dataclasses.fields(of)}) | ANYTHING
    for name, of, _ in PolicySettings().parts()
}
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "dependencies": st.fixed_dictionaries({}, optional={"inventory": st.fixed_dictionaries({}, optional=PARTS)})
        | ANYTHING,
        "pools": st.fixed_dictionaries({}, optional={"db": ANYTHING}) | ANYTHING,
        "other": ANYTHING,
    },
)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS | ANYTHING)
def test_a_document_is_in_force_or_refused(document: Any) -> None:
    policy = Policy("inventory", PolicySettings(), registry=None)
    sizes: list[PoolSettings] = []
    live = LiveSettings("shop", registry=None)
    live.add(policy)
    live.pool("db", PoolSettings(), sizes.append)
    before = policy.settings, list(sizes)
    refusal: SettingsError | None = None
    changed: tuple[str, ...] = ()
    try:
        changed = live.apply(document)
    except SettingsError as error:
        refusal = error
    if refusal is not None:
        assert refusal.problems
        assert all(problem.path and problem.said and problem.allowed for problem in refusal.problems)
        assert (policy.settings, sizes) == before
        assert policy.links == ()
    else:
        assert (changed == ()) == ((policy.settings, sizes) == before)
        assert {link.kind for link in policy.links} == {
            name for name, _, given in policy.settings.parts() if given is not None and name != "client"
        }


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(["json", "toml", "yaml"]))
def test_any_bytes_are_a_mapping_or_an_error(content: bytes, ending: str) -> None:
    with suppress(Unreadable, SettingsError):
        assert isinstance(parse(content, f"settings.{ending}"), dict)


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS)
def test_a_cut_document_is_never_taken_for_the_whole_one(document: Any) -> None:
    text = json.dumps(document).encode()
    for end in range(len(text)):
        with suppress(Unreadable, SettingsError):
            assert parse(text[:end], "settings.json") == {}
