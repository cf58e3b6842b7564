"""A web service of one thread, in asyncio; "ready PORT" is its first line."""

import asyncio


def counted(prefix: str) -> object:
    """A method that closes over a variable."""
    calls = 0

    async def order(_: object, path: str) -> bytes:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return f"{prefix} {path}".encode()

    return order


class Shop:
    """Takes orders."""

    order = counted("ordered")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection; what fails is a 500."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            try:
                status, body = "200 OK", await Shop().order(head.split()[1].decode())
            except Exception as error:  # noqa: BLE001 - as a framework does
                status, body = "500 Error", f"{type(error).__name__}: {error}".encode()
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
