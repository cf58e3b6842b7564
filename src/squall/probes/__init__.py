"""MONITOR: what is sampled while an experiment runs, and the open-loop load that keeps the system busy.

`spec` says what to measure (pure models, the document's spelling), one file a probe does it, `load` sends requests from
a process of its own, `samples` is the one file in which all measurements of a run end up. A probe that fails is data,
not an exception. Nothing in here judges: that is `analysis`.
"""
