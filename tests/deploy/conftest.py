"""A real Prometheus that watched a real service while its dependency was slow for a while, and what was done when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from squall.cli.story import ACTS
from squall.shop import Shop
from tests import servers
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RATE_WINDOW = "5s"
"""Prometheus scrapes once a second here, sixty times as often as usual: windows are shorter by as much."""
LAG_S = 4.0
"""What a fault does is in a window's rate until that has passed."""

DOCUMENT = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: stock-is-slow}}
spec:
  targets: {{route: {{listen: "127.0.0.1:{route}", upstream: "127.0.0.1:{stock}"}}}}
  steadyState:
    - {{name: orders, http: &order {{url: "http://127.0.0.1:{order}/orders", timeout: 2s}}, p95: 1s, errorRate: 50%}}
  load: {{http: *order, rate: 25/s}}
  tolerate: {{p95: 2s, errorRate: 99%}}
  abort: {{p95: 1h, errorRate: 99%, for: 30s}}
  faults: [{{type: http.delay, delay: 1s}}]
  duration: {duration}
  baseline: {baseline}
  recovery: {{within: 6s}}
"""
THE_SHOPS = """
apiVersion: squall.dev/v1alpha1
kind: Experiment
metadata: {{name: inventory-stalls}}
spec:
  targets: {{process: {{pid: {inventory}}}}}
  steadyState:
    - name: orders
      http: &order {{url: "{gateway}/orders", method: POST, body: {{sku: a1}}, timeout: 2s}}
      p95: 1s
      errorRate: 50%
  load: {{http: *order, rate: 20/s}}
  tolerate: {{p95: 2s, errorRate: 99%}}
  abort: {{p95: 1h, errorRate: 99%, for: 30s}}
  faults: [{{type: process.pause}}]
  duration: 8s
  baseline: 7s
  recovery: {{within: 6s}}
"""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """What the condition gives once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return found


Series = tuple[dict[str, str], list[tuple[float, float]]]
"""Labels, and values with their times."""


@dataclass
class Filled:
    """A Prometheus with a story in it, and the story's times (Unix, in seconds)."""

    prometheus: servers.PrometheusServer
    began: float
    fault_began: float
    fault_ended: float
    ended: float
    vanished: float
    """When a second run was killed while its fault was on."""

    def over_time(self, query: str, start: float, end: float) -> list[Series]:
        """The query at every second."""
        asked = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": "1"}
        address = f"{self.prometheus.url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                found = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{query}\n{error.read().decode()}")
        return [
            (one["metric"], [(float(at), float(value)) for at, value in one["values"] if value != "NaN"])
            for one in found
        ]

    def before(self, query: str) -> list[Series]:
        """While all was well: from the first full window on."""
        return self.over_time(query, self.fault_began - 1.5, self.fault_began)

    def during(self, query: str) -> list[Series]:
        """While the fault was on, and while what it did is in the windows."""
        return self.over_time(query, self.fault_began + 1, self.fault_ended + LAG_S)


