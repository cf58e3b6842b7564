"""Streams: to the chain a call has ended when the head of its answer is there, and no forgotten stream holds a slot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest

from squall_resilience.adapters.aiohttp import Resilient
from squall_resilience.adapters.httpx import AsyncResilientTransport, ResilientTransport
from squall_resilience.adapters.requests import session
from squall_resilience.bulkhead import BulkheadSettings
from squall_resilience.errors import BulkheadFull
from squall_resilience.policy.chain import Policy
from squall_resilience.policy.settings import PolicySettings
from squall_resilience.retry import RetrySettings
from squall_resilience.timeout import TimeoutSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.resilience.adapters.conftest import Script


@pytest.fixture
def policy(script: Script) -> Policy:
    script.chunked, script.trickles = True, 10.0
    settings = PolicySettings(bulkhead=BulkheadSettings(limit=1, waiting=0), timeout=TimeoutSettings(2))
    return Policy("inventory", settings, registry=None)


def test_httpx_streams(policy: Policy, script: Script) -> None:
    with httpx.Client(transport=ResilientTransport(policy)) as client, client.stream("GET", script.url) as first:
        assert next(first.iter_bytes()) == script.body
        with client.stream("GET", script.url) as second:
            assert second.status_code == 200
        script.let_go.set()


def test_httpx_streams_on_asyncio(policy: Policy, script: Script) -> None:
    async def main() -> None:
        async with (
            httpx.AsyncClient(transport=AsyncResilientTransport(policy)) as client,
            client.stream("GET", script.url) as first,
        ):
            assert await anext(first.aiter_bytes()) == script.body
            async with client.stream("GET", script.url) as second:
                assert second.status_code == 200
            script.let_go.set()

    asyncio.run(main())


def test_aiohttp_streams(policy: Policy, script: Script) -> None:
    async def main() -> None:
        async with (
            aiohttp.ClientSession(middlewares=(Resilient(policy),)) as client,
            client.get(script.url) as first,
        ):
            assert await first.content.readany() == script.body
            async with client.get(script.url) as second:
                assert second.status == 200
            script.let_go.set()

    asyncio.run(main())


def test_requests_streams(policy: Policy, script: Script) -> None:
    with session(policy) as client:
        first = client.get(script.url, stream=True)
        assert next(first.iter_content(None)) == script.body
        second = client.get(script.url, stream=True)
        script.let_go.set()
        first.close()
        second.close()


def test_the_slot_is_held_until_the_head_is_there(policy: Policy, script: Script) -> None:
    script.hangs_before = "head"

    async def main() -> list[object]:
        async with httpx.AsyncClient(transport=AsyncResilientTransport(policy)) as client:
            calls = [asyncio.create_task(client.get(script.url)) for _ in range(2)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=5)
            script.let_go.set()
            await asyncio.wait(calls, timeout=5)
            return [type(each.exception()) for each in done]

    assert asyncio.run(main()) == [BulkheadFull]


def test_a_request_whose_body_is_a_stream_is_sent_once(script: Script) -> None:
    script.statuses = [503]
    policy = Policy("inventory", PolicySettings(retry=RetrySettings(base=0.001)), registry=None)

    def body() -> Iterator[bytes]:
        yield b"once"

    with httpx.Client(transport=ResilientTransport(policy)) as client:
        assert client.put(script.url, content=body(), headers={"Content-Length": "4"}).status_code == 503
    with session(policy) as other:
        assert other.put(script.url, data=body(), headers={"Content-Length": "4"}).status_code == 503

    async def main() -> int:
        async def body_async() -> AsyncIterator[bytes]:
            yield b"once"

        async with (
            aiohttp.ClientSession(middlewares=(Resilient(policy),)) as made,
            made.put(script.url, data=body_async(), headers={"Content-Length": "4"}) as response,
        ):
            return response.status

    assert asyncio.run(main()) == 503
    assert len(script.seen) == 3


def test_a_compressed_answer_is_still_what_the_library_makes_of_it(script: Script) -> None:
    import gzip

    script.body, script.headers = gzip.compress(b"whole"), {"Content-Encoding": "gzip"}
    policy = Policy("inventory", registry=None)
    with httpx.Client(transport=ResilientTransport(policy)) as client:
        assert client.get(script.url).text == "whole"
        script.statuses = [500]
        assert client.get(script.url).text == "whole"
        assert client.head(script.url).status_code == 500
