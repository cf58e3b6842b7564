"""A cgroup of a process's own: made, nested, taken away; nobody else is moved."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from squall.actions import OwnCgroup, decode, encode
from squall.errors import CannotInject, TargetError
from squall.kernel import cgroups
from squall.targets import ProcessIdentity
from tests.specimens import elsewhere, python, sleeper, wait_for

pytestmark = pytest.mark.kernel

_FORKS = """
import os, time
child = os.fork()
if child == 0:
    time.sleep(600)
print("ready")
while True:
    time.sleep(600)
"""


def _where(pid: int) -> str:
    return cgroups.folders_of(pid)[""]


def _action(pid: int, name: str = "t", *, descendants: bool = False) -> OwnCgroup:
    return OwnCgroup(ProcessIdentity.of(pid), "sleep", f"{name}-{os.getpid()}.{pid}", descendants)


def test_only_the_process_is_moved_and_it_comes_back() -> None:
    with sleeper() as one, sleeper() as other:
        home = _where(one.pid)
        action = _action(one.pid).prepare()
        action.do()
        assert _where(one.pid) == action.folder != home
        assert _where(other.pid) == home
        assert not action.verify().normal
        action.undo()
        assert _where(one.pid) == home
        assert not Path(action.folder).exists()
        assert action.verify().normal
        action.undo()  # again, and nothing happens


def test_what_it_forked_is_moved_when_asked_and_what_it_forks_comes_back_too() -> None:
    with python(_FORKS) as parent:
        child = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        home = _where(child)
        action = _action(parent.pid).prepare()
        action.do()
        assert (_where(parent.pid), _where(child)) == (action.folder, home)
        action.undo()
        action = _action(parent.pid, descendants=True).prepare()
        action.do()
        assert _where(child) == action.folder
        action.undo()
        assert _where(child) == home
        os.kill(child, 9)


@pytest.mark.parametrize("first", ["outer", "inner"])
def test_groups_are_nested_and_end_in_any_order(first: str) -> None:
    with sleeper() as one:
        home = _where(one.pid)
        outer = _action(one.pid, "outer").prepare()
        outer.do()
        inner = _action(one.pid, "inner").prepare()
        inner.do()
        assert inner.home == home
        assert _where(one.pid) == inner.folder == f"{outer.folder}/{Path(inner.folder).name}"
        ends = [outer, inner] if first == "outer" else [inner, outer]
        for action in ends:
            action.undo()
            assert action.verify().normal
        assert _where(one.pid) == home
        assert not Path(outer.folder).exists()


def test_a_bare_interpreter_undoes_it_from_the_journal() -> None:
    with sleeper() as one:
        home = _where(one.pid)
        action = _action(one.pid).prepare()
        action.do()
        assert decode(encode(action)) == action
        done = elsewhere(
            "import json; from squall.actions import decode; a = decode(json.loads(sys.argv[1])); a.undo(); print(a.verify().normal)",
            json.dumps(encode(action)),
        )
        assert done.stdout.strip() == "True", done.stderr
        assert _where(one.pid) == home


def test_a_process_that_ended_leaves_no_group() -> None:
    with sleeper() as one:
        action = _action(one.pid).prepare()
        action.do()
        one.popen.kill()
        one.popen.wait()
        wait_for(lambda: not Path(action.folder, "cgroup.procs").read_text(), "the group is empty")
        action.undo()
        assert not Path(action.folder).exists()
    with sleeper() as one:
        late = _action(one.pid).prepare()
        one.popen.kill()
        one.popen.wait()
        with pytest.raises(TargetError, match="has ended"):
            _ = late.prepare()
        with pytest.raises(TargetError, match="ended before"):
            late.do()
        late.undo()
        assert late.verify().normal


def test_where_it_cannot_be_seen_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: ())
    with sleeper() as one, pytest.raises(CannotInject, match="no cgroup v2"):
        _action(one.pid).prepare()
