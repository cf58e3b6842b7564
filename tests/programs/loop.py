"""An asyncio service that blocks its loop or collects when told to, by a line on its standard input."""

import asyncio
import gc
import sys
import time


async def main() -> None:
    loop, orders = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", flush=True)
    while line := await orders.readline():
        what, _, amount = line.decode().strip().partition(" ")
        if what == "block":
            time.sleep(float(amount) / 1000)  # noqa: ASYNC251 - what a service must not do
        elif what == "rest":
            await asyncio.sleep(float(amount) / 1000)
        else:
            gc.collect()
        print("done", flush=True)


asyncio.run(main())
