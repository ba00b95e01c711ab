"""Drives a server with the second generation of the official Python SDK, in either protocol era.

tests/clients/run py2 --url URL --server everything|python|demo [--mode legacy|auto|modern] [--header NAME=VALUE]...
"""

from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from ledger import Ledger, main, options

given = options(["legacy", "auto", "modern"])
ledger = Ledger("py2", "mcp 2.3.0", given)


async def elicited(_context: Any, _params: Any) -> types.ElicitResult:
    return types.ElicitResult(**ledger.elicited())


async def sampled(_context: Any, _params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(
        role="assistant", model="none", content=types.TextContent(type="text", text="hello back")
    )


def ask(client: Client, step: dict[str, Any], on_progress: Any) -> Any:
    name, args = step.get("name", ""), step.get("arguments")
    match step["method"]:
        case "tools/list":
            return client.list_tools()
        case "tools/call":
            return client.call_tool(name, args, progress_callback=on_progress)
        case "resources/list":
            return client.list_resources()
        case "resources/read":
            return client.read_resource(name)
        case "prompts/list":
            return client.list_prompts()
        case "prompts/get":
            return client.get_prompt(name, args)
        case method:
            request = types.Request[types.RequestParams | None, str](method=method, params=None)
            return client.session.send_request(request, types.EmptyResult)


async def drive() -> None:
    mode = "2026-07-28" if given.mode == "modern" else given.mode
    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(transport=ledger.wire.transport(httpx2), headers=given.headers, timeout=timeout) as http,
        Client(
            streamable_http_client(given.url, http_client=http),
            mode=mode,
            client_info=types.Implementation(name="py2", version="2.3.0"),
            elicitation_callback=elicited,
            sampling_callback=sampled,
        ) as client,
    ):

        async def run(step: dict[str, Any], on_progress: Any, cancel: anyio.Event | None) -> Any:
            if cancel is None:
                return await ask(client, step, on_progress)
            # Leaving a scope cancels the call inside it; the SDK then tells the server, each era in its own way.
            result = None
            async with anyio.create_task_group() as group:

                async def leave() -> None:
                    await cancel.wait()
                    group.cancel_scope.cancel()

                group.start_soon(leave)
                result = await ask(client, step, on_progress)
                group.cancel_scope.cancel()
            return result

        await ledger.scenario(client.protocol_version, run)


main(ledger, drive)
