"""A wrong target or probe is refused with its place; see also test_bad_documents.py."""

from __future__ import annotations

import pytest

from tests.experiment.wrong import BODY, HEAD, ROUTE, problems

TARGETS = [
    (
        HEAD + "  duration: 20s\n  faults:\n    - {type: process.pause}\n",
        [
            (
                "e.yaml:7:7: spec.faults[0].targets: is missing: give `spec.targets`, or the fault its own; "
                "with no selector nothing is selected"
            )
        ],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{}"),
        [
            (
                "e.yaml:6:12: spec.targets: give exactly one of `process`, `cgroup`, `container`, `netns`, `route`, `middleware`: "
                "with no selector nothing is selected"
            )
        ],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{process: {}}"),
        ["e.yaml:6:22: spec.targets.process: give exactly one of `pid`, `command`, `port`, `unit`"],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{process: {pid: 7}, cgroup: shop}"),
        [
            (
                "e.yaml:6:12: spec.targets: give exactly one of `process`, `cgroup`, `container`, `netns`, `route`, `middleware`,"
                " not process and cgroup"
            )
        ],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{container: shop}"),
        [("e.yaml:8:14: spec.faults[0].type: process.pause happens to a process, but its targets select a container")],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{netns: a, middleware: b}"),
        [
            (
                "e.yaml:6:12: spec.targets: give exactly one of `process`, `cgroup`, `container`, `netns`, `route`, "
                "`middleware`, not netns and middleware"
            )
        ],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{middleware: Shop/api}"),
        [
            (
                "e.yaml:6:25: spec.targets.middleware: 'Shop/api' does not have the right form (allowed: A chaos middleware "
                "inside running services, by its name: 1 to 64 of a-z 0-9 . _ -, not beginning with a sign)"
            )
        ],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{middleware: shop}").replace(
            "process.pause", "http.patch, on: request, removeHeaders: [a]"
        ),
        [
            (
                "e.yaml:8:14: spec.faults[0].type: http.patch happens to a route or a process or a cgroup or a container or a "
                "netns, but its targets select a middleware"
            )
        ],
    ),
    (
        BODY.replace("{process: {command: shop}}", "{proces: {command: shop}}"),
        [
            (
                "e.yaml:6:13: spec.targets.proces: is not known here; did you mean 'process'? "
                "(allowed: cgroup, container, follow, middleware, mode, most, netns, process, route, value)"
            )
        ],
    ),
    (
        BODY.replace("command: shop}", "port: 70000}"),
        ["e.yaml:6:29: spec.targets.process.port: 70000: must be at most 65535"],
    ),
    (
        BODY.replace("command: shop}", "pid: 7}, follow: true"),
        ["e.yaml:6:12: spec.targets: a pid cannot be followed: select by `command`, `port` or `unit`"],
    ),
    (
        BODY.replace("shop}}", "shop}, mode: al}"),
        [
            (
                "e.yaml:6:45: spec.targets.mode: 'al' is not allowed here; did you mean 'all'? "
                "(allowed: one, all, fixed, fixed-percent, random-max-percent)"
            )
        ],
    ),
    (
        BODY.replace("shop}}", "shop}, mode: fixed}"),
        ["e.yaml:6:12: spec.targets: mode fixed needs a `value`, a count of at least 1"],
    ),
    (
        BODY.replace("shop}}", "shop}, mode: fixed, value: 50%}"),
        ["e.yaml:6:12: spec.targets: mode fixed needs a `value`, a count of at least 1"],
    ),
    (
        BODY.replace("shop}}", "shop}, mode: fixed-percent, value: 50}"),
        ["e.yaml:6:12: spec.targets: mode fixed-percent needs a `value`, such as 50%"],
    ),
    (
        BODY.replace("shop}}", "shop}, mode: fixed-percent, value: many}"),
        [
            "e.yaml:6:67: spec.targets.value: 'many' is neither a count of at least 1, such as 2, nor a percentage, such as 50%"
        ],
    ),
    (
        BODY.replace("shop}}", "shop}, value: 2}"),
        ["e.yaml:6:12: spec.targets: `value` goes with mode fixed, fixed-percent or random-max-percent"],
    ),
    (
        ROUTE.replace("b:2", "a:1") + "    - {type: tcp.down}\n",
        [
            "e.yaml:6:20: spec.targets.route: `listen` and `upstream` are both a:1: the proxy stands between two addresses"
        ],
    ),
    (
        ROUTE.replace("a:1", "a:0").replace("b:2", "b") + "    - {type: tcp.down}\n",
        [
            "e.yaml:6:29: spec.targets.route.listen: 'a:0' has no usable port: 1 to 65535 is allowed",
            "e.yaml:6:46: spec.targets.route.upstream: 'b' does not have the right form (allowed: Where the service listens, `host:port`)",
        ],
    ),
    (
        ROUTE.replace('"}}', '"}, follow: true}') + "    - {type: tcp.down}\n",
        [
            (
                "e.yaml:6:12: spec.targets: `follow` goes with `process` and `container`: "
                "what else there is stays when what is in it restarts"
            )
        ],
    ),
]

