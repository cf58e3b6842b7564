"""An answer is the same however its bytes are torn, and nothing that comes over a wire is a traceback."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from squall.probes.wire import HEAD_MOST, Answer, Malformed


@dataclass(frozen=True)
class Read:
    status: int
    done: bool
    reusable: bool
    body: bytes


def again(status: int, body: bytes) -> Read:
    """A whole answer whose connection can be used again."""
    return Read(status, done=True, reusable=True, body=body)


def last(status: int, body: bytes) -> Read:
    """A whole answer, and the last on its connection."""
    return Read(status, done=True, reusable=False, body=body)


def read(pieces: list[bytes], *, head: bool = False, close: bool = True) -> Read | str:
    """What comes of these pieces: the answer, or the reason why it is none."""
    answer = Answer(head=head, body_most=1 << 20)
    try:
        for piece in pieces:
            answer.feed(piece)
        if close and not answer.done:
            answer.end()
    except Malformed as reason:
        return str(reason)
    return Read(answer.status, answer.done, answer.reusable, bytes(answer.body))


def torn(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello": again(200, b"hello"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": again(200, b""),
    b"HTTP/1.1 200\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello": again(200, b"hello"),
    b"HTTP/1.1 404 Not Found\nContent-Length: 2\n\nno": again(404, b"no"),
    b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n": again(204, b""),
    b"HTTP/1.1 304 Not Modified\r\n\r\n": again(304, b""),
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n": last(101, b""),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx": again(200, b"x"),
    b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 1\r\n\r\nx": last(200, b"x"),
    b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx": last(200, b"x"),
    b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx": again(200, b"x"),
    b"HTTP/1.1 200 OK\r\n\r\nto the end": last(200, b"to the end"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nto the end": last(200, b"to the end"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n": again(200, b"hello"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\ntransfer-encoding:\tchunked\r\n\r\nA\r\n0123456789\r\n00\r\nX: y\r\n\r\n": again(
        200, b"0123456789"
    ),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n": last(200, b"x"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n": last(200, b"x"),
    b"HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\nContent-Length: 1\r\n\r\nx": again(200, b"x"),
}  # fmt: skip

REFUSED = {
    b"": "closed without an answer",
    b"HTT": "closed before the end of the answer",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell": "closed before the end of the answer",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n": "closed before the end of the answer",
    b"HTTP/1.1 100 Continue\r\n\r\n": "closed before the end of the answer",
    b"SSH-2.0-OpenSSH_9.2\r\n": "not an HTTP/1.1 answer",
    b"HTTP/2 200\r\n\r\n": "not an HTTP/1.1 answer",
    b"HTTP/1.1 2000 OK\r\n\r\n": "not an HTTP/1.1 answer",
    b"HTTP/1.1 abc\r\n\r\n": "not an HTTP/1.1 answer",
    b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n": "not an HTTP/1.1 answer",
    b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n": "a Content-Length that is no single number",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n": "a Content-Length that is no single number",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": "a Content-Length that is no single number",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n": "a chunk without a size",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n": "a chunk without a size",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhel\r\n": "a chunk longer than its size",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000: "a chunk's line is too long",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_MOST: f"headers longer than {HEAD_MOST} bytes",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000: f"trailers longer than {HEAD_MOST} bytes",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 17: "more than 16 interim answers",
}  # fmt: skip


@pytest.mark.parametrize(("data", "wanted"), [*ANSWERS.items(), *REFUSED.items()])
def test_what_an_answer_is(data: bytes, wanted: Read | str) -> None:
    assert read([data]) == wanted


@pytest.mark.parametrize(("data", "wanted"), [*ANSWERS.items(), *REFUSED.items()])
def test_an_answer_that_comes_byte_by_byte_is_the_same(data: bytes, wanted: Read | str) -> None:
    assert read([data[n : n + 1] for n in range(len(data))]) == wanted


def test_the_answer_to_head_has_no_body() -> None:
    assert read([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], head=True) == again(200, b"")


def test_a_body_over_its_bound_is_refused() -> None:
    answer = Answer(body_most=4)
    with pytest.raises(Malformed, match="longer than 4 bytes"):
        answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def test_a_body_that_nobody_wants_is_read_but_not_kept() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert (answer.done, answer.body) == (True, b"")


def test_one_reader_takes_many_answers() -> None:
    answer = Answer()
    for _ in range(3):
        answer.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        assert (answer.done, answer.reusable) == (True, True)
        answer.reset()


PIECES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.", b"1 ", b"\r\n", b"\n", b"\r", b"Content-Length: ", b"5", b"0", b"Transfer-Encoding: chunked",
     b"Connection: close", b"hello", b"3\r\nabc\r\n", b"0\r\n\r\n", b";x", b"HTTP/1.1 100 Continue\r\n\r\n", b":", b" "]
)  # fmt: skip
ANYTHING = st.one_of(
    st.sampled_from([*ANSWERS, *(data for data in REFUSED if len(data) < 1000)]),
    st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=30).map(b"".join),
)


@settings(max_examples=500)
@given(data=ANYTHING, cuts=st.lists(st.integers(0, 10_000), max_size=12), head=st.booleans())
@example(data=b"HTTP/1.1 200 OK\n\r\n", cuts=[16, 17], head=False)
def test_torn_anywhere_it_is_the_same_answer_or_the_same_refusal(data: bytes, cuts: list[int], head: bool) -> None:  # noqa: FBT001 - drawn
    assert read(torn(data, cuts), head=head) == read([data], head=head)
