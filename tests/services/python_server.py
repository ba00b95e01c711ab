"""An MCP server on the official Python SDK, for tests: both protocol eras at one URL, and a tool per outcome.

Prints {"url": ...} once it listens on 127.0.0.1. It ends on SIGTERM, SIGINT, or when a pipe on its standard input
closes, so it never outlives its starter.

    tests/services/python_server.sh [--port PORT] [--json-response] [--stateless]

Unlike server-everything it also speaks 2026-07-28, refuses a foreign `Host`, and answers cancelled calls.
"""

import argparse
import json
import os
import socket
import stat
import sys
import threading
from typing import Annotated

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.shared.exceptions import MCPError
from mcp_types import ToolAnnotations
from pydantic import BaseModel

READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False)
DESTROYS = ToolAnnotations(read_only_hint=False, destructive_hint=True)

# Waits are bounded, whatever a caller asks for.
SECONDS_MAX = 60.0
BYTES_MAX = 8 * 1024 * 1024
STEPS_MAX = 1000

server = MCPServer(
    name="python-everything",
    version="1.0.0",
    instructions="A server for tests: every tool ends in a known way.",
    log_level="WARNING",
)


class Approval(BaseModel):
    approved: bool


async def question() -> Elicit[Approval]:
    return Elicit("Approve the transfer?", Approval)


@server.tool(annotations=READS, structured_output=False)
def echo(message: str) -> str:
    """Answers with the message."""
    return message


@server.tool(annotations=READS)
def add(a: int, b: int) -> int:
    """Adds two numbers; the answer is structured."""
    return a + b


@server.tool(annotations=WRITES)
def fail(reason: str = "the ledger is closed") -> str:
    """Always fails, as a tool does: a result with isError."""
    raise ToolError(reason)


@server.tool(annotations=WRITES)
def raise_rpc(code: int = 1001) -> str:
    """Always fails, as a protocol does: a JSON-RPC error."""
    raise MCPError(code=code, message="the ledger cannot be read", data={"shelf": 7})


@server.tool(annotations=READS, structured_output=False)
async def slow_progress(ctx: Context, steps: int = 4, pause_ms: int = 300) -> str:
    """Reports `steps` times, the first time at once, then answers."""
    steps = min(steps, STEPS_MAX)
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step} of {steps}")
        await anyio.sleep(min(pause_ms / 1000, SECONDS_MAX))
    return f"{steps} steps done"


@server.tool(annotations=READS, structured_output=False)
async def long_wait(ctx: Context, seconds: float = 30) -> str:
    """Reports once, then waits: time to cancel it."""
    await ctx.report_progress(0, 1, "waiting")
    await anyio.sleep(min(seconds, SECONDS_MAX))
    return "nobody cancelled"


@server.tool(annotations=DESTROYS, structured_output=False)
async def ask(answer: Annotated[Approval, Resolve(question)]) -> str:
    """Asks the caller first: an elicitation before 2026-07-28, an input_required result since."""
    return "approved" if answer.approved else "declined"


@server.tool(annotations=READS, structured_output=False)
def big(bytes: int = 1024 * 1024) -> str:
    """Answers with this many bytes of text."""
    return "x" * min(bytes, BYTES_MAX)


@server.resource("test://greeting", mime_type="text/plain")
def greeting() -> str:
    """A fixed text."""
    return "good morning"


@server.resource("test://invoice/{number}", mime_type="application/json")
def invoice(number: str) -> str:
    """An invoice by number."""
    return json.dumps({"number": number, "cents": 1250})


@server.prompt()
def review(subject: str) -> str:
    """Asks for a review of a subject."""
    return f"Review {subject} and name its three weakest points."


class Announced(uvicorn.Server):
    """Tells where it listens once it does, and leaves when its starter's pipe closes."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()
        print(json.dumps({"url": f"http://{host}:{port}/mcp", "pid": os.getpid()}), flush=True)
        mode = os.fstat(0).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            threading.Thread(target=self._leave_with_starter, daemon=True).start()

    def _leave_with_starter(self) -> None:
        while sys.stdin.buffer.read(4096):
            pass
        self.should_exit = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--json-response", action="store_true", help="answer legacy calls as JSON instead of SSE")
    parser.add_argument("--stateless", action="store_true", help="hand out no legacy sessions")
    args = parser.parse_args()
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without, answers take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    app = server.streamable_http_app(json_response=args.json_response, stateless_http=args.stateless)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    anyio.run(Announced(config).serve, [listener])


if __name__ == "__main__":
    main()
