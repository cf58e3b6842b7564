"""The guardian's own cgroup comes and goes with it, and never takes the guardian along."""

from __future__ import annotations

from pathlib import Path

from squall.actions import GuardianCgroup
from squall.actions.guardian_cgroup import place_for_guardian
from squall.kernel import cgroups
from tests import specimens


def test_it_is_made_and_taken_away_and_its_process_goes_on() -> None:
    with specimens.own_cgroup() as parent, specimens.sleeper() as guardian:
        (parent / "cgroup.procs").write_text(str(guardian.pid))
        action = GuardianCgroup(str(parent / "squall-guardian-run"), guardian.identity).prepare()
        action.undo()
        assert action.verify().normal
        action.do()
        assert not action.verify().normal
        assert cgroups.of_process(guardian.pid)[""] == f"/{parent.name}/squall-guardian-run"
        action.undo()
        action.undo()
        assert action.verify().normal
        assert cgroups.of_process(guardian.pid)[""] == f"/{parent.name}"
        assert guardian.popen.poll() is None


def test_it_goes_when_the_guardian_has_ended() -> None:
    with specimens.own_cgroup() as parent:
        with specimens.sleeper() as guardian:
            action = GuardianCgroup(str(parent / "squall-guardian-run"), guardian.identity)
            action.do()
        action.undo()
        assert action.verify().normal
        assert not Path(action.folder).exists()


def test_a_place_is_named_only_where_one_is_needed() -> None:
    place = place_for_guardian("some-run")
    in_a_group = cgroups.of_process().get("", "/") != "/"
    assert place is None or (in_a_group and place.endswith("/squall-guardian-some-run"))
    assert not (place is not None and Path(place).exists())
