"""`python demo/shop` runs the whole shop until Ctrl-C: five services, each its own process in its own session.

With `--lifeline` it runs until its standard input ends, which is how Squall's demo holds it: whatever becomes of the
one who started it, the services are killed (stopped ones too) and the folder is removed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PORTS = {"gateway": 8080, "order": 8081, "payment": 8082, "inventory": 8083, "notification": 8084}
HEALTHY_WITHIN_SECONDS = 15.0
HERE = Path(__file__).resolve().parent
PYTHON = (sys.executable, "-E", "-s", "-S")


class Ended(Exception):  # noqa: N818 - not an error
    """The shop shall end."""


class Supervisor:
    """Starts the services, waits until they are healthy, ends them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.fds = {name: int(fd) for name, fd in options.fd}
        self.ports = {**PORTS, **{name: int(port) for name, port in options.port}}
        self.reached = dict(options.to)
        self.programs = dict(options.program)
        self.folder = folder
        self.settings = options.settings
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def urls(self) -> dict[str, str]:
        """Where each service listens."""
        return {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}

    def start(self) -> None:
        """Start all five and wait until each answers."""
        for name, fd in self.fds.items():
            with socket.socket(fileno=os.dup(fd)) as bound:
                self.ports[name] = bound.getsockname()[1]
        for name in PORTS:
            self._spawn(name)
        for fd in self.fds.values():
            os.close(fd)
        deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
        for name in PORTS:
            while not self._healthy(name):
                if time.monotonic() > deadline or self.children[name].poll() is not None:
                    sys.exit(f"shop-{name} did not start; its messages are above")
                time.sleep(0.01)

    def _spawn(self, name: str) -> None:
        program = [self.programs[name]] if name in self.programs else [*PYTHON, str(HERE / f"shop-{name}")]
        command = [*program, "--data", str(self.folder)]
        command += ["--parent", str(os.getpid())]
        command += ["--settings", self.settings] if self.settings else []
        fds = [self.fds[name]] if name in self.fds else []
        command += ["--fd", str(fds[0])] if fds else ["--port", str(self.ports[name])]
        for other, url in {**self.urls, **self.reached}.items():
            command += ["--to", f"{other}={url}"]
        self.children[name] = subprocess.Popen(
            command, pass_fds=fds, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def _healthy(self, name: str) -> bool:
        """Whether it is this service that answers, not what had the port before."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=1)
        try:
            connection.request("GET", "/health")
            found: dict[str, object] = json.loads(connection.getresponse().read())
            return found.get("pid") == self.children[name].pid
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Kill every service: there is nothing in them that a kill would harm."""
        for child in self.children.values():
            child.kill()
        for child in self.children.values():
            child.wait()


def main() -> None:
    """Run the shop."""
    parser = argparse.ArgumentParser(prog="shop", description="A shop of five services, all on this machine.")
    parser.add_argument("--data", help="keep the databases in this folder (default: a temporary one)")
    named: dict[str, Any] = {"action": "append", "default": [], "type": _pair}
    parser.add_argument("--port", **named, metavar="NAME=PORT", help="let a service listen on this port")
    parser.add_argument("--to", **named, metavar="NAME=URL", help="reach a service by this address, as of a proxy")
    parser.add_argument(
        "--program", **named, metavar="NAME=PATH", help="a service's program, instead of the one beside this"
    )
    parser.add_argument("--fd", **named, metavar="NAME=FD", help="a bound socket for a service, instead of a port")
    parser.add_argument("--settings", help="a settings file that all services follow while they serve")
    parser.add_argument("--lifeline", action="store_true", help="run until standard input ends")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    folder = Path(options.data or tempfile.mkdtemp(prefix="squall-shop-"))
    folder.mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(options, folder)
    try:
        supervisor.start()
        pids = {name: child.pid for name, child in supervisor.children.items()}
        print(json.dumps({"urls": supervisor.urls, "pids": pids, "folder": str(folder)}), flush=True)
        if options.lifeline:
            select.select([sys.stdin], [], [])  # readable: it has ended, for nobody writes there
        else:
            print(f'Place an order: POST {supervisor.urls["gateway"]}/orders with {{"sku": "a1"}}', flush=True)
            signal.pause()
    except Ended:
        pass
    finally:
        supervisor.stop()
        if options.lifeline or not options.data:
            shutil.rmtree(folder, ignore_errors=True)


def _pair(text: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair or name not in PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with one of {', '.join(PORTS)} as the name")
    return name, value


def _end(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # ending is under way
    raise Ended


main()
