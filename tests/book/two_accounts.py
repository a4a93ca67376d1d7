"""One address for the simulators of two accounts: the key of a query chooses."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from kling_omni_async.simulator import SimulatedCometAPI


@asynccontextmanager
async def one_address(*accounts: SimulatedCometAPI) -> AsyncGenerator[str]:
    """Serve simulators that run already; gives the base URL of them all."""
    urls = {f"Bearer {api.api_key}": api.base_url for api in accounts}

    async def pass_on(request: web.Request) -> web.Response:
        headers = {"Authorization": request.headers["Authorization"]}
        url = urls[headers["Authorization"]] + request.path_qs
        async with http.get(url, headers=headers) as answer:
            body, kind = await answer.read(), answer.content_type
        return web.Response(status=answer.status, body=body, content_type=kind)

    app = web.Application()
    app.router.add_get("/{path:.*}", pass_on)
    runner = web.AppRunner(app, shutdown_timeout=0)
    async with aiohttp.ClientSession() as http:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()
