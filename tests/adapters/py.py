"""The official Python SDKs, first and second generation, with an adapter as their stdio server; see `run`."""

import json
import os
import sys
from typing import Any

import anyio

driver, mode, _, command, *args = sys.argv[1:]
failures: list[str] = []
asked: list[str] = []


def check(what: str, holds: bool, seen: Any = None) -> None:
    if not holds:
        failures.append(f"{what}: {seen}")


async def scenario(call: Any, tools: Any, read: Any, code_of: Any) -> None:
    names = [tool.name for tool in (await tools()).tools]
    check("list tools", "slow_progress" in names, names)
    found = await call("echo", {"message": "grüße ✓"})
    check("call", found.content[0].text == "grüße ✓", found)
    failed = await call("fail", {})
    check("tool error", bool(getattr(failed, "is_error", getattr(failed, "isError", False))), failed)
    try:
        await call("raise_rpc", {"code": 1001})
        check("protocol error", False, "no error")
    except Exception as error:  # noqa: BLE001: each SDK has a class of its own
        check("protocol error", code_of(error) == 1001, repr(error))
    steps: list[float] = []

    async def progress(done: float, _total: float | None, _message: str | None) -> None:
        steps.append(done)

    await call("slow_progress", {"steps": 4, "pause_ms": 50}, progress)
    check("progress", len(steps) == 4, steps)
    await call("ask", {})
    check("elicitation", len(asked) == 1, asked)
    content = await read("test://greeting")
    check("resource", len(content.contents) == 1, content)


async def first() -> str | None:
    from mcp import ClientSession, types
    from mcp.client.stdio import StdioServerParameters, stdio_client

    async def elicited(_context: Any, params: Any) -> Any:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"approved": True})

    server = StdioServerParameters(command=command, args=args, env=dict(os.environ))
    async with stdio_client(server) as (reader, writer), ClientSession(
        reader, writer, elicitation_callback=elicited
    ) as session:
        version = (await session.initialize()).protocolVersion
        await scenario(
            lambda name, arguments, progress=None: session.call_tool(name, arguments, progress_callback=progress),
            session.list_tools,
            session.read_resource,
            lambda error: getattr(getattr(error, "error", None), "code", None),
        )
        return version


async def second() -> str | None:
    import mcp_types as types
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters

    async def elicited(_context: Any, params: Any) -> Any:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"approved": True})

    server = StdioServerParameters(command=command, args=args, env=dict(os.environ))
    chosen = "2026-07-28" if mode == "modern" else mode
    async with Client(server, mode=chosen, elicitation_callback=elicited) as client:
        await scenario(
            lambda name, arguments, progress=None: client.call_tool(name, arguments, progress_callback=progress),
            client.list_tools,
            client.read_resource,
            lambda error: getattr(error, "code", getattr(getattr(error, "error", None), "code", None)),
        )
        return client.protocol_version


version = anyio.run(first if driver == "py1" else second)
print(json.dumps({"driver": driver, "mode": mode, "version": version, "ok": not failures, "failures": failures}))
sys.exit(1 if failures else 0)
