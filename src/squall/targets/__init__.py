"""WHERE: what a fault happens to. Identity, selection and limits; standard library only; nothing in here changes anything.

A selector resolves to targets; selection picks some of them by a seed; limits refuse what must never be hit. A target
has an identity that cannot be mistaken for its successor's.
"""

from squall.targets.base import Target
from squall.targets.cgroup import CgroupTarget, find_cgroup
from squall.targets.container import find_containers
from squall.targets.identity import ProcessIdentity
from squall.targets.limits import Protected, group_protection, protection
from squall.targets.middleware import MiddlewareTarget, find_middleware
from squall.targets.netns import NetnsTarget, find_netns
from squall.targets.process import ProcessTarget, find_processes
from squall.targets.route import RouteTarget
from squall.targets.selection import Mode, pick

__all__ = [
    "CgroupTarget",
    "MiddlewareTarget",
    "Mode",
    "NetnsTarget",
    "ProcessIdentity",
    "ProcessTarget",
    "Protected",
    "RouteTarget",
    "Target",
    "find_cgroup",
    "find_containers",
    "find_middleware",
    "find_netns",
    "find_processes",
    "group_protection",
    "pick",
    "protection",
]
