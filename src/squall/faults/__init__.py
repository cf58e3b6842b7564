"""WHAT goes wrong: one frozen model a fault, in files named by family. No I/O, no mechanism, no target may enter.

A fault here is the only definition of it: the document's YAML, the command line's options, the JSON Schema, the docs
and the mechanisms in `injectors` all derive from the model. To add one, see CONTRIBUTING.md, "How to add a fault".
"""

from squall.faults import dns, grpc, handlers, http, io, network, process, stress, syscall, tcp, time
from squall.faults.base import FAULTS, Fault, fault_model, fault_types, parse_fault

__all__ = [
    "FAULTS",
    "Fault",
    "dns",
    "fault_model",
    "fault_types",
    "grpc",
    "handlers",
    "http",
    "io",
    "network",
    "parse_fault",
    "process",
    "stress",
    "syscall",
    "tcp",
    "time",
]
