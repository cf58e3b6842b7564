"""Header blocks, against the library hpack in both roles."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.proxy.http.heads import NotHttp
from squall.proxy.http2 import huffman
from squall.proxy.http2.blocks import Blocks
from squall.proxy.http2.hpack import BadBlock, NeverIndexed, Reader, Writer

NAMES = st.sampled_from(
    [b":path", b":status", b"content-type", b"grpc-timeout", b"cookie", b"x-" + b"n" * 40]
) | st.binary(max_size=9)
VALUES = st.sampled_from([b"", b"/", b"200", b"a", b"b", b"v" * 3000]) | st.binary(max_size=30)
BLOCKS = st.lists(
    st.tuples(
        st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8),
        st.booleans(),  # Huffman
        st.none() | st.sampled_from([0, 40, 100, 4096]),  # the table becomes so large
        st.booleans(),  # the block goes on as it came, as long as all before it have
    ),
    max_size=12,
)
SECRET = {True: hpack.NeverIndexedHeaderTuple, False: hpack.HeaderTuple}


@settings(max_examples=300, deadline=None)
@given(BLOCKS)
def test_blocks_say_the_same_to_the_receiver_as_they_came_or_rewritten(blocks: list) -> None:
    """Both tables stay in step from any block on that does not go on as it came, at any size of the table."""
    sender, receiver, followed = hpack.Encoder(), hpack.Decoder(max_header_list_size=1 << 18), Blocks()
    for said, coded, size, raw in blocks:
        if size is not None:  # the receiver's settings, and the sender's acknowledgement
            followed.announced(size)
            followed.acknowledged()
            receiver.max_allowed_table_size = size
            sender.header_table_size = size
        wanted = [SECRET[secret](name, value) for name, value, secret in said]
        block = sender.encode(wanted, huffman=coded)
        fields = followed.read(block)
        assert [tuple(field) for field in fields] == [tuple(field) for field in wanted]
        assert all(not wanted[at].indexable for at, field in enumerate(fields) if isinstance(field, NeverIndexed))
        got = list(receiver.decode(block if raw and followed.as_they_came else followed.write(fields), raw=True))
        assert [tuple(field) for field in got] == [tuple(field) for field in fields]
        assert [field.indexable for field in got] == [not isinstance(field, NeverIndexed) for field in fields]


@given(st.binary(max_size=600))
def test_huffman_code_is_read(data: bytes) -> None:
    assert huffman.decode(HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(data)) == data


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_anything_is_read_or_refused(blocks: list[bytes]) -> None:
    """Never another exception; and what the library reads, so does this."""
    ours, theirs = Reader(), hpack.Decoder(max_header_list_size=1 << 18)
    theirs.max_allowed_table_size = 1 << 16
    for block in blocks:
        try:
            read = ours.read(block)
        except BadBlock:
            with pytest.raises(hpack.HPACKError):
                theirs.decode(block, raw=True)
            return
        try:
            assert [tuple(field) for field in theirs.decode(block, raw=True)] == [tuple(field) for field in read]
        except hpack.HPACKError:
            return


@pytest.mark.parametrize(
    "block",
    [
        b"\x80", b"\xff\xff\xff\xff\xff\xff\xff\x01", b"\xfe", b"\x40\x05ab", b"\x82\x20", b"\x3f\xe1\xff\x7f", b"\x40",
        b"\x40\x81\xff\x01a", b"\x40\x84\xff\xff\xff\xff\x01a",
    ],
    ids=["index 0", "endless number", "no such entry", "cut off", "size in the middle", "too large a table", "nothing", "padding",
         "the end's symbol"],
)  # fmt: skip
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(BadBlock):
        Reader().read(block)


def test_a_small_block_cannot_become_a_large_list() -> None:
    sender = Writer(4096)
    block = sender.write([(b"x", b"y" * 1900)])
    reader = Reader()
    reader.read(block)
    with pytest.raises(BadBlock):
        reader.read(b"\xbe" * 1000)


def test_settings_without_end_are_too_many() -> None:
    blocks = Blocks()
    for _ in range(4096):
        blocks.announced(0)
    with pytest.raises(NotHttp):
        blocks.announced(0)
    with pytest.raises(NotHttp):
        Blocks().acknowledged()
