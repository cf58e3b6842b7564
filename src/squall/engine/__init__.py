"""Runs the five stages of one experiment, and nothing else: define, inject, monitor, analyse, recover.

General layout: `planning` resolves targets and chooses mechanisms (also for `--dry-run`); `run` is the sequence of
stages; `stages` the driving of the faults in time; `measuring` takes in the samples; `watchdog` is what can end a run
early; `control` the socket through which others look at it and stop it; `log` writes the events down.
"""

from squall.engine.control import ask, running
from squall.engine.planning import PlannedFault, plan_experiment
from squall.engine.run import Outcome, Run

__all__ = ["Outcome", "PlannedFault", "Run", "ask", "plan_experiment", "running"]
