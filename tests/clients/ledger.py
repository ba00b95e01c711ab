"""The part the Python drivers share: it reads the scenario, watches the wire below the SDK, and writes the ledger.

The ledger must not repeat the SDK's opinion, so every HTTP exchange is observed in the HTTP client's transport,
classified here, and compared with two others: what the scenario expects, and what the SDK's caller was told.
The two generations of the SDK use different HTTP libraries of the same shape, hence the `http` parameter.
"""

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import anyio

STEP_SECONDS_MAX = 30
META_VERSION = "io.modelcontextprotocol/protocolVersion"
TOLD = {"ok": "result", "tool_error": "tool_error", "rpc_error": "error", "denied": "error", "cancelled": "cancelled"}


def options(modes: list[str]) -> argparse.Namespace:
    scenarios = json.loads((Path(__file__).parent / "scenario.json").read_text())
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--server", required=True, choices=list(scenarios))
    parser.add_argument("--mode", choices=modes, default="legacy")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--denied", action="append", default=[], metavar="NAME")
    parser.add_argument("--skip", action="append", default=[], metavar="STEP")
    given = parser.parse_args()
    given.scenario = scenarios[given.server]
    given.headers = dict(each.split("=", 1) for each in given.header)
    if given.mode not in ("auto", *given.scenario["eras"]):
        parser.error("a server that speaks legacy alone cannot be driven with --mode modern")
    return given


def ms() -> float:
    return time.perf_counter() * 1000


class Events:
    """Splits a stream of bytes into SSE events and hands on the data of each. Knows `\\n` and `\\r\\n`."""

    def __init__(self, on_data: Any) -> None:
        self._on_data = on_data
        self._rest = b""
        self._data: list[str] = []

    def take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode()
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif line == "":
                if "".join(self._data):
                    self._on_data("\n".join(self._data))
                self._data = []


