#!/usr/bin/env bash
# Runs a real OpenID provider (npm oidc-provider) on 127.0.0.1 and prints {"issuer": ...}; see oidc.mjs.
#
#   tests/services/oidc/oidc.sh [PORT]        a free port unless one is given
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MCP_RUNTIME_SERVICES_INSTALLED=$("$here/../install.sh" node)
export MCP_RUNTIME_SERVICES_INSTALLED
exec "$MCP_RUNTIME_SERVICES_INSTALLED/bin/node" "$here/oidc.mjs" "$@"
