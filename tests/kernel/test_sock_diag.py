"""TCP sockets of a namespace, listed as they are and ended one by one."""

from __future__ import annotations

import os
import socket

import pytest

from squall.kernel.sock_diag import ESTABLISHED, LISTEN, End, can_destroy, destroy, packed, sockets

pytestmark = pytest.mark.kernel


def pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname()[:2])
    server, _ = listener.accept()
    client.settimeout(5)
    return client, server


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_listening_socket_and_both_ends_of_a_connection_are_listed(host: str, family: int) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        client, server = pair(listener)
        with client, server:
            (found,) = [one for one in sockets(LISTEN) if one.local.port == port]
            assert found.local == End(packed(host), port)
            assert found.inode == os.fstat(listener.fileno()).st_ino
            ends = {one.inode: one for one in sockets(ESTABLISHED)}
            mine, theirs = ends[os.fstat(client.fileno()).st_ino], ends[os.fstat(server.fileno()).st_ino]
            assert (mine.local, mine.remote) == (theirs.remote, theirs.local)
            assert str(mine.remote) == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@pytest.mark.parametrize("alone", [True, False])
def test_a_socket_for_all_addresses_says_whether_it_takes_ipv4_too(alone: bool) -> None:  # noqa: FBT001
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(alone))
        listener.bind(("::", 0))
        listener.listen()
        (found,) = [one for one in sockets(LISTEN) if one.local.port == listener.getsockname()[1]]
        assert found.v6only is alone
        assert found.local.host == "::"


def test_only_the_connection_that_is_named_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends = [pair(listener) for _ in range(2)]
        (client, server), (other, others_server) = ends
        with client, server, other, others_server:
            named = [one for one in sockets(ESTABLISHED) if one.inode == os.fstat(client.fileno()).st_ino]
            assert destroy(named) == 1
            with pytest.raises(ConnectionAbortedError):
                client.recv(1)
            with pytest.raises(ConnectionResetError):
                server.recv(1)
            others_server.sendall(b"x")
            assert other.recv(1) == b"x"
            assert destroy(named) == 0, "it is gone, and nobody has its identity"


def test_this_kernel_says_that_it_can() -> None:
    can, reason = can_destroy()
    if not can:
        pytest.skip(reason)
    assert reason == ""
