"""Calls tools of one server with the official Python SDK, a line of standard input at a time.

    call.py URL [HEADER=VALUE]...

Each line is {"name": …, "arguments": {…}}; each answer is {"ok": true} or {"refused": …} on a line of its own.
"""

import json
import sys

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def call(client: Client, wish: dict) -> dict:
    try:
        result = await client.call_tool(wish["name"], wish.get("arguments", {}))
    except Exception as fault:  # whatever the SDK makes of a refusal is what its user sees
        error = getattr(fault, "error", None)
        return {"refused": str(fault), "data": getattr(error, "data", None)}
    return {"ok": not result.is_error}


async def main() -> None:
    url, *headers = sys.argv[1:]
    given = dict(header.split("=", 1) for header in headers)
    async with (
        httpx2.AsyncClient(headers=given, timeout=httpx2.Timeout(30, read=300)) as http,
        Client(streamable_http_client(url, http_client=http), mode="legacy") as client,
    ):
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await call(client, json.loads(line))), flush=True)


anyio.run(main)
