"""`squall proxy`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("proxy")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the HTTP API listens.")
@click.option(
    "--port", default=8474, show_default=True, type=click.IntRange(0, 65535), help="The API's port; 0 finds a free one."
)
@click.option("--config", type=click.Path(dir_okay=False), help="A toxiproxy.json: the proxies to start with.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Decides which connections are hit; by default drawn and shown."
)
@click.option(
    "--busy-poll",
    default=0,
    metavar="MICROSECONDS",
    show_default=True,
    help="Stay awake so long after each event: halves round trips, costs CPU.",
)
@click.option("--realtime", is_flag=True, help="SCHED_FIFO: delays stay exact on a loaded machine (needs root).")
def command(host: str, port: int, config: str | None, seed: int | None, busy_poll: int, realtime: bool) -> None:
    """Serve a TCP and HTTP fault proxy until Ctrl-C; speaks Toxiproxy's HTTP API, so its clients work unchanged."""
    from squall.proxy import serve

    serve(
        host, port, config, {"busy_poll_us": busy_poll, "realtime": realtime}, seed=seed,
        ready=lambda where, number: click.echo(f"squall proxy: API on http://{where}:{number}, Ctrl-C ends it"),
    )  # fmt: skip
