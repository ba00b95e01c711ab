"""An agent: calls tools with the official Python SDK and prints one JSON line about each call.

agent.py http URL HEADER=VALUE... -- TOOL=ARGUMENTS...
agent.py stdio COMMAND... -- TOOL=ARGUMENTS...
"""

import json
import sys
from contextlib import asynccontextmanager

import anyio
import httpx
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


refused_outright = []


async def told(response):
    """Notes an answer that ends the connection: the SDK tells only its status."""
    if response.status_code >= 400 and response.request.method == "POST":
        await response.aread()
        data = response.json().get("error", {}).get("data", {})
        refused_outright.append({"ok": False, "status": response.status_code, "reason": data.get("reason"), "hint": data.get("hint")})


@asynccontextmanager
async def connection(kind, words):
    if kind == "stdio":
        import os

        server = StdioServerParameters(command=words[0], args=words[1:], env=dict(os.environ))
        async with stdio_client(server) as streams:
            yield streams
        return
    headers = dict(word.split("=", 1) for word in words[1:])
    timeout = httpx.Timeout(30, read=60)
    hooks = {"response": [told]}
    async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False, event_hooks=hooks) as http:
        async with streamable_http_client(words[0], http_client=http) as (read, write, _):
            yield read, write


async def main():
    kind, *rest = sys.argv[1:]
    at = len(rest) - 1 - rest[::-1].index("--")
    async with connection(kind, rest[:at]) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        try:
            tools = await session.list_tools()
            print(json.dumps({"listed": sorted(tool.name for tool in tools.tools)}), flush=True)
        except McpError as error:
            print(json.dumps(refusal(error)), flush=True)
        for word in rest[at + 1 :]:
            tool, _, arguments = word.partition("=")
            try:
                result = await session.call_tool(tool, json.loads(arguments or "{}"))
                print(json.dumps({"tool": tool, "ok": not result.isError}), flush=True)
            except McpError as error:
                print(json.dumps({"tool": tool} | refusal(error)), flush=True)


def refusal(error):
    data = error.error.data or {}
    return {"ok": False, "message": error.error.message, "reason": data.get("reason"), "hint": data.get("hint")}


try:
    anyio.run(main)
except BaseExceptionGroup:
    if not refused_outright:
        raise
    print(json.dumps(refused_outright[-1]), flush=True)
