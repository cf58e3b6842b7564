"""What a stand-in is told: the calls that are expected, and how each of them is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from squall.documents import Document, DocumentError, problems_from_pydantic, read
from squall.faults.frozen import FrozenMapping, FrozenModel, JsonBody, Rows
from squall.units import Duration, Size, Within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Answer", "Drip", "Expectation", "Failure", "Match", "Script", "parse_script", "read_script"]

EXPECTATIONS_MAX = 1_000
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_BODILESS = frozenset({204, 304})

Failure = Literal["close", "reset", "cut", "malformed", "hang"]
"""How an answer fails: `close` and `reset` end the connection before it, `cut` in the middle of its body, `malformed`
sends bytes that are no HTTP, `hang` never answers."""


def _as_text(value: object) -> object:
    """A number or truth value as the text that travels in a query or a header."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


Written = Annotated[str, Field(max_length=4096), BeforeValidator(_as_text)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=256)]
HeaderValue = Annotated[
    str, Field(pattern="^(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?$", max_length=4096)
]
Times = Annotated[int, Field(ge=1, le=1_000_000)]


class Match(FrozenModel):
    """Which calls an expectation is about: all conditions that are given must hold."""

    method: Annotated[str, Field(pattern=r"^[A-Za-z]+$", max_length=32)] | None = None
    """The method, in any case."""
    path: Annotated[str, Field(pattern=r"^(?:/|\*)", max_length=2048)] | None = None
    """The path without its query; `{name}` stands for one segment, `*` for any characters ("/items/{id}", "/files/*")."""
    query: FrozenMapping[str, Written] = {}
    """Query parameters that must be there; a value may hold `*`."""
    headers: FrozenMapping[HeaderName, Written] = {}
    """Headers that must be there; a value may hold `*`."""
    json_subset: JsonBody = Field(default=None, alias="json")
    """What the JSON body must hold at least: mappings may have more keys, lists must have the same length."""
    body: Annotated[str, Field(max_length=65_536)] | None = None
    """The body as text; may hold `*`."""

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if self.json_subset is not None and self.body is not None:
            raise ValueError("give either `json` or `body`")
        return self


class Drip(FrozenModel):
    """A body that arrives in small pieces."""

    size: Annotated[Size, Within("1B", "1MiB")]
    """The size of a piece."""
    every: Annotated[Duration, Within("1ms", "1h")]
    """The pause between two pieces."""


class Answer(FrozenModel):
    """One answer, or one way of not giving one."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    """The status."""
    headers: FrozenMapping[HeaderName, Annotated[HeaderValue, BeforeValidator(_as_text)]] = {}
    """Headers; Content-Type is set by the body where it isn't given, Content-Length always."""
    body: JsonBody = None
    """A mapping or list is sent as JSON, text as it is."""
    delay: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """How long the call waits before anything of the answer (or its failure) is seen."""
    jitter: Annotated[Duration, Within("0s", "1h")] = Duration(0)
    """The delay is drawn evenly from delay - jitter to delay + jitter, never below zero, by the script's seed."""
    drip: Drip | None = None
    """The body arrives in small pieces."""
    failure: Failure | None = None
    """How the answer fails: `close`, `reset`, `cut`, `malformed` or `hang`."""
    times: Times = 1
    """So many calls are answered like this before the next answer's turn; the last answer serves all further calls."""

    @field_validator("headers")
    @classmethod
    def _framing_is_the_servers(cls, headers: Mapping[str, str]) -> Mapping[str, str]:
        if taken := sorted(name for name in headers if name.lower() in _FRAMING):
            raise ValueError(f"{', '.join(taken)}: set by the server; use `failure` or `drip` to break an answer")
        return headers

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.failure in {"close", "reset", "malformed", "hang"}:
            sent = sorted(self.model_fields_set & {"status", "headers", "body", "drip"})
            if sent:
                raise ValueError(f"`failure: {self.failure}` sends no answer: leave out {', '.join(sent)}")
        if self.status in _BODILESS and self.body is not None:
            raise ValueError(f"an answer with status {self.status} has no body")
        if self.body is None or self.body == "":
            wants = "`failure: cut`" if self.failure == "cut" else "`drip`" if self.drip else ""
            if wants:
                raise ValueError(f"{wants} needs a `body` that is not empty")
        return self


class Expectation(FrozenModel):
    """Calls that are expected, how often, and their answers.

    Without `calls`, `atLeast` and `atMost` it is expected once or more.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What the report calls it; its method and path where no name is given."""
    match: Match = Match()
    """Which calls; without it, every call."""
    answer: Answer | None = None
    """How all of them are answered."""
    answers: Annotated[Rows[Answer], Field(max_length=EXPECTATIONS_MAX)] = ()
    """How they are answered one after the other, as in "fail twice, then succeed"; the last serves all further calls."""
    calls: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """How many calls there must be, exactly."""
    at_least: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """How many calls there must be at least; 0 makes it optional."""
    at_most: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """How many calls there may be; a further one is unexpected, unless another expectation takes it."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.answer is None) == (not self.answers):
            raise ValueError("give either `answer` or a list of `answers`")
        if self.calls is not None and (self.at_least is not None or self.at_most is not None):
            raise ValueError("give either `calls` or `atLeast` and `atMost`")
        if self.most is not None and self.least > self.most:
            raise ValueError(f"`atLeast` ({self.least}) is more than `atMost` ({self.most})")
        return self

    @property
    def least(self) -> int:
        """The fewest calls that meet it."""
        if self.calls is not None:
            return self.calls
        if self.at_least is not None:
            return self.at_least
        return 1 if self.at_most is None else min(1, self.at_most)

    @property
    def most(self) -> int | None:
        """The most calls that it takes; None is no limit."""
        return self.calls if self.calls is not None else self.at_most

    @property
    def title(self) -> str:
        """Its name, or its method and path."""
        return self.name or f"{(self.match.method or 'any method').upper()} {self.match.path or '*'}"

    def answer_to(self, number: int) -> Answer:
        """The answer to its call of this number, counted from 0."""
        if self.answer is not None:
            return self.answer
        for answer in self.answers:
            if number < answer.times:
                return answer
            number -= answer.times
        return self.answers[-1]


class Script(FrozenModel):
    """All that a stand-in knows."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "stand-in"
    """What the report calls the stand-in."""
    in_order: bool = False
    """The expectations must be met in the order they are written in; otherwise the first that matches takes a call."""
    seed: int = 0
    """Decides what is drawn (jitter)."""
    expectations: Annotated[Rows[Expectation], Field(max_length=EXPECTATIONS_MAX)]
    """The calls that are expected; at least one."""

    @field_validator("expectations")
    @classmethod
    def _not_empty(cls, expectations: tuple[Expectation, ...]) -> tuple[Expectation, ...]:
        if not expectations:
            raise ValueError("is empty: give at least one expectation")
        return expectations


def read_script(path: Path) -> Script:
    """The script in a YAML or JSON file; DocumentError lists everything that is wrong with it."""
    return _validated(read(path))


def parse_script(value: Mapping[str, Any] | Sequence[Any], source: str = "script") -> Script:
    """The script that a mapping describes, or a bare list of expectations; DocumentError as for `read_script`."""
    return _validated(Document.of(value, source))


def _validated(document: Document) -> Script:
    bare = isinstance(document.value, (list, tuple))
    value = {"expectations": document.value} if bare else document.value
    try:
        return Script.model_validate(value)
    except ValidationError as error:
        problems = problems_from_pydantic(error, document, Script)
        raise DocumentError(problems) from None