@contextmanager
def stock() -> Iterator[int]:
    """What the service depends on; its port."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"17")

        def log_message(self, *_: object) -> None:
            pass

    class Serving(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Who asked was not patient enough."""

    server = Serving(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended at the block's end."""
    with subprocess.Popen(command, text=True, **options) as started:
        try:
            yield started
        finally:
            started.kill()


class Story:
    """What happens, in order."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.metrics, self.route = free_port(), free_port()
        prometheus_folder = folder / "prometheus"
        prometheus_folder.mkdir()
        self.prometheus = stack.enter_context(servers.prometheus(prometheus_folder))
        self.stock = stack.enter_context(stock())
        self.settings = folder / "shop.json"
        self._configure(wait="2s")
        service = str(Path(__file__).with_name("order_service.py"))
        order = stack.enter_context(
            process(
                sys.executable, service, f"http://127.0.0.1:{self.route}/", str(self.settings), stdout=subprocess.PIPE
            )
        )
        assert order.stdout is not None
        self.order = int(order.stdout.readline())
        self.shop_metrics = free_port()
        self.shop = stack.enter_context(Shop())
        self.shop.apply(next(act.settings for act in ACTS if act.name == "breaker"))
        self.prometheus.scrape("order", f"127.0.0.1:{self.order}")
        self.prometheus.scrape("squall", f"127.0.0.1:{self.metrics}")
        self.prometheus.scrape("squall-at-the-shop", f"127.0.0.1:{self.shop_metrics}")
        for url in self.shop.urls.values():
            self.prometheus.scrape("shop", url.removeprefix("http://"))
        wait_for(lambda: self.prometheus.query('up{job="order"} == 1'), "the service is scraped")

    def _configure(self, **breaker: str) -> None:
        fresh = self.settings.with_suffix(".new")
        fresh.write_text(json.dumps({"dependencies": {"stock": {"breaker": breaker}}}))
        fresh.replace(self.settings)

    @contextmanager
    def run(self, duration: str, baseline: str) -> Iterator[subprocess.Popen[str]]:
        """The experiment, on the command line as anybody would."""
        path = self.folder / f"experiment-{duration}.yaml"
        path.write_text(
            DOCUMENT.format(route=self.route, stock=self.stock, order=self.order, duration=duration, baseline=baseline)
        )
        with self._squall(path, self.metrics) as started:
            yield started

    def run_at_the_shop(self) -> AbstractContextManager[subprocess.Popen[str]]:
        """The demonstration's fault, against the demonstration's shop."""
        path = self.folder / "shop.yaml"
        path.write_text(THE_SHOPS.format(inventory=self.shop.pids["inventory"], gateway=self.shop.urls["gateway"]))
        return self._squall(path, self.shop_metrics)

    def _squall(self, path: Path, port: int) -> AbstractContextManager[subprocess.Popen[str]]:
        command = (sys.executable, "-m", "squall", "run", str(path), "--json", "--quiet")
        told = ("--metrics-listen", f"127.0.0.1:{port}", "--metrics-hold", "5s")
        state = {**os.environ, "SQUALL_STATE": str(self.folder / "state")}
        return process(*command, *told, env=state, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def fault_is(self, value: int) -> None:
        query = f'squall_fault_active{{job="squall"}} == {value}'
        wait_for(lambda: self.prometheus.query(query), f"the fault is {value}")

    def told(self) -> Filled:
        """Tell it, about half a minute long."""
        began = time.time()
        with self.run("8s", "7s") as run, self.run_at_the_shop() as at_the_shop:
            self.fault_is(0)
            self.fault_is(1)
            time.sleep(1)
            self._configure(wait="1500ms")
            in_force = 'resilience_settings_generation{dependency="stock"} == 1'
            wait_for(lambda: self.prometheus.query(in_force), "the change is in force")
            self.settings.write_text('{"dependencies": {"stock": {"breaker": {"wait": "soon"}}}}')
            windows = [_window(run), _window(at_the_shop)]
        ended = time.time()
        with self.run("30s", "500ms") as run:
            self.fault_is(1)
            run.send_signal(signal.SIGKILL)
            run.wait()
            vanished = time.time()
            wait_for(lambda: not self.prometheus.query('squall_fault_active{job="squall"}'), "the run is missed")
            time.sleep(1.5)
        self.prometheus.rest()
        first, last = min(start for start, _ in windows), max(end for _, end in windows)
        return Filled(self.prometheus, began, first, last, ended, vanished)


def _window(run: subprocess.Popen[str]) -> tuple[float, float]:
    """From when to when the fault of a run was on, once it has ended."""
    output, errors = run.communicate(timeout=60)
    assert run.returncode in (0, 1, 6), errors
    report = json.loads(output)
    ((window,),) = [fault["windows"] for fault in report["faults"]]
    started = report["started_wall_ns"] / 1e9
    return started + window["start_s"], started + window["end_s"]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A real Prometheus in which there is a fault, what a service did about it, and a run that died."""
    with ExitStack() as stack:
        yield Story(stack, tmp_path_factory.mktemp("filled")).told()
