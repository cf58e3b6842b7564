"""Programs in the kernel: built objects loaded (and so verified) through libbpf, everything else by bpf(2) itself.

`Object` is pure: what a built object holds. `Collection` is privileged: its programs and maps in this kernel. Hooks say
where a program is to be attached; an attachment is a descriptor, and ends with it. `Lifecycle` binds them together.
Nothing is ever pinned.
"""

from squall.kernel.bpf.collection import Collection, Map
from squall.kernel.bpf.features import Answer, loads
from squall.kernel.bpf.hooks import CgroupHook, Hook, NetnsHook, TcxHook, TracingHook, UprobeHook
from squall.kernel.bpf.library import BpfError
from squall.kernel.bpf.lifecycle import Lifecycle
from squall.kernel.bpf.objects import Object

__all__ = [
    "Answer",
    "BpfError",
    "CgroupHook",
    "Collection",
    "Hook",
    "Lifecycle",
    "Map",
    "NetnsHook",
    "Object",
    "TcxHook",
    "TracingHook",
    "UprobeHook",
    "loads",
]
