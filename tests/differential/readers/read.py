"""Reads bodies (base64, one a line) as a server on CPython would, and prints what it makes of each as a line of JSON."""

import base64
import json
import sys

for line in sys.stdin:
    read = {"ok": False}
    try:
        message = json.loads(base64.b64decode(line))
        params = message.get("params") or {}
        read = {
            "ok": True,
            "method": message.get("method"),
            "name": params.get("name"),
            "uri": params.get("uri"),
            "arguments": params.get("arguments"),
        }
        text = json.dumps(read)
    except (ValueError, AttributeError, RecursionError):
        text = json.dumps({"ok": False})
    print(text, flush=True)
