"""A table of nftables rules in a network namespace that is a target."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from squall.actions.base import Action, Look
from squall.errors import ActionFailed, CannotInject, TargetError
from squall.kernel import namespaces
from squall.kernel.conntrack import Conntrack
from squall.kernel.namespaces import NetworkNamespace

__all__ = ["NftTable", "nft", "table_name"]

_NFT_S = 10.0
_MISSING = "No such file or directory"


def table_name(token: str) -> str:
    """The name of a step's own table: "squall-" and the step's token."""
    return "squall-" + re.sub(r"[^A-Za-z0-9]+", "-", token)[-100:]


def nft(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the network namespace in which the calling thread is; it is one transaction."""
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin")
    if program is None:
        raise CannotInject("there is no nft; Debian's package is nftables")
    return subprocess.run(
        [program, *options, "-f", "-"], input=script, capture_output=True, text=True, timeout=_NFT_S, check=False
    )


@dataclass(frozen=True)
class NftTable(Action, kind="nft-table", recoverability="guarded"):
    """Add one table of this step's own, `inet NAME`, to a network namespace; nobody else's is touched.

    `netns` is the namespace as `NetworkNamespace.to_json` gives it. `port`: where the rules redirect to; what is tracked
    as redirected there is forgotten on the way back, so that open flows go where they were meant to go.
    """

    netns: dict[str, Any]
    name: str
    rules: str
    """What stands between the table's braces."""
    port: int
    purpose: str

    @property
    def _namespace(self) -> NetworkNamespace:
        return NetworkNamespace.from_json(self.netns)

    def prepare(self) -> NftTable:  # noqa: D102 - as the base says
        with namespaces.entered(self._namespace):
            if self._listed():
                raise CannotInject(f"there is a table inet {self.name} already in {self.netns['path']}")
        return self

    def do(self) -> tuple[int, ...]:  # noqa: D102
        with namespaces.entered(self._namespace):
            done = nft(f"table inet {self.name} {{\n{self.rules}\n}}\n")
        if done.returncode:
            raise ActionFailed(f"nft: {_said(done)}")
        return ()

    def undo(self) -> None:  # noqa: D102
        with contextlib.suppress(TargetError), namespaces.entered(self._namespace):
            done = nft(f"delete table inet {self.name}\n")
            if done.returncode and _MISSING not in done.stderr:
                raise ActionFailed(f"nft: {_said(done)}")
            with contextlib.suppress(OSError), Conntrack() as tracked:
                tracked.forget(self.port)

    def verify(self) -> Look:  # noqa: D102
        try:
            with namespaces.entered(self._namespace):
                there = self._listed()
        except TargetError:
            return Look(normal=True, detail="the network namespace is gone")
        if there:
            return Look(normal=False, detail=f"the table inet {self.name} is still in {self.netns['path']}")
        return Look(normal=True, detail="the table is gone")

    def _listed(self) -> bool:
        done = nft("list tables inet\n")
        if done.returncode:
            raise CannotInject(f"nft cannot look: {_said(done)}")
        return f"table inet {self.name}" in done.stdout.splitlines()

    def objects(self) -> tuple[str, ...]:  # noqa: D102
        return (f"nft:{self._namespace.key}:{self.name}",)

    def describe(self) -> str:  # noqa: D102
        return f"add the table inet {self.name} to {self.netns['path']}: {self.purpose}"

    def describe_undo(self) -> str:  # noqa: D102
        return f"nsenter --net={self.netns['path']} nft delete table inet {self.name}"


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split())[:400] or f"exit status {done.returncode}"
