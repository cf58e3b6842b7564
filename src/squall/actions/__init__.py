"""The only code that changes a machine: small steps that each know how to do, undo and verify themselves.

One class a file; standard library only, for the guardian undoes with nothing installed. A step names what it touches,
prepares by reading the present state, and makes only what it named, so that whoever reads the journal can undo it.
"""

from squall.actions.base import (
    ACTIONS,
    Action,
    Adjustable,
    Counted,
    Leased,
    Look,
    Recoverability,
    StandsBy,
    decode,
    encode,
)
from squall.actions.clock_skew import ClockSkew
from squall.actions.file_limit import FileLimit
from squall.actions.guardian_cgroup import GuardianCgroup
from squall.actions.hijack import Hijack
from squall.actions.kernel_worker import KernelWorker
from squall.actions.middleware_worker import MiddlewareWorker
from squall.actions.nft_table import NftTable
from squall.actions.nil_receiver import NilReceiver
from squall.actions.own_cgroup import OwnCgroup
from squall.actions.pause import Pause
from squall.actions.pause_cycle import PauseCycle
from squall.actions.proxy_route import ProxyRoute
from squall.actions.python_hook import PythonHook
from squall.actions.root_qdisc import RootQdisc
from squall.actions.route_down import RouteDown
from squall.actions.signal import Signal
from squall.actions.syscall_patch import SyscallPatch
from squall.actions.tc_filter import TcFilter
from squall.actions.toxic import Toxic
from squall.actions.worker import Worker

__all__ = [
    "ACTIONS",
    "Action",
    "Adjustable",
    "ClockSkew",
    "Counted",
    "FileLimit",
    "GuardianCgroup",
    "Hijack",
    "KernelWorker",
    "Leased",
    "Look",
    "MiddlewareWorker",
    "NftTable",
    "NilReceiver",
    "OwnCgroup",
    "Pause",
    "PauseCycle",
    "ProxyRoute",
    "PythonHook",
    "Recoverability",
    "RootQdisc",
    "RouteDown",
    "Signal",
    "StandsBy",
    "SyscallPatch",
    "TcFilter",
    "Toxic",
    "Worker",
    "decode",
    "encode",
]
