"""A service with Squall's middleware in it: `python3 examples/middleware/shop.py [PORT]`.

Needs `pip install squall-resilience uvicorn`. The last line but one is all that the middleware takes; what it does is
decided by experiments and by SQUALL_CHAOS_* in the environment.
"""

import json
import sys
from typing import Any

import uvicorn

from squall_resilience.chaos import ChaosSettings
from squall_resilience.chaos.asgi import ChaosMiddleware


async def shop(scope: Any, receive: Any, send: Any) -> None:
    """Takes every order; knows nothing of chaos."""
    if scope["type"] == "lifespan":
        for end in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{end}.complete"})
        return
    body = json.dumps({"status": "confirmed"}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


app = ChaosMiddleware(shop, ChaosSettings.from_environment(ChaosSettings(service="shop", driven=True)))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if sys.argv[1:] else 18095, log_level="warning")
