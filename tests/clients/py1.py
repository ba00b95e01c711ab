"""Drives a server with the first generation of the official Python SDK, which speaks 2025-11-25 and earlier.

tests/clients/run py1 --url URL --server everything|python|demo [--header NAME=VALUE]...
"""

from typing import Any

import anyio
import httpx
import mcp.types as types
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from ledger import Ledger, main, options

given = options(["legacy"])
ledger = Ledger("py1", "mcp 1.30.0", given)


async def elicited(_context: Any, _params: Any) -> types.ElicitResult:
    return types.ElicitResult(**ledger.elicited())


async def sampled(_context: Any, _params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(
        role="assistant", model="none", content=types.TextContent(type="text", text="hello back")
    )


def ask(session: ClientSession, step: dict[str, Any], on_progress: Any) -> Any:
    name, args = step.get("name", ""), step.get("arguments")
    match step["method"]:
        case "tools/list":
            return session.list_tools()
        case "tools/call":
            return session.call_tool(name, args, progress_callback=on_progress)
        case "resources/list":
            return session.list_resources()
        case "resources/read":
            return session.read_resource(types.AnyUrl(name))
        case "prompts/list":
            return session.list_prompts()
        case "prompts/get":
            return session.get_prompt(name, args)
        case method:
            request = types.Request[types.RequestParams | None, str](method=method, params=None)
            return session.send_request(request, types.EmptyResult)


async def drive() -> None:
    timeout = httpx.Timeout(30, read=300)
    async with (
        httpx.AsyncClient(transport=ledger.wire.transport(httpx), headers=given.headers, timeout=timeout) as http,
        streamable_http_client(given.url, http_client=http) as (read, write, _session_id),
        ClientSession(
            read,
            write,
            client_info=types.Implementation(name="py1", version="1.30.0"),
            elicitation_callback=elicited,
            sampling_callback=sampled,
        ) as session,
    ):

        async def run(step: dict[str, Any], on_progress: Any, cancel: anyio.Event | None) -> Any:
            if cancel is None:
                return await ask(session, step, on_progress)
            # This SDK abandons a cancelled call without a word, so the notification is sent by hand.
            async with anyio.create_task_group() as group:

                async def leave() -> None:
                    await cancel.wait()
                    params = types.CancelledNotificationParams(
                        requestId=ledger.wire.calls[-1]["request_id"], reason="the driver cancels"
                    )
                    notification = types.CancelledNotification(params=params)
                    await session.send_notification(types.ClientNotification(notification))
                    group.cancel_scope.cancel()

                group.start_soon(leave)
                await ask(session, step, on_progress)
            return None

        initialized = await session.initialize()
        await ledger.scenario(str(initialized.protocolVersion), run)


main(ledger, drive)
