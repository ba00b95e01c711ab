#!/usr/bin/env bash
# Starts the ClickHouse engine behind its HTTP interface and prints `listening on 127.0.0.1:PORT`.
#
#   tests/services/clickhouse/start.sh FOLDER [--port N] [--forget]     data in FOLDER; ends with its standard input, and forgets the data then
#
# Installs what is missing first. A ClickHouse of your own serves the tests as well: set CLICKHOUSE_URL.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
services=$("$here/../install.sh" clickhouse)
exec "$services/clickhouse/bin/python" "$here/server.py" "$@"
