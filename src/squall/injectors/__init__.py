"""INJECT: which steps make a fault real here. One mechanism a file, pure planners, and the chooser between them.

Nothing in here changes the machine: a plan is a list of steps that the engine hands to the executor. To add a
mechanism, write a class with `capable` and `plan` and name it in `INJECTORS` below.
"""

from squall.injectors.base import Capability, Host, Injector, Plan, Refusal, Site
from squall.injectors.chooser import Choice, Chooser
from squall.injectors.clock import ClockInjector
from squall.injectors.dns import DnsInjector, DnsRedirectInjector
from squall.injectors.entry_patch import EntryPatchInjector
from squall.injectors.file_limit import FileLimitInjector
from squall.injectors.hijack import HijackInjector
from squall.injectors.line import LineInjector
from squall.injectors.lsm import SecurityHookInjector
from squall.injectors.middleware import MiddlewareInjector
from squall.injectors.netem import HtbInjector, NetemInjector
from squall.injectors.network import NetworkFilterInjector
from squall.injectors.pause import PauseInjector
from squall.injectors.proxy import ProxyInjector
from squall.injectors.python_hook import PythonHookInjector
from squall.injectors.seccomp import SeccompInjector
from squall.injectors.signals import SignalInjector
from squall.injectors.socket_errno import SocketErrnoInjector
from squall.injectors.stress import StressInjector
from squall.injectors.syscall_patch import SyscallPatchInjector
from squall.injectors.tcp_policy import PolicyByLine, PolicyByQueue
from squall.injectors.uprobe import UprobeDegradeInjector, UprobePanicInjector

__all__ = ["INJECTORS", "Capability", "Choice", "Chooser", "Host", "Injector", "Plan", "Refusal", "Site"]

INJECTORS: tuple[Injector, ...] = (
    SignalInjector(),
    PauseInjector(),
    FileLimitInjector(),
    ClockInjector(),
    StressInjector(),
    LineInjector(),
    NetemInjector(),
    HtbInjector(),
    PolicyByQueue(),
    PolicyByLine(),
    DnsInjector(),
    DnsRedirectInjector(),
    SyscallPatchInjector(),
    SecurityHookInjector(),
    SocketErrnoInjector(),
    SeccompInjector(),
    UprobeDegradeInjector(),
    UprobePanicInjector(),
    EntryPatchInjector(),
    PythonHookInjector(),
    ProxyInjector(),
    NetworkFilterInjector(),
    HijackInjector(),
    MiddlewareInjector(),
)
"""Every mechanism that there is; the chooser decides between those that can make the same fault real."""
