"""Every fault: what it takes, within which ranges, and what it says of the rest."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from squall.errors import InputError
from squall.faults import FAULTS, fault_model, fault_types, parse_fault
from squall.faults.frozen import FrozenDict
from squall.units import Bandwidth, Duration, Ratio, Size

STEP_KEYS = {"type", "targets", "after", "duration", "pulse", "fault"}

SMALLEST: dict[str, dict[str, Any]] = {
    "dns.error": {"names": ["*"]},
    "dns.fixed": {"names": ["a.test"], "addresses": ["192.0.2.1"]},
    "dns.random": {"names": ["*.test."]},
    "grpc.abort": {},
    "grpc.delay": {"delay": "1s"},
    "http.abort": {},
    "http.degrade": {"delay": "500us"},
    "http.delay": {"delay": "1s"},
    "http.patch": {"on": "request", "query": {"a": "b"}},
    "http.replace": {"on": "response", "status": 500},
    "io.corrupt": {"paths": ["/srv/data"]},
    "io.delay": {"delay": "10ms", "calls": ["sync"]},
    "io.error": {"errno": "EIO", "calls": ["read"]},
    "network.bandwidth": {"rate": "1mbit"},
    "network.corrupt": {"percent": "1%"},
    "network.delay": {"latency": "100ms"},
    "network.duplicate": {"percent": "1%"},
    "network.loss": {"percent": "1%"},
    "network.partition": {},
    "network.reorder": {"percent": "25%"},
    "process.crash": {},
    "process.kill": {},
    "process.panic": {},
    "process.pause": {},
    "stress.cpu": {},
    "stress.disk": {"path": "/srv", "fill": "1GiB"},
    "stress.fd": {},
    "stress.memory": {"amount": "64MiB"},
    "syscall.delay": {"delay": "10ms", "calls": ["connect"]},
    "syscall.error": {"errno": "ECONNREFUSED", "calls": ["connect"]},
    "tcp.bandwidth": {"rate": "10mbit"},
    "tcp.delay": {"policy": {"10.0.0.1:80": "20ms"}},
    "tcp.down": {},
    "tcp.latency": {"latency": "3s"},
    "tcp.limit_data": {"bytes": "1KiB"},
    "tcp.reset": {},
    "tcp.slicer": {},
    "tcp.slow_close": {"delay": "1s"},
    "tcp.timeout": {},
    "time.skew": {"offset": "1s"},
}

ALLOWED = [
    ("time.skew", {"offset": "-36500d", "drift": -500_000, "clocks": ["tai"], "descendants": True}),
    ("http.delay", {"delay": "0s", "jitter": "1h", "on": "response"}),
    ("http.abort", {"status": 200}),
    ("http.abort", {"status": 599, "percent": "0%", "method": "get", "path": "/*", "headers": {"X-A": "*"}}),
    ("grpc.delay", {"delay": "0s", "jitter": "1h", "on": "response", "each": "message"}),
    ("grpc.abort", {"status": "DATA_LOSS", "details": {"type.test/X": "AA=="}, "afterMessages": 3, "on": "request"}),
    (
        "grpc.abort",
        {
            "service": "shop.*",
            "method": "Re*",
            "metadata": {"x-who": "a*"},
            "trailers": {"grpc-retry-pushback-ms": "9"},
        },
    ),
    ("http.replace", {"on": "request", "newPath": "/orders?x=1"}),
    ("http.replace", {"on": "request", "setHeaders": {}}),
    ("http.replace", {"on": "response", "body": ""}),
    ("http.patch", {"on": "response", "removeHeaders": ["ETag"]}),
    ("http.patch", {"on": "response", "body": {}}),
    ("network.loss", {"percent": "0%", "ports": [80, "8000-8100"], "peers": ["10.0.0.0/8", "::1", "db.internal"]}),
    ("network.delay", {"latency": "10m", "jitter": "1s", "distribution": "normal", "correlation": "25%"}),
    ("network.reorder", {"percent": "100%", "gap": 5, "localPorts": ["65535"], "protocol": "udp"}),
    ("network.partition", {"zoneA": ["10.0.0.1"], "zoneB": ["10.0.1.0/24"], "across": "a-to-b"}),
    ("process.pause", {"stopped": "1ms", "every": "2ms"}),
    ("process.kill", {"signal": "SIGTERM", "descendants": True}),
    ("stress.cpu", {"load": "1%", "workers": 1024}),
    ("stress.memory", {"percent": "95%", "leak": "1kB/s", "spare": "5%"}),
    ("stress.memory", {"amount": "1TiB", "leak": "1GB/s", "spare": "90%"}),
    ("stress.fd", {"leave": 1_000_000}),
    ("stress.disk", {"path": "/", "fillPercent": "100%", "spare": "0B", "write": "10GB/s"}),
    ("stress.disk", {"path": "/srv", "write": "1kB/s"}),
    ("tcp.latency", {"latency": "1h", "jitter": "1h", "correlation": "100%", "direction": "upstream"}),
    ("tcp.bandwidth", {"rate": "1B/s"}),
    ("tcp.bandwidth", {"rate": "100gbit"}),
    ("tcp.slicer", {"average": "1MiB", "variation": "1048575B", "delay": "1m"}),
    ("tcp.limit_data", {"bytes": "0B"}),
    ("tcp.timeout", {"timeout": "0s"}),
]

REFUSED = [
    ("dns.error", {}, ("names",), "Field required"),
    ("dns.error", {"names": []}, ("names",), "there are 0: 1 to 64 are allowed"),
    ("dns.error", {"names": ["a b"]}, ("names", 0), "'a b' is no pattern of names"),
    ("dns.error", {"names": ["*"], "error": "formerr"}, ("error",), "'nxdomain', 'servfail', 'refused' or 'timeout'"),
    ("dns.fixed", {"names": ["*"], "addresses": ["10.0.0.256"]}, ("addresses", 0), "neither an IPv4 nor an IPv6 address"),
    ("dns.fixed", {"names": ["*"], "addresses": ["::1"] * 9}, ("addresses",), "there are 9: 1 to 8 are allowed"),
    ("dns.random", {"names": ["*"], "ttl": "2h"}, ("ttl",), "out of range"),
    ("http.delay", {}, ("delay",), "Field required"),
    ("grpc.delay", {}, ("delay",), "Field required"),
    ("grpc.delay", {"delay": "1s", "each": "byte"}, ("each",), "Input should be 'call' or 'message'"),
    ("grpc.abort", {"status": "OK"}, ("status",), "Input should be 'CANCELLED'"),
    ("grpc.abort", {"status": 14}, ("status",), "Input should be 'CANCELLED'"),
    ("grpc.abort", {"details": {"type.test/X": "no base64"}}, ("details", "type.test/X"), "is not base64"),
    ("grpc.abort", {"metadata": {"two words": "x"}}, ("metadata", "two words", "[key]"), "match pattern"),
    ("grpc.abort", {"afterMessages": -1}, ("afterMessages",), "greater than or equal to 0"),
    ("http.delay", {"delay": "61m"}, ("delay",), "'1h1m' is out of range: 0s to 1h is allowed"),
    ("http.delay", {"delay": "1s", "on": "both"}, ("on",), "Input should be 'request' or 'response'"),
    ("http.abort", {"status": 199}, ("status",), "greater than or equal to 200"),
    ("http.abort", {"status": 600}, ("status",), "less than or equal to 599"),
    ("http.abort", {"status": "503"}, ("status",), "valid integer"),
    ("http.abort", {"status": 503.0}, ("status",), "valid integer"),
    ("http.abort", {"method": ""}, ("method",), "match pattern"),
    ("http.abort", {"path": ""}, ("path",), "at least 1 character"),
    ("http.abort", {"headers": {"": "x"}}, ("headers", "", "[key]"), "at least 1 character"),
    ("http.abort", {"headers": {"X": 1}}, ("headers", "X"), "valid string"),
    ("http.abort", {"percent": "100.5%"}, ("percent",), "'100.5%' is more than 100%"),
    ("http.abort", {"body": "x" * 1_048_577}, ("body",), "at most 1048576 characters"),
    ("http.replace", {"on": "request"}, (), "give at least one of `status`, `newPath`, `body`, `setHeaders`"),
    ("http.replace", {"on": "request", "status": 500}, (), "a request has no status: say `on: response`"),
    ("http.replace", {"on": "response", "newPath": "/x"}, (), "a response has no path: say `on: request`"),
    ("http.replace", {"on": "request", "newPath": "x"}, ("newPath",), "match pattern"),
    ("http.replace", {"on": "request", "newPath": "/x\r\nHost: y"}, ("newPath",), "match pattern"),
    ("http.patch", {"on": "request"}, (), "give at least one of `setHeaders`, `removeHeaders`, `query`, `body`"),
    ("http.patch", {"on": "response", "query": {"a": "b"}}, (), "a response has no query: say `on: request`"),
    ("http.patch", {"on": "request", "body": [1]}, ("body",), "a JSON merge patch is a mapping"),
    ("http.patch", {"on": "request", "body": {"x": float("nan")}}, ("body",), "JSON has no nan"),
    ("http.patch", {"on": "request", "body": {"x": {1, 2}}}, ("body",), "is not a JSON value"),
    ("http.patch", {"on": "request", "body": {1: "x"}}, ("body",), "the key 1 is not text"),
    ("process.kill", {"signal": "SIGSTOP"}, ("signal",), "Input should be 'SIGKILL', 'SIGTERM'"),
    ("process.kill", {"descendants": "yes"}, ("descendants",), "valid boolean"),
    ("process.crash", {"signal": "SIGKILL"}, ("signal",), "Input should be 'SIGSEGV'"),
    ("network.loss", {"percent": "1%", "ports": [0]}, ("ports", 0), "0 is out of range: ports are 1 to 65535"),
    ("network.loss", {"percent": "1%", "ports": ["9-1"]}, ("ports", 0), "9-1 is out of range"),
    ("network.loss", {"percent": "1%", "ports": ["http"]}, ("ports", 0), "'http' is neither a port nor a range of ports"),
    ("network.loss", {"percent": "1%", "peers": ["10.0.0.1/8"]}, ("peers", 0), "has host bits set"),
    ("network.loss", {"percent": "1%", "peers": ["a b"]}, ("peers", 0), "neither an address, a network"),
    ("network.loss", {"percent": "1%", "protocol": "icmp", "ports": [1]}, (), "icmp has none"),
    ("network.delay", {"latency": "1s", "correlation": "1%"}, (), "go with `jitter`"),
    ("network.partition", {"zoneA": ["10.0.0.1"]}, (), "a cut has two sides"),
    ("network.partition", {"across": "a-to-b"}, (), "goes with `zoneA` and `zoneB`"),
    ("process.pause", {"stopped": "1s"}, (), "`stopped` and `every` belong together"),
    ("process.pause", {"every": "1s"}, (), "`stopped` and `every` belong together"),
    ("process.pause", {"stopped": "2s", "every": "2s"}, (), "`stopped` (2s) must be shorter than `every` (2s)"),
    ("process.pause", {"stopped": "1ms", "every": "1ms"}, ("every",), "'1ms' is out of range: 2ms to 1h is allowed"),
    ("stress.cpu", {"load": "0.5%"}, ("load",), "'0.5%' is out of range: 1% to 100% is allowed"),
    ("stress.cpu", {"workers": 0}, ("workers",), "greater than or equal to 1"),
    ("stress.cpu", {"workers": 1025}, ("workers",), "less than or equal to 1024"),
    ("stress.cpu", {"workers": True}, ("workers",), "valid integer"),
    ("stress.memory", {}, (), "give either `amount` or `percent`"),
    ("stress.memory", {"amount": "1GiB", "percent": "5%"}, (), "give either `amount` or `percent`"),
    ("stress.memory", {"amount": "1KiB"}, ("amount",), "'1KiB' is out of range: 1MiB to 1TiB is allowed"),
    ("stress.memory", {"percent": "96%"}, ("percent",), "'96%' is out of range: 1% to 95% is allowed"),
    ("stress.memory", {"percent": "5%", "spare": "4%"}, ("spare",), "'4%' is out of range: 5% to 90% is allowed"),
    ("stress.memory", {"percent": "5%", "leak": "10"}, ("leak",), "'10' is not a bandwidth"),
    ("stress.fd", {"leave": -1}, ("leave",), "greater than or equal to 0"),
    ("stress.disk", {"path": "/srv"}, (), "give `fill`, `fillPercent` or `write`"),
    ("stress.disk", {"path": "/srv", "fill": "1GiB", "fillPercent": "50%"}, (), "give either `fill` or `fillPercent`"),
    ("stress.disk", {"path": "srv", "fill": "1GiB"}, ("path",), "match pattern"),
    ("stress.disk", {"fill": "1GiB"}, ("path",), "Field required"),
    ("tcp.latency", {"latency": "-1s"}, ("latency",), "'-1s' is not a duration"),
    ("tcp.latency", {"latency": 3}, ("latency",), "3 has no unit"),
    ("tcp.latency", {"latency": "3s", "direction": "both"}, ("direction",), "Input should be 'upstream' or 'downstream'"),
    ("tcp.latency", {"latency": "3s", "toxicity": 0.5}, ("toxicity",), "Extra inputs are not permitted"),
    ("tcp.bandwidth", {"rate": "0bit"}, ("rate",), "'0bit' is out of range: 1B/s to 100gbit is allowed"),
    ("tcp.slicer", {"average": "64B", "variation": "64B"}, (), "`variation` (64B) must be less than `average` (64B)"),
    ("tcp.slicer", {"average": "0B"}, ("average",), "'0B' is out of range: 1B to 1MiB is allowed"),
    ("tcp.slicer", {"delay": "2m"}, ("delay",), "'2m' is out of range: 0s to 1m is allowed"),
    ("tcp.limit_data", {"bytes": 1024}, ("bytes",), "1024 has no unit"),
    ("tcp.down", {"direction": "upstream"}, ("direction",), "Extra inputs are not permitted"),
]  # fmt: skip


def test_the_smallest_form_of_every_fault_is_known_here() -> None:
    assert sorted(SMALLEST) == fault_types() == sorted(FAULTS)


@pytest.mark.parametrize("tag", sorted(FAULTS))
def test_every_fault_says_what_the_target_feels_and_where_it_can_happen(tag: str) -> None:
    model = FAULTS[tag]
    assert model.type == tag
    assert model.__doc__
    assert model.targets
    assert model.reversible is (tag not in ("process.kill", "process.crash"))
    for name, info in model.model_fields.items():
        assert info.description, f"{tag}: {name} has no docstring"


@pytest.mark.parametrize("tag", sorted(FAULTS))
def test_a_faults_own_keys_leave_room_for_those_of_a_step(tag: str) -> None:
    keys = {info.alias or name for name, info in FAULTS[tag].model_fields.items()}
    assert not keys & STEP_KEYS


@pytest.mark.parametrize(("tag", "parameters"), [*SMALLEST.items(), *ALLOWED])
def test_parameters_are_read_as_they_are_written(tag: str, parameters: dict[str, Any]) -> None:
    fault = parse_fault(tag, parameters)
    written = json.loads(json.dumps(fault.parameters(), allow_nan=False))
    assert parse_fault(tag, written) == fault


@pytest.mark.parametrize(("tag", "parameters", "location", "message"), REFUSED)
def test_what_is_out_of_range_is_refused_at_its_key(
    tag: str, parameters: dict[str, Any], location: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_fault(tag, parameters)
    found = [(details["loc"], details["msg"]) for details in caught.value.errors()]
    assert [loc for loc, _ in found] == [location]
    assert message in found[0][1]


def test_parameters_have_the_units_of_their_meaning() -> None:
    latency = parse_fault("tcp.latency", {"latency": "3s", "jitter": "100ms", "correlation": "25%"})
    assert latency.model_dump(mode="python")["latency"] == "3s"
    assert (latency.latency, latency.jitter, latency.correlation) == (Duration.of(3), Duration.of(0.1), Ratio(0.25))  # type: ignore[attr-defined]  # parse_fault gives any Fault
    assert parse_fault("tcp.bandwidth", {"rate": "8mbit"}).rate == Bandwidth(1_000_000)  # type: ignore[attr-defined]  # as above
    assert parse_fault("stress.memory", {"amount": "1MiB"}).amount == Size(1_048_576)  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize(
    ("tag", "close"),
    [("tcp.latenc", "'tcp.latency'"), ("proces.pause", "'process.pause'"), ("http.dealy", "'http.delay'")],
)
def test_an_unknown_fault_is_refused_with_the_nearest_that_there_is(tag: str, close: str) -> None:
    with pytest.raises(InputError, match=f"there is no fault '{tag}'; did you mean {close}") as caught:
        fault_model(tag)
    assert "stress.cpu" in str(caught.value)
    assert caught.value.exit_status == 2


def test_two_faults_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match=r"two faults are called process\.pause"):
        type(FAULTS["process.pause"])(
            "Again", (FAULTS["process.pause"].__base__,), {"__module__": __name__}, type="process.pause"
        )


def test_a_fault_cannot_be_changed_nor_anything_in_it() -> None:
    given: dict[str, Any] = {"on": "request", "setHeaders": {"a": "b"}, "body": {"items": [{"n": 1}]}}
    fault = parse_fault("http.patch", given)
    with pytest.raises(ValidationError, match="frozen"):
        fault.on = "response"  # type: ignore[attr-defined]  # that it cannot is what is tested
    headers = fault.set_headers  # type: ignore[attr-defined]  # parse_fault gives any Fault
    for change in (
        lambda: headers.__setitem__("a", "c"), lambda: headers.update(a="c"), lambda: headers.pop("a"), headers.clear,
        lambda: headers.setdefault("x", "y"), headers.popitem, lambda: headers.__delitem__("a"), lambda: headers.__ior__({"x": "y"}),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    given["body"]["items"].append(2)
    assert fault.parameters()["body"] == {"items": [{"n": 1}]}


@pytest.mark.parametrize(("tag", "parameters"), [*SMALLEST.items(), *ALLOWED])
def test_equal_faults_have_equal_hashes_and_survive_copies(tag: str, parameters: dict[str, Any]) -> None:
    one, two = parse_fault(tag, parameters), parse_fault(tag, parameters)
    assert one == two
    assert hash(one) == hash(two)
    assert {one: 1}[two] == 1
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one.model_copy() == one  # noqa: S301 - it was just written


def test_defaults_are_not_shared_by_mistake() -> None:
    one, two = parse_fault("http.abort", {}), parse_fault("http.abort", {})
    assert one.headers == two.headers == {}  # type: ignore[attr-defined]  # parse_fault gives any Fault
    assert isinstance(one.headers, FrozenDict)  # type: ignore[attr-defined]  # as above


def test_a_body_that_is_nested_without_end_is_refused() -> None:
    body: dict[str, Any] = {}
    for _ in range(70):
        body = {"x": body}
    with pytest.raises(ValidationError, match="nested deeper than 64 levels"):
        parse_fault("http.patch", {"on": "request", "body": body})


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=2)
    | st.just({"a": "b"})
)


@pytest.mark.parametrize("tag", sorted(FAULTS))
@given(data=st.data())
def test_any_parameters_make_a_fault_or_a_validation_error(tag: str, data: st.DataObject) -> None:
    keys = sorted({info.alias or name for name, info in FAULTS[tag].model_fields.items()} | {"extra"})
    parameters = data.draw(st.dictionaries(st.sampled_from(keys), JUNK, max_size=4))
    try:
        fault = parse_fault(tag, SMALLEST[tag] | parameters)
    except ValidationError:
        return
    assert parse_fault(tag, json.loads(json.dumps(fault.parameters(), allow_nan=False))) == fault
