"""What runs inside a Python service while one of its functions fails or is late. Its text is handed over, not imported.

Python >= 3.8, standard library only. It lives on a page of memory that it shares with its worker: when the lease there
is over, however the worker ended, every call passes, and the next one gives the function its own code back. Nothing in
here may raise into the service but what was asked for.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
import types
import warnings

TYPE_CHECKING = False
"""As typing has it: that is not imported into a service that does without."""
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

UNTIL, SHARE, MOST, DELAY, SEED, CALLS, HITS, STATE, LONGEST, TEXT, TOOK = 8, 16, 24, 32, 40, 48, 56, 64, 72, 128, 4096
SIZE, TEXT_SIZE, BUCKETS, EXACT = 12288, 512, 320, 8
ARMED, RESTORED, FAILED = 1, 2, 3
MARK = "squall: the hook"
SLICE_S = 0.05
COROUTINE, GENERATOR, OTHERS = 0x80, 0x20, 0x300
FORMS = {
    0: "def {name}(*args, **kwargs):\n  if 0: {free}\n  return '{mark}'(args, kwargs)\n",
    GENERATOR: "def {name}(*args, **kwargs):\n  if 0: {free}\n  return (yield from '{mark}'(args, kwargs))\n",
    COROUTINE: "async def {name}(*args, **kwargs):\n  if 0: {free}\n  return await '{mark}'(args, kwargs)\n",
}


class Page:
    """The shared page: a nameless file that goes when the last who has it open goes."""

    def __init__(self, name: str) -> None:
        fd = os.memfd_create(name)
        try:
            os.ftruncate(fd, SIZE)
            self.memory = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def get(self, at: int) -> int:
        """One 64-bit word."""
        return int(struct.unpack_from("<Q", self.memory, at)[0])

    def put(self, at: int, value: int) -> None:
        """Write one 64-bit word."""
        self.memory[at : at + 8] = struct.pack("<Q", value)

    def record(self, which: int, nanoseconds: int) -> None:
        """Count a time in one of the histograms, as bpf/degrade.bpf.c does."""
        bucket = nanoseconds
        if nanoseconds >= EXACT:
            power = nanoseconds.bit_length() - 1
            bucket = min((power - 2) * 8 + ((nanoseconds >> (power - 3)) & 7), BUCKETS - 1)
        at = TOOK + 8 * (which * BUCKETS + bucket)
        self.put(at, self.get(at) + 1)
        if nanoseconds > self.get(LONGEST + 8 * which):
            self.put(LONGEST + 8 * which, nanoseconds)


class Hook:
    """One function with other code in it, that asks here what each call is to suffer."""

    def __init__(
        self, page: Page, function: types.FunctionType, exception: Callable[[], Exception], *, raises: bool
    ) -> None:
        self.page, self.function, self.exception, self.raises = page, function, exception, raises
        self.lock, self.pid, self.last = threading.RLock(), os.getpid(), 0
        self.own = function.__code__
        self.original = types.FunctionType(
            self.own, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        self.original.__kwdefaults__ = function.__kwdefaults__
        kind = self.own.co_flags & (COROUTINE | GENERATOR)
        self.asyncio: Any = sys.modules.get("asyncio")
        if kind == COROUTINE and not raises and self.asyncio is None:
            raise LookupError(f"{function.__qualname__} is asynchronous, and there is no asyncio in it to wait by")
        self.code: types.CodeType | None = code_for(self.own, kind, self.later if kind == COROUTINE else self.now)

    def arm(self) -> None:
        """Put the hook's code into the function."""
        assert self.code is not None  # noqa: S101 - it was made just now
        self.function.__code__ = self.code
        self.page.put(STATE, ARMED)

    def restore(self) -> None:
        """Put the function's own code back, once or often."""
        with self.lock:
            if self.function.__code__ is self.code:
                self.function.__code__ = self.own
            self.code = None  # which refers to this: the page goes with the last call that is under way
            hooks = sys.__dict__.get("_squall_hooks", {})
            for name in [name for name, hook in hooks.items() if hook is self]:
                del hooks[name]
            if os.getpid() == self.pid:
                self.page.put(STATE, RESTORED)

    def drawn(self) -> bool:
        """Whether this call is hit. Forked children are not, nor is anybody when the lease is over."""
        page = self.page
        if os.getpid() != self.pid or time.monotonic_ns() >= page.get(UNTIL):
            self.restore()
            return False
        with self.lock:
            calls, hits = page.get(CALLS) + 1, page.get(HITS)
            page.put(CALLS, calls)
            if draw(page.get(SEED) + (calls - 1) * 0x9E3779B97F4A7C15) >> 32 >= page.get(SHARE):
                return False
            most = page.get(MOST)
            if most and hits >= most:
                return False
            page.put(HITS, hits + 1)
        return True

    def enter(self) -> float:
        """How long to wait, in seconds; raises what was asked for. Anything wrong in here lets the call pass."""
        try:
            now = time.monotonic_ns()
            with self.lock:
                if self.last:
                    self.page.record(2, now - self.last)
                self.last = now
            hit = self.drawn()
            delay = self.page.get(DELAY) / 1e9 if hit else 0.0
        except Exception:  # noqa: BLE001 - whatever it is, it is not the service's
            return 0.0
        if hit and self.raises:
            raise self.exception()
        return delay

    def holds(self) -> bool:
        """Whether the lease runs."""
        try:
            return time.monotonic_ns() < self.page.get(UNTIL)
        except Exception:  # noqa: BLE001 - whatever it is, it is not the service's
            return False

    def loop_runs(self) -> bool:
        """Whether it is asyncio that runs this call, and not another library's loop."""
        try:
            return self.asyncio.get_running_loop() is not None
        except RuntimeError:
            return False

    def note(self, which: int, began: int) -> None:
        """Record how long it is since then."""
        try:
            with self.lock:
                self.page.record(which, time.monotonic_ns() - began)
        except Exception:  # noqa: BLE001 - whatever it is, it is not the service's
            return

    def now(self, args: Any, kwargs: Any) -> Any:
        """A call of a plain function."""
        began = time.monotonic_ns()
        left = self.enter()
        if left:
            until = time.monotonic() + left
            while left > 0 and self.holds():
                time.sleep(min(left, SLICE_S))
                left = until - time.monotonic()
            self.note(0, began)
        try:
            return self.original(*args, **kwargs)
        finally:
            self.note(1, began)

    async def later(self, args: Any, kwargs: Any) -> Any:
        """A call of an asynchronous one."""
        began = time.monotonic_ns()
        left = self.enter()
        if left:
            until = time.monotonic() + left
            while left > 0 and self.holds() and self.loop_runs():
                await self.asyncio.sleep(min(left, SLICE_S))
                left = until - time.monotonic()
            self.note(0, began)
        try:
            return await self.original(*args, **kwargs)
        finally:
            self.note(1, began)


