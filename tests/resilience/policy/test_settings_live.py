"""A settings file is taken whole or refused whole, with every problem and its place; the old values stay."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from squall_resilience.errors import Problem, SettingsError
from squall_resilience.events import Event, SettingsChanged
from squall_resilience.metrics import Registry
from squall_resilience.policy.files import Unreadable, parse
from squall_resilience.policy.live import LiveSettings
from squall_resilience.policy.watching import Watcher, watch
from squall_resilience.settings import Settings, choice, count, seconds
from tests.specimens import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class ServerSettings(Settings):
    workers: int = count(8, low=1, high=100)
    patience: float = seconds(1.0)
    order: str = choice("fifo", "lifo")

    def conflicts(self) -> list[Problem]:
        return [Problem("patience", "so long", "so long with one worker")] if self.workers == 1 < self.patience else []


class Server:
    """What a service registers: it remembers what it was given."""

    def __init__(self, live: LiveSettings, name: str = "server", **base: object) -> None:
        self.given: list[ServerSettings] = []
        live.section(name, ServerSettings(**base), self.configure)  # type: ignore[arg-type]

    def configure(self, settings: ServerSettings) -> None:
        self.given.append(settings)


@pytest.fixture
def live() -> LiveSettings:
    return LiveSettings("shop", registry=None)


def events_of(live: LiveSettings) -> list[SettingsChanged]:
    told: list[SettingsChanged] = []

    def keep(event: Event) -> None:
        assert isinstance(event, SettingsChanged)
        told.append(event)

    live.listeners.add(keep)
    return told


def test_named_fields_replace_the_codes_and_the_others_stay_as_in_the_code(live: LiveSettings) -> None:
    server = Server(live, workers=20, patience=2.0)
    assert live.apply({"server": {"workers": 30}}) == ("server.workers",)
    assert live.apply({"server": {"patience": "500ms"}}) == ("server.workers", "server.patience")
    assert live.apply({}) == ("server.patience",)
    assert server.given == [
        ServerSettings(workers=30, patience=2.0),
        ServerSettings(workers=20, patience=0.5),
        ServerSettings(workers=20, patience=2.0),
    ]


def test_a_document_that_changes_nothing_configures_nothing(live: LiveSettings) -> None:
    server, told = Server(live), events_of(live)
    assert live.apply({"server": {"workers": 8}}) == ()
    assert server.given == told == []


def test_a_wrong_document_is_refused_whole_with_every_problem(live: LiveSettings) -> None:
    server, other, told = Server(live), Server(live, "other"), events_of(live)
    with pytest.raises(SettingsError) as refusal:
        live.apply(
            {
                "server": {"workers": 0, "patience": "soon", "wrkers": 1},
                "other": {"workers": 9},
                "srever": {},
                "dependencies": {"inventry": {}},
                "pools": ["db"],
            },
            "shop.yaml",
        )
    assert sorted(problem.path for problem in refusal.value.problems) == [
        "dependencies.inventry", "pools", "server.patience", "server.workers", "server.wrkers", "srever",
    ]  # fmt: skip
    assert server.given == other.given == []
    assert [(event.refused[:13], event.source) for event in told] == [("shop.yaml: 6 ", "shop.yaml")]
    assert live.refused == 1


def test_values_that_do_not_go_together_are_refused(live: LiveSettings) -> None:
    Server(live)
    with pytest.raises(SettingsError, match=r"server\.patience: so long is not so long with one worker"):
        live.apply({"server": {"workers": 1, "patience": 5}})


def test_what_its_owner_cannot_take_leaves_everything_as_it_was(live: LiveSettings) -> None:
    server = Server(live)

    def fail(settings: ServerSettings) -> None:
        if settings.workers == 9:
            raise RuntimeError("no threads left")

    live.section("stubborn", ServerSettings(), fail)
    with pytest.raises(SettingsError, match="no threads left"):
        live.apply({"server": {"workers": 50}, "stubborn": {"workers": 9}})
    assert [each.workers for each in server.given] == [50, 8]
    assert live.apply({"server": {"workers": 50}}) == ("server.workers",)


def test_one_file_for_many_services_is_passed_over_where_it_speaks_of_others() -> None:
    live = LiveSettings(unknown="keep", registry=None)
    server = Server(live)
    live.apply({"server": {"workers": 3}, "payment": {"x": 1}, "dependencies": {"ledger": {}}})
    assert server.given[-1].workers == 3


def test_what_is_registered_late_is_given_what_was_read_before() -> None:
    live = LiveSettings(unknown="keep", registry=None)
    live.apply({"server": {"workers": 3}})
    assert Server(live).given == [ServerSettings(workers=3)]


def test_a_part_has_one_owner(live: LiveSettings) -> None:
    Server(live)
    with pytest.raises(ValueError, match="server is governed already"):
        Server(live)


def test_a_pool_is_configured_at_once_and_at_each_change(live: LiveSettings) -> None:
    sizes: list[int] = []
    live.pool("db", ServerSettings(workers=4), lambda new: sizes.append(new.workers))
    live.apply({"pools": {"db": {"workers": 6}}})
    assert sizes == [4, 6]


def test_the_last_change_is_a_metric() -> None:
    registry = Registry()
    live = LiveSettings("shop", registry=registry)
    Server(live)
    before = time.time()
    live.apply({"server": {"workers": 3}}, "shop.toml")
    with pytest.raises(SettingsError):
        live.apply({"server": {"workers": -3}}, "shop.toml")
    found = {each.name: each for each in registry.samples()}
    changed = found["resilience_settings_changed_timestamp_seconds"]
    assert changed.labels == (("dependency", "server"), ("source", "shop.toml"))
    assert before <= changed.value <= time.time()
    assert found["resilience_settings_generation"].value == 1
    assert found["resilience_settings_refused_total"].value == 1


DOCUMENT = {"server": {"workers": 12, "patience": "2s"}}
AS_TEXT = {
    "json": json.dumps(DOCUMENT),
    "toml": '[server]\nworkers = 12\npatience = "2s"\n',
    "yaml": "server:\n  workers: 12\n  patience: 2s\n",
    "yml": "server: {workers: 12, patience: 2s}\n",
}


@pytest.mark.parametrize("ending", AS_TEXT)
def test_a_file_may_be_written_in_any_of_three_languages(ending: str) -> None:
    assert parse(AS_TEXT[ending].encode(), f"settings.{ending}") == DOCUMENT
    assert parse(b"", f"settings.{ending}") == {}


def test_yaml_is_read_by_whichever_library_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    assert parse(AS_TEXT["yaml"].encode(), "settings.yaml") == DOCUMENT
    with pytest.raises(Unreadable):
        parse(b"server: [", "settings.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(SettingsError, match=r"write it as \.json or \.toml, or install PyYAML or ruamel\.yaml"):
        parse(AS_TEXT["yaml"].encode(), "settings.yaml")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("settings.ini", b"", "the ending 'ini'"),
        ("settings.json", b"[1]", "a list"),
        ("settings.json", b'{"a": 1, "a": 2}', "this name, twice"),
        ("settings.json", b" " * 1_000_001, "1000001 bytes"),
    ],
)
def test_what_can_be_read_and_is_no_settings_file_is_refused(name: str, text: bytes, said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse(text, name)
    assert refusal.value.problems[0].said == said


@pytest.mark.parametrize("text", [b"{", b'{"a": 1', b"\xff\xfe", b"[" * 5000])
def test_what_cannot_be_read_may_not_be_whole_yet(text: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(text, "settings.json")


@pytest.fixture
def watched(live: LiveSettings, tmp_path: Path) -> Iterator[tuple[Path, Server, Watcher]]:
    server = Server(live)
    path = tmp_path / "settings.json"
    path.write_text("{}")
    with watch(path, live, period=0.02) as watcher:
        yield path, server, watcher


def workers(server: Server) -> int:
    return server.given[-1].workers if server.given else 8


def test_a_change_is_in_force_soon(watched: tuple[Path, Server, Watcher]) -> None:
    path, server, watcher = watched
    path.write_text('{"server": {"workers": 31}}')
    wait_for(lambda: workers(server) == 31, "the new number of workers is in force")
    assert watcher.problem == ""


def test_a_file_that_is_replaced_is_followed(watched: tuple[Path, Server, Watcher]) -> None:
    path, server, _ = watched
    for number in (41, 42):
        aside = path.with_suffix(".new.json")
        aside.write_text(json.dumps({"server": {"workers": number}}))
        aside.replace(path)
        wait_for(lambda: workers(server) == number, "the new number of workers is in force")  # noqa: B023 - called at once


def test_a_mounted_configmap_swaps_its_link(live: LiveSettings, tmp_path: Path) -> None:
    server = Server(live)

    def mount(version: int) -> None:
        """What a kubelet does: a new folder, a link renamed over the old one, the old folder removed."""
        folder = tmp_path / f"..2026_11_22_{version}"
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps({"server": {"workers": version}}))
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        old = (tmp_path / "..data").resolve() if (tmp_path / "..data").exists() else None
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        if old is not None:
            (old / "settings.json").unlink()
            old.rmdir()

    mount(51)
    (tmp_path / "settings.json").symlink_to("..data/settings.json")
    with watch(tmp_path / "settings.json", live, period=0.02):
        assert workers(server) == 51
        for version in range(52, 57):
            mount(version)
            wait_for(lambda: workers(server) == version, "the new number of workers is in force")  # noqa: B023 - called at once
    assert [each.workers for each in server.given] == [51, 52, 53, 54, 55, 56]


def test_a_half_written_file_is_not_applied_until_it_is_whole(live: LiveSettings, tmp_path: Path) -> None:
    """Each prefix of this YAML is YAML too: only rest tells that it is whole."""
    pytest.importorskip("ruamel.yaml")
    server, told = Server(live), events_of(live)
    path = tmp_path / "settings.yaml"
    path.write_text("server: {workers: 61}\n")
    watcher = Watcher(path, live)
    assert watcher.check_now()
    whole = "server:\n  workers: 62\n  patience: 3s\n"
    with path.open("w") as file:
        for character in whole:
            file.write(character)
            file.flush()
            watcher._look()
    assert workers(server) == 61
    assert watcher.check_now()
    assert server.given[-1] == ServerSettings(workers=62, patience=3.0)
    assert [event.refused for event in told] == ["", ""]


def test_a_wrong_file_is_told_once_and_mended_later(watched: tuple[Path, Server, Watcher], live: LiveSettings) -> None:
    path, server, watcher = watched
    told = events_of(live)
    path.write_text('{"server": {"workers": 71}')
    wait_for(lambda: bool(watcher.problem), "the file is refused")
    for _ in range(3):
        assert not watcher.check_now()
    path.unlink()
    wait_for(lambda: "cannot be read" in watcher.problem, "the file is missed")
    assert workers(server) == 8
    path.write_text('{"server": {"workers": 72}}')
    wait_for(lambda: workers(server) == 72, "the new number of workers is in force")
    assert [bool(event.refused) for event in told] == [True, True, False]


def test_a_service_starts_with_its_own_settings_when_the_file_is_missing(live: LiveSettings, tmp_path: Path) -> None:
    server = Server(live)
    with watch(tmp_path / "settings.json", live, period=0.02) as watcher:
        assert "cannot be read" in watcher.problem
        (tmp_path / "settings.json").write_text('{"server": {"workers": 81}}')
        wait_for(lambda: workers(server) == 81, "the new number of workers is in force")
        assert watcher.check_now()


def test_a_file_that_could_never_be_read_is_refused_at_once(live: LiveSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"one of \.json, \.toml"):
        watch(tmp_path / "settings", live)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # a fork is what it is about
def test_watching_goes_on_in_a_forked_child(watched: tuple[Path, Server, Watcher]) -> None:
    path, server, _ = watched
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            path.write_text('{"server": {"workers": 91}}')
            until = time.monotonic() + 10
            while workers(server) != 91 and time.monotonic() < until:
                time.sleep(0.01)
            os.write(writing, str(workers(server)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == "91"
    os.waitpid(child, 0)


def test_who_stops_watching_is_told_no_more(watched: tuple[Path, Server, Watcher]) -> None:
    path, server, watcher = watched
    watcher.stop()
    path.write_text('{"server": {"workers": 33}}')
    assert not any(thread.name == "settings settings.json" for thread in threading.enumerate())
    assert workers(server) == 8