PROBES = [
    (
        BODY + "  steadyState:\n    - {name: a}\n",
        [
            "e.yaml:10:7: spec.steadyState[0]: give exactly one of http, tcp, process, command, prometheus, runtime, resilience"
        ],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, runtime: {}}\n",
        [("e.yaml:10:26: spec.steadyState[0].runtime: give exactly one of `pid`, `command`, `port`, `unit`")],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, http: {url: ftp:x, method: get}}\n",
        [
            "e.yaml:10:29: spec.steadyState[0].http.url: 'ftp:x' does not have the right form (allowed: http:// or https://, with a host)",
            "e.yaml:10:44: spec.steadyState[0].http.method: 'get' does not have the right form (allowed: In capitals)",
        ],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, http: {url: 'http://x', headers: {k: {envv: X}}, body: 3}}\n",
        [
            "e.yaml:10:55: spec.steadyState[0].http.headers.k.envv: is not known here; did you mean 'env'? (allowed: env, file, prefix)",
            "e.yaml:10:72: spec.steadyState[0].http.body: 3 is neither text nor a mapping nor a list: put it in quotes to send it as text",
        ],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, http: {url: 'http://x', headers: {k: {env: X, file: y}}}}\n",
        ["e.yaml:10:54: spec.steadyState[0].http.headers.k: say where the secret is: either `env` or `file`"],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, tcp: 'x:1', values: {rss: {most: 3}}}\n",
        ["e.yaml:10:7: spec.steadyState[0]: a tcp probe has no value 'rss': it has none"],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, process: {pid: 3}, values: {rs: {most: 3}}}\n",
        [
            "e.yaml:10:7: spec.steadyState[0]: a process probe has no value 'rs': there are rss, fds, threads, cpu, restarts"
        ],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, process: {pid: 3}, p95: 1s}\n",
        [
            "e.yaml:10:7: spec.steadyState[0]: `p95` goes with http, tcp, command: a process probe has no latency to judge"
        ],
    ),
    (
        BODY + "  steadyState:\n    - {name: a, process: {pid: 3}, values: {rss: {least: 4, most: 3}, fds: {}}}\n",
        [
            "e.yaml:10:50: spec.steadyState[0].values.rss: `least` (4) is above `most` (3)",
            "e.yaml:10:76: spec.steadyState[0].values.fds: give `least`, `most` or both",
        ],
    ),
    (
        BODY + "  load: {http: {url: 'http://x'}}\n",
        ["e.yaml:9:9: spec.load: give either `rate` or `profile`"],
    ),
    (
        BODY + "  load: {http: {url: 'http://x'}, rate: 50}\n",
        [
            (
                "e.yaml:9:41: spec.load.rate: 50 has no unit: write a rate such as 50/s, 0.5/s, 600/m; "
                "write '50/s' if that is what you mean"
            )
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), TARGETS + PROBES)
def test_each_mistake_is_said_with_its_place(text: str, expected: list[str]) -> None:
    assert problems(text) == expected