def draw(counter: int) -> int:
    """The n-th draw of splitmix64, as programs in the kernel have it."""
    z = (counter + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)


def code_for(own: types.CodeType, kind: int, hook: Callable[..., Any]) -> types.CodeType:
    """Code that calls the hook, for a function that closes over the same variables."""
    free = own.co_freevars
    form = FORMS[kind].format(name="hooked", free=", ".join(free) or "0", mark=MARK)
    indented = "".join(f"  {line}\n" for line in form.splitlines())
    source = f"def around({', '.join(free)}):\n{indented}  return hooked\n"
    space: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a text that is called: the hook takes its place
        exec(compile(source, "<squall>", "exec"), space)  # noqa: S102
    code = space["around"](*free).__code__
    if code.co_freevars != free:
        raise ValueError("its variables cannot be closed over")
    constants = tuple(hook if constant == MARK else constant for constant in code.co_consts)
    more = {"co_qualname": own.co_qualname} if hasattr(own, "co_qualname") else {}
    changed: types.CodeType = code.replace(
        co_consts=constants, co_name=own.co_name, co_filename=own.co_filename, co_firstlineno=own.co_firstlineno, **more
    )
    return changed


def find(module: str, qualified: str) -> types.FunctionType:
    """The plain function behind a name, whatever wraps it as a method."""
    found = sys.modules.get(module)
    if found is None:
        raise LookupError(f"there is no module {module} in it")
    for part in qualified.split("."):
        space = getattr(found, "__dict__", {})
        if part not in space and isinstance(found, type):
            space = next((base.__dict__ for base in found.__mro__ if part in base.__dict__), {})
        if part not in space:
            raise LookupError(f"{module} has no {qualified}")
        found = space[part]
    found = getattr(found, "__func__", found)
    if not isinstance(found, types.FunctionType):
        raise LookupError(f"{module}:{qualified} is a {type(found).__name__}, not a function written in Python")  # noqa: TRY004 - one kind for all that is not found
    if found.__code__.co_flags & OTHERS:
        raise LookupError(f"{module}:{qualified} is an asynchronous generator, or an old-style coroutine")
    if any(hook.function is found for hook in sys.__dict__.get("_squall_hooks", {}).values()):
        raise LookupError(f"{module}:{qualified} is held by another run")
    return found


def exception_for(text: str) -> Callable[[], Exception]:
    """What makes the exception that "module.Type: text" asks for, once tried."""
    name, _, words = text.partition(": ")
    module, _, last = name.rpartition(".")
    kind = getattr(sys.modules.get(module or "builtins"), last, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        raise LookupError(f"there is no exception {name} in it")  # noqa: TRY004

    def make() -> Exception:
        return kind(words) if words else kind()

    make()
    return make


def install(
    name: str, module: str, qualified: str, exception: str, *, raises: bool, words: Iterable[tuple[int, int]]
) -> None:
    """Put a hook into a function; what went wrong is written on the page."""
    page = Page(name)
    for at, value in words:
        page.put(at, value)
    try:
        hook = Hook(page, find(module, qualified), exception_for(exception), raises=raises)
        sys.__dict__.setdefault("_squall_hooks", {})[name] = hook
        hook.arm()
    except Exception as error:  # noqa: BLE001 - the worker is told
        text = f"{error}".encode()[:TEXT_SIZE]
        page.memory[TEXT : TEXT + len(text)] = text
        page.put(STATE, FAILED)
        sys.__dict__.setdefault("_squall_failed", []).append(page)  # until the worker has read it
