#!/usr/bin/env bash
# Runs server-everything (MCP 2025-11-25 and earlier) on 127.0.0.1 and prints {"url": ...}; see everything.mjs.
#
#   tests/services/everything.sh [PORT]        a free port unless one is given
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MCP_RUNTIME_SERVICES_INSTALLED=$("$here/install.sh" node)
export MCP_RUNTIME_SERVICES_INSTALLED
exec "$MCP_RUNTIME_SERVICES_INSTALLED/bin/node" "$here/everything.mjs" "$@"