class Wire:
    """Watches every exchange below the SDK and keeps one entry per JSON-RPC request sent."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        names = ("post_requests", "post_notifications", "post_responses", "get", "get_resumed", "delete")
        self.http = dict.fromkeys(names, 0)
        self.notifications: list[str] = []
        self.server_requests: list[str] = []
        self.step = "connect"

    def transport(self, http: Any) -> Any:
        """A transport for the HTTP library `http` that watches what passes through it."""
        wire = self

        class Watched(http.AsyncByteStream):
            def __init__(self, inner: Any, kind: str, call: dict[str, Any] | None) -> None:
                self._inner, self._kind, self._call = inner, kind, call

            async def __aiter__(self) -> Any:
                events = Events(lambda data: wire.received(json.loads(data), self._call))
                whole = b""
                async for chunk in self._inner:
                    if self._kind == "text/event-stream":
                        events.take(chunk)
                    else:
                        whole += chunk
                    yield chunk
                if self._kind == "application/json" and whole:
                    wire.received(json.loads(whole), self._call)

            async def aclose(self) -> None:
                await self._inner.aclose()

        class Transport(http.AsyncHTTPTransport):
            async def handle_async_request(self, request: Any) -> Any:
                call = wire.sent(request.method, await request.aread(), request.headers)
                try:
                    response = await super().handle_async_request(request)
                except Exception as fault:
                    if call is not None:
                        call.setdefault("fault", repr(fault))
                    raise
                kind = response.headers.get("content-type", "").split(";")[0]
                if call is not None:
                    call["http_status"], call["content_type"] = response.status_code, kind
                response.stream = Watched(response.stream, kind, call)
                return response

        return Transport()

    def sent(self, method: str, body: bytes, headers: Any) -> dict[str, Any] | None:
        if method != "POST":
            self.http[method.lower()] += 1
            if "last-event-id" in headers:
                self.http["get_resumed"] += 1
            return None
        message = json.loads(body)
        if "method" not in message:
            self.http["post_responses"] += 1
            return None
        params = message.get("params") or {}
        if "id" not in message:
            self.http["post_notifications"] += 1
            self.notifications.append(message["method"])
            target = self._last("request_id", params.get("requestId"))
            if message["method"] == "notifications/cancelled" and target is not None:
                target["cancelled"] = True
            return None
        self.http["post_requests"] += 1
        meta = params.get("_meta") or {}
        call = {
            "n": len(self.calls),
            "step": self.step,
            "rpc_method": message["method"],
            "name": params.get("name", params.get("uri")),
            "request_id": message["id"],
            "modern": META_VERSION in meta,
            "protocol_version": headers.get("mcp-protocol-version"),
            "token": meta.get("progressToken"),
            "start": ms(),
            "progress_count": 0,
            "progress_replayed": 0,
            "server_requests": [],
        }
        self.calls.append(call)
        return call

    def received(self, message: dict[str, Any], call: dict[str, Any] | None) -> None:
        if "method" in message and "id" in message:
            self.server_requests.append(message["method"])
            if call is not None:
                call["server_requests"].append(message["method"])
        elif message.get("method") == "notifications/progress":
            target = self._last("token", message["params"].get("progressToken"))
            if target is None:
                return
            if target is not call:
                target["progress_replayed"] += 1
                return
            target["progress_count"] += 1
            target.setdefault("first_progress_ms", ms() - target["start"])
        elif "method" not in message:
            # An error may carry no id; it then belongs to the request whose answer this is.
            target = call if message.get("id") is None else self._last("request_id", message["id"]) or call
            if target is None or "answer" in target:
                return
            target["answer"] = message
            target["result_ms"] = ms() - target["start"]

    def _last(self, key: str, value: Any) -> dict[str, Any] | None:
        return next((call for call in reversed(self.calls) if value is not None and call[key] == value), None)


def outcome(call: dict[str, Any]) -> str:
    """What a recorder between client and server has to find, judged from what came over the wire."""
    if call.get("cancelled"):
        return "cancelled"
    answer = call.get("answer")
    if answer is None:
        # Since 2026-07-28 closing the stream is the cancel. Earlier, a call without an answer is a lost one.
        return "cancelled" if call["modern"] and call["wanted"] == "cancelled" else "transport_error"
    if error := answer.get("error"):
        known = -32099 <= error["code"] <= -32020
        if isinstance(error.get("data"), dict) and "decision_id" in error["data"]:
            return "denied"
        if call["modern"] and call["rpc_method"] == "server/discover" and call["http_status"] >= 300 and not known:
            return "era_probe"
        return "rpc_error"
    if answer["result"].get("isError") is True:
        return "tool_error"
    if answer["result"].get("resultType") == "input_required":
        return "input_required"
    return "ok"


class Ledger:
    def __init__(self, client: str, sdk: str, given: argparse.Namespace) -> None:
        self.given = given
        self.wire = Wire()
        self.failures: list[str] = []
        self.current: dict[str, Any] = {}
        self.head = {"client": client, "sdk": sdk, "server": given.server, "mode": given.mode}

    def elicited(self) -> dict[str, Any]:
        """What the client answers when the server asks its user."""
        return self.current.get("answer", {"action": "decline"})

    async def scenario(self, version: str, run: Any) -> None:
        """Runs every step through `run(step, on_progress, cancel)`, which returns the result or raises."""
        self.head["protocol_version"] = version
        self.head["era"] = "modern" if version >= "2026-07-28" else "legacy"
        for call in self.wire.calls:
            probe = call["rpc_method"] == "server/discover" and self.head["era"] == "legacy"
            call["wanted"] = "era_probe" if probe else "ok"
        for step in self.given.scenario["steps"]:
            if step["step"] not in self.given.skip:
                with anyio.fail_after(STEP_SECONDS_MAX):
                    await self._step(run, step)
        self.current = {}
        self.wire.step = "close"

    async def _step(self, run: Any, step: dict[str, Any]) -> None:
        self.current, self.wire.step = step, step["step"]
        before, callbacks, first = len(self.wire.calls), 0, anyio.Event()

        async def on_progress(*_: Any) -> None:
            nonlocal callbacks
            callbacks += 1
            first.set()

        cancel = first if step.get("cancel") else None
        told = await self._told(run, step, on_progress if "progress" in step or cancel else None, cancel)
        denied = step.get("name") in self.given.denied
        wanted = step["outcome"]
        outcomes = ["denied"] if denied else wanted if isinstance(wanted, list) else wanted[self.head["era"]]
        sent = self.wire.calls[before:]
        own = [call for call in sent if call["rpc_method"] == step["method"] and call["name"] == step.get("name")]
        for call in sent:
            call["wanted"], call["implicit"] = "ok", call not in own
        for call, each in zip(own, outcomes, strict=False):
            call["wanted"] = each
        if len(own) != len(outcomes):
            self._complain(step, f"sent {len(own)} requests instead of {len(outcomes)}")
        if told["kind"] != TOLD[outcomes[-1]]:
            self._complain(step, f"the caller was told {told}")
        if own:
            own[-1]["sdk"] = told
            if not denied:
                self._details(step, own, callbacks)

    async def _told(self, run: Any, step: dict[str, Any], on_progress: Any, cancel: anyio.Event | None) -> dict[str, Any]:
        try:
            result = await run(step, on_progress, cancel)
        except Exception as fault:
            error = getattr(fault, "error", None)
            return {"kind": "error", "code": getattr(error, "code", None), "message": str(fault)[:200]}
        if result is None:
            return {"kind": "cancelled"}
        failed = getattr(result, "is_error", getattr(result, "isError", False))
        return {"kind": "tool_error" if failed else "result"}

    def _details(self, step: dict[str, Any], own: list[dict[str, Any]], callbacks: int) -> None:
        last = own[-1]
        if "rpc_code" in step:
            code = last.get("answer", {}).get("error", {}).get("code")
            if code != step["rpc_code"]:
                self._complain(step, f"code {code} instead of {step['rpc_code']}")
        if "progress" in step:
            if last["progress_count"] != step["progress"]:
                self._complain(step, f"{last['progress_count']} progress notifications instead of {step['progress']}")
            if callbacks != last["progress_count"] + last["progress_replayed"]:
                self._complain(step, f"{callbacks} progress callbacks")
            spread = last.get("result_ms", 0) - last.get("first_progress_ms", 0)
            if spread < step["spread_ms_min"]:
                self._complain(step, "progress came together with the result: something on the way collects the stream")
        if "server_request" in step:
            legacy = [each for call in own for each in call["server_requests"]]
            modern = [each for call in own for each in input_requests(call)]
            asked = modern if self.head["era"] == "modern" else legacy
            if asked != [step["server_request"]]:
                self._complain(step, f"the server asked {asked} instead of {step['server_request']}")

    def _complain(self, step: dict[str, Any], text: str) -> None:
        self.failures.append(f"{step['step']}: {text}")

    def write(self) -> int:
        calls = []
        for call in self.wire.calls:
            if "wanted" not in call:
                call["wanted"], call["implicit"] = "ok", True
            seen = outcome(call)
            if seen != call["wanted"]:
                fault = f" ({call['fault']})" if "fault" in call else ""
                self.failures.append(f"{call['step']}: {call['rpc_method']} ended {seen} instead of {call['wanted']}{fault}")
            calls.append(entry(call, seen))
        ledger = {
            **self.head,
            "ok": not self.failures,
            "failures": self.failures,
            "calls": calls,
            "notifications": self.wire.notifications,
            "server_requests": self.wire.server_requests,
            "http": self.wire.http,
        }
        print(json.dumps(ledger, indent=2, ensure_ascii=False), flush=True)
        return 0 if ledger["ok"] else 1


def input_requests(call: dict[str, Any]) -> list[str]:
    result = call.get("answer", {}).get("result", {})
    return [each["method"] for each in (result.get("inputRequests") or {}).values()]


def entry(call: dict[str, Any], seen: str) -> dict[str, Any]:
    error = call.get("answer", {}).get("error", {})
    data = error.get("data")
    made = {
        "n": call["n"],
        "step": call["step"],
        "rpc_method": call["rpc_method"],
        "name": call["name"],
        "request_id": call["request_id"],
        "implicit": call.get("implicit") or None,
        "expected_outcome": call["wanted"],
        "ok": seen == call["wanted"],
        "observed": {
            "outcome": seen,
            "http_status": call.get("http_status"),
            "content_type": call.get("content_type"),
            "rpc_code": error.get("code"),
            "reason": data.get("reason") if isinstance(data, dict) else None,
            "protocol_version": call["protocol_version"],
            "sdk": call.get("sdk"),
        },
        "server_requests": call["server_requests"],
        "input_requests": input_requests(call),
        "progress_count": call["progress_count"],
        "progress_replayed": call["progress_replayed"],
        "first_progress_ms": rounded(call.get("first_progress_ms")),
        "result_ms": rounded(call.get("result_ms")),
    }
    made["observed"] = {key: value for key, value in made["observed"].items() if value is not None}
    return {key: value for key, value in made.items() if value is not None}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def main(ledger: Ledger, drive: Any) -> None:
    """Runs `drive()` and writes the ledger, also when it fails half way."""
    try:
        anyio.run(drive)
    except Exception:
        ledger.failures.append(f"{ledger.wire.step}: {traceback.format_exc()}")
    code = ledger.write()
    sys.stdout.flush()
    # The SDKs may leave tasks behind after a lost connection; the ledger is written, so nothing is lost by leaving.
    os._exit(code)
