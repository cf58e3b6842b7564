"""What a person sees while a run is on, fed with events as a run makes them."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from squall.cli.progress import Progress, sentence
from squall.events import (
    KINDS,
    AbortTriggered,
    Event,
    FaultEnded,
    FaultHits,
    FaultStarted,
    ProbeWindow,
    StageEntered,
    Stamp,
    Stamped,
    SteadyStateChecked,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def stamped(event: Event) -> Stamped:
    return Stamped(Stamp("a-run", 0, 0, 0), event)


class Figures:
    """Something more to show, as the demo has it."""

    say: Callable[[str], None]

    def rows(self) -> list[Any]:
        return ["workers busy"]


def drawn(progress: Progress) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(progress._panel())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_panel_shows_stage_probes_and_hits() -> None:
    progress = Progress(Figures())
    for event in (
        StageEntered("monitor", 60_000_000_000), FaultStarted("0-tcp.latency", 3_000_000),
        ProbeWindow("orders", 50, 10, 300_000_000), ProbeWindow("orders", 50, 0, 20_000_000),
        FaultHits("0-tcp.latency", {"connections": 1234}),
    ):  # fmt: skip
        progress.hear(stamped(event))
    panel = drawn(progress)
    for said in (
        "fault is on",
        "s left",
        "orders",
        "20.0 ms",
        "0%",
        "connections 1,234",
        "abort ceiling",
        "workers busy",
    ):
        assert said in panel
    assert all(len(line) <= 100 for line in panel.splitlines())


def test_without_a_terminal_there_are_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squall.cli.progress._FIGURES_S", 0.0)
    with Progress() as progress:
        for event in (
            StageEntered("define", 1_000_000_000), SteadyStateChecked("before", holds=True, detail="orders: p95 <= 300ms"),
            StageEntered("monitor", 5_000_000_000), FaultStarted("0-x", 1_500_000), ProbeWindow("orders", 10, 1, 5_000_000),
            FaultEnded("0-x", 2_000_000_000), AbortTriggered("ceiling", "too slow"), StageEntered("recover", 1_000_000_000),
        ):  # fmt: skip
            progress.hear(stamped(event))
    err = capsys.readouterr().err
    for said in (
        "watching the steady state for 1s", "the steady state holds", "0-x is ON (after 1.5 ms)", "orders p95 5.0 ms, errors 10%",
        "0-x is off, verified (after 2.00 s)", "ABORTED (ceiling): too slow", "healing, at most 1s",
    ):  # fmt: skip
        assert said in err
    assert "\x1b" not in err


def test_on_a_terminal_lines_stand_above_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Progress() as progress:
        progress.hear(stamped(StageEntered("monitor", 1_000_000_000)))
        progress.say("SIGINT: recovering; the report follows")
    assert "SIGINT: recovering" in terminal.getvalue()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_event_is_taken_in(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    cls = KINDS[kind]
    made: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        text = str(field.type)
        if text.startswith("dict"):
            made[field.name] = {}
        elif text.startswith(("list", "tuple")):
            made[field.name] = []
        elif text.startswith(("int", "float")):
            made[field.name] = 1
        elif text.startswith("bool"):
            made[field.name] = True
        else:
            made[field.name] = "recover" if field.name == "stage" else "x"
    event = cls(**made)
    Progress().hear(stamped(event))
    line = sentence(event)
    assert (line or "") in capsys.readouterr().err
