"""A Go method is led through a stub, which by itself changes nothing, and back, by whoever reads the journal."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from squall.actions import NilReceiver
from squall.actions.base import encode
from squall.errors import ActionFailed, TargetError
from squall.injectors import Host
from squall.injectors.entry_patch import EntryPatchInjector
from squall.kernel import go_process, process_memory, receiver_stub
from tests import services, specimens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services import Service

pytestmark = [pytest.mark.kernel, specimens.needs_root]

ENTRY = "net/http.serverHandler.ServeHTTP"
UNDO = """
import json
from squall.actions.base import decode
action = decode(json.loads(sys.argv[1]))
action.undo()
print(action.verify().normal)
"""


@pytest.fixture(autouse=True)
def _works_here() -> None:
    capability = EntryPatchInjector().capable(Host.look())
    if not capability.works:
        pytest.skip(capability.reason)


@pytest.fixture
def go() -> Iterator[Service]:
    with services.go_service() as found:
        yield found


def step(go: Service) -> NilReceiver:
    entry = go_process.find_function(go.pid, ENTRY).address
    return NilReceiver("run/0-fault", go.identity, "handlers", ENTRY, entry)


def test_it_changes_nothing_by_itself_and_is_undone_to_the_byte(go: Service) -> None:
    action = step(go).prepare()
    was = process_memory.read(go.pid, action.entry, 64)
    assert action.do() == ()
    assert process_memory.read(go.pid, action.entry, 64) != was
    assert not action.verify().normal
    assert go.asks(200) == [200] * 200
    action.undo()
    assert process_memory.read(go.pid, action.entry, 64) == was
    assert action.verify().normal
    assert go.asks(200) == [200] * 200


def test_it_is_undone_from_the_journal_by_a_bare_interpreter(go: Service) -> None:
    action = step(go).prepare()
    was = process_memory.read(go.pid, action.entry, 64)
    action.do()
    done = specimens.elsewhere(UNDO, json.dumps(encode(action), default=vars))
    assert done.stdout == "True\n", done.stderr
    assert process_memory.read(go.pid, action.entry, 64) == was


def test_undo_is_harmless_when_it_was_never_done_twice_and_when_the_process_is_gone(go: Service) -> None:
    step(go).undo()
    action = step(go).prepare()
    action.undo()
    action.do()
    action.undo()
    action.undo()
    assert go.asks(5) == [200] * 5
    action.do()
    go.popen.kill()
    go.popen.wait()
    action.undo()
    assert action.verify().normal


def test_what_another_has_written_meanwhile_is_left(go: Service) -> None:
    action = step(go).prepare()
    was = process_memory.read(go.pid, action.entry, 5)
    action.do()
    process_memory.write(go.pid, action.entry, was)  # as somebody who put it right by hand
    process_memory.write(go.pid, action.entry + 8, b"\x90")
    changed = process_memory.read(go.pid, action.entry, 16)
    action.undo()
    assert process_memory.read(go.pid, action.entry, 16) == changed
    assert action.verify().normal


def test_code_that_changed_since_it_was_looked_at_is_not_overwritten(go: Service) -> None:
    action = step(go).prepare()
    with pytest.raises(ActionFailed, match="has been changed"):
        replace(action, before="0000000000").do()
    assert go.asks(5) == [200] * 5


def test_the_stub_that_was_left_is_used_again(go: Service) -> None:
    first = step(go).prepare()
    first.do()
    first.undo()
    again = step(go).prepare()
    assert (again.stub, again.data, again.before) == (first.stub, first.data, first.before)
    again.do()
    assert receiver_stub.placed(go.pid, again.entry) == receiver_stub.Place(again.stub, again.data, again.entry)
    again.undo()
    assert receiver_stub.placed(go.pid, again.entry) is None


def test_where_there_is_no_room_behind_the_code_the_process_maps_a_page(
    go: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_stub, "_slot", lambda *_: None)  # one program in sixteen ends so near its page's end
    first = step(go).prepare()
    assert first.page
    was = process_memory.read(go.pid, first.entry, 64)
    first.do()
    assert go.asks(100) == [200] * 100
    first.undo()
    assert first.verify().normal
    assert process_memory.read(go.pid, first.entry, 64) == was
    again = step(go).prepare()
    assert (again.stub, again.page) == (first.stub, False), "the page that is there is used"
    again.do()
    assert go.asks(100) == [200] * 100
    again.undo()
    assert process_memory.read(go.pid, first.entry, 64) == was


def test_a_process_that_has_ended_is_refused(go: Service) -> None:
    action = step(go)
    go.popen.kill()
    go.popen.wait()
    with pytest.raises(TargetError, match="has ended"):
        action.prepare()
