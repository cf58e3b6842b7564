"""What a model finds wrong with a document: every error at once, each with place, path, the allowed and the nearest."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from squall.documents import load, nearest, problems_from_pydantic
from squall.units import Duration, Within


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)] = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    nap: Annotated[Duration, Within("1s", "1h")]


class House(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    steady_state: Literal["calm", "wild"] = Field("calm", alias="steadyState")
    rooms: dict[str, Cat | None] = {}
    names: dict[Annotated[str, Field(max_length=3)], str] = {}
    owner: str | None = None

    @field_validator("owner")
    @classmethod
    def _not_a_cat(cls, value: str | None) -> str | None:
        if value == "cat":
            raise ValueError("a cat owns no house")
        return value


def said(text: str) -> list[str]:
    document = load(text, "h.yaml")
    with pytest.raises(ValidationError) as caught:
        House.model_validate(document.value)
    return [str(problem) for problem in problems_from_pydantic(caught.value, document, House)]


def test_unknown_keys_name_the_allowed_ones_and_the_nearest() -> None:
    first, second = said("pets: [{kind: cat, live: 3}]\nsteady_sate: calm\n")
    assert first == "h.yaml:1:20: pets[0].live: is not known here; did you mean 'lives'? (allowed: kind, lives)"
    allowed = "names, owner, pets, rooms, steadyState"
    assert second == f"h.yaml:2:1: steady_sate: is not known here; did you mean 'steadyState'? (allowed: {allowed})"


def test_wrong_values_say_what_is_allowed() -> None:
    assert said(
        "pets:\n  - {kind: cat, lives: 10}\n  - {kind: dgo}\n  - {nap: 3}\n  - {kind: dog, nap: 2h}\n  - {kind: dog}\n"
        "steadyState: wlid\nowner: cat\n"
    ) == [
        "h.yaml:2:24: pets[0].lives: 10: must be at most 9",
        "h.yaml:3:12: pets[1].kind: 'dgo' is not allowed here; did you mean 'dog'? (allowed: cat, dog)",
        "h.yaml:4:5: pets[2].kind: is missing: it says which kind this is",
        "h.yaml:5:22: pets[3].nap: '2h' is out of range: 1s to 1h is allowed",
        "h.yaml:6:5: pets[4].nap: is missing",
        "h.yaml:7:14: steadyState: 'wlid' is not allowed here; did you mean 'wild'? (allowed: calm, wild)",
        "h.yaml:8:8: owner: a cat owns no house",
    ]


def test_keys_of_mappings_and_members_of_unions_have_their_places() -> None:
    assert said("pets: []\nrooms:\n  bath: {kind: cat, lvies: 2}\nnames: {long-name: x}\n") == [
        "h.yaml:3:21: rooms.bath.lvies: is not known here; did you mean 'lives'? (allowed: kind, lives)",
        "h.yaml:4:9: names.long-name: 'long-name': is too long: at most 3 characters are allowed",
    ]


def test_a_missing_part_and_a_wrong_root_are_said_at_the_root() -> None:
    assert said("owner: me\n") == ["h.yaml:1:1: pets: is missing"]
    assert said("- 1\n")[0].startswith("h.yaml:1:1: document: a list: must be a mapping")


def test_problems_below_a_path_carry_that_path() -> None:
    document = load("spec:\n  pets:\n    - {kind: cat, lifes: 1}\n", "h.yaml")
    with pytest.raises(ValidationError) as caught:
        House.model_validate(document.value["spec"])
    (problem,) = problems_from_pydantic(caught.value, document, House, at=("spec",))
    assert (str(problem.place), problem.path, problem.nearest) == ("h.yaml:3:19", ("spec", "pets", 0, "lifes"), "lives")


def test_spellings_that_differ_only_in_case_or_strokes_are_nearest() -> None:
    assert nearest("errorrate", ["errorRate", "p95"]) == "errorRate"
    assert nearest("slow-close", ["tcp.slow", "slow_close"]) == "slow_close"
    assert nearest("zzz", ["errorRate"]) == ""
