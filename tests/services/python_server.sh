#!/usr/bin/env bash
# Runs the Python SDK server (both protocol eras) on 127.0.0.1 and prints {"url": ...}; see python_server.py.
#
#   tests/services/python_server.sh [--port PORT] [--json-response] [--stateless]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
services=$("$here/install.sh" python)
exec "$services/mcp2/bin/python" "$here/python_server.py" "$@"
