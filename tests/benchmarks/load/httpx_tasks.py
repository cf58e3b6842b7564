"""The usual way in Python: asyncio sleeps until each intended time and starts a task with httpx2's async client.

Arguments and output as for `bare_loop.py`; lateness counts up to the moment in which the task begins.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import httpx2


async def run(port: int, rate: float, seconds: float) -> dict[str, object]:
    late_ns: list[int] = []
    took_ns: list[int] = []
    clock = time.monotonic_ns
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=1000)) as client:

        async def ask(due_ns: int) -> None:
            late_ns.append(clock() - due_ns)
            (await client.get(f"http://127.0.0.1:{port}/")).raise_for_status()
            took_ns.append(clock() - due_ns)

        cpu_ns, begin_ns = time.process_time_ns(), clock() + 1_000_000
        tasks: set[asyncio.Task[None]] = set()
        for number in range(int(rate * seconds)):
            due_ns = begin_ns + round(number * 1e9 / rate)
            left_ns = due_ns - clock()
            await asyncio.sleep(max(left_ns, 0) / 1e9)
            task = asyncio.create_task(ask(due_ns))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        return {"late_ns": late_ns, "took_ns": took_ns, "cpu": (time.process_time_ns() - cpu_ns) / (clock() - begin_ns)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))))
