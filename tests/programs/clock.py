"""Reads the clocks in four threads and tells what it reads.

The first rests for so many microseconds as the program's argument says (1000 where there is none) after every thousand
reads, the second twice as long, and so on.

Each line on standard input is answered by one on standard output:
    read    wall clock and monotonic clock in ns, how often the wall clock went backwards or ran by more than 10 s
            between two reads of one thread, and how many reads there were
    fork    a child is forked that writes "child NS" on SIGUSR1 until its parent ends: prints its pid
    exec    a child program is started and waited for ("ok")
    bench   ns for one time.time_ns(), over 200,000
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

READERS = 4
LEAP_NS = 10_000_000_000
REST_S = (int(sys.argv[1]) if len(sys.argv) > 1 else 1000) / 1e6
jumps = [0] * READERS
reads = [0] * READERS


def hammer(number: int) -> None:
    last = time.time_ns()
    while True:
        for _ in range(1000):
            now = time.time_ns()
            if now < last or now > last + LEAP_NS:
                jumps[number] += 1
            last = now
        reads[number] += 1000
        time.sleep((number + 1) * REST_S)


def start_readers() -> None:
    for number in range(READERS):
        threading.Thread(target=hammer, args=(number,), daemon=True).start()


def fork_child() -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)
    while True:
        time.sleep(0.002)


def bench() -> int:
    begin = time.perf_counter_ns()
    for _ in range(200_000):
        time.time_ns()
    return (time.perf_counter_ns() - begin) // 200_000


def main() -> None:
    start = time.monotonic_ns()
    signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"child %d\n" % time.time_ns()))
    start_readers()
    for line in sys.stdin:
        word = line.strip()
        if word == "read":
            print(time.time_ns(), time.monotonic_ns() - start, sum(jumps), sum(reads), flush=True)
        elif word == "fork":
            print(fork_child(), flush=True)
        elif word == "exec":
            status = subprocess.run(["true"], check=False).returncode
            print("ok" if status == 0 else "failed", flush=True)
        elif word == "bench":
            print(bench(), flush=True)


if __name__ == "__main__":
    main()
