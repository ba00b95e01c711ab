"""ClickHouse's HTTP interface on the engine that the PyPI package chdb carries: a real ClickHouse without its server.

    server.py FOLDER [--port N] [--forget]

Prints `listening on 127.0.0.1:PORT` once it answers, keeps its data in FOLDER, and ends when its standard input does, so that it
never outlives who started it; with --forget it removes FOLDER
then, too. Killing it with SIGKILL and starting it on the same folder is what the fault tests do.

What a client of the real server can rely on here: queries in the body or in `query`, settings and `param_*` in the address or in a
multipart body, `database`, `default_format`, chunked and block-compressed (`decompress=1`, LZ4 or none) bodies of inserts, errors
as text with `X-ClickHouse-Exception-Code`. There are no users, no sessions and no compressed answers; what confines a query is its
own settings (`readonly=1` and `additional_table_filters`), which the engine keeps it from changing.
"""

import email.parser
import email.policy
import http.server
import os
import queue
import re
import shutil
import struct
import sys
import tempfile
import threading
import urllib.parse

import pyarrow
from chdb.state.sqlitelike import Connection

FOLDER = os.path.abspath(sys.argv[1])
PORT = int(sys.argv[sys.argv.index("--port") + 1]) if "--port" in sys.argv else 0
# Parameters of the interface itself; everything else in an address is a setting of the query.
OWN = {"query", "database", "default_format", "decompress", "compress", "user", "password", "role", "query_id"}
OWN |= {"session_id", "enable_http_compression", "wait_end_of_query", "send_progress_in_http_headers"}
INSERT_FORMAT = re.compile(r"\s+FORMAT\s+(\w+)\s*$", re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)")
# Idle connections kept per set of settings, and sets kept.
IDLE_MAX = 8
SETS_MAX = 32


class Pool:
    """Connections to the one engine, by the settings they were opened with: a query's settings are its connection's."""

    def __init__(self):
        self.lock = threading.Lock()
        self.idle = {}

    def take(self, settings):
        key = urllib.parse.urlencode(sorted(settings.items()))
        with self.lock:
            kept = self.idle.get(key)
            if kept and not kept.empty():
                return key, kept.get_nowait()
        return key, Connection(FOLDER + ("?" + key if key else ""))

    def give(self, key, connection):
        with self.lock:
            if key not in self.idle and len(self.idle) >= SETS_MAX:
                for other in [other for other in self.idle if other]:
                    while not self.idle[other].empty():
                        self.idle[other].get_nowait().close()
                    del self.idle[other]
            kept = self.idle.setdefault(key, queue.Queue(IDLE_MAX))
            if not kept.full():
                kept.put_nowait(connection)
                return
        connection.close()


POOL = Pool()


def literal(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def decompressed(body):
    """ClickHouse's block framing: checksum (16 bytes), method, both sizes, data."""
    pieces, at = [], 0
    while at < len(body):
        method, packed, size = struct.unpack_from("<BII", body, at + 16)
        data = body[at + 25 : at + 16 + packed]
        if method == 0x82:
            data = pyarrow.Codec("lz4_raw").decompress(data, size).to_pybytes()
        elif method != 0x02:
            raise ValueError(f"compression method {method:#x} is not known here")
        pieces.append(data)
        at += 16 + packed
    return b"".join(pieces)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while True:
            size = self.rfile.readline()
            if not size.strip():
                raise ConnectionError("the body ends within a chunk")
            size = int(size.split(b";")[0], 16)
            piece = self.rfile.read(size)
            if len(piece) < size or not self.rfile.readline():
                raise ConnectionError("the body ends within a chunk")
            if size == 0:
                return b"".join(pieces)
            pieces.append(piece)

    def do_GET(self):
        if self.path in ("/", "/ping"):
            self.answer(200, b"Ok.\n")
        else:
            self.do_POST()

    def do_POST(self):
        # A body that breaks off was never a request: nothing of it may be stored.
        body = self.body()
        given = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, keep_blank_values=True))
        try:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/form-data"):
                head = f"Content-Type: {kind}\r\n\r\n".encode()
                form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
                for part in form.iter_parts():
                    name = part.get_param("name", header="content-disposition")
                    given[name] = part.get_payload(decode=True).decode()
                body = b""
            if given.get("decompress") == "1":
                body = decompressed(body)
            self.answer(200, self.run(given, body))
        except Exception as fault:  # Whatever fails is told to the client as the real server would.
            text = str(fault)
            code = CODE.search(text)
            self.answer(500, text.strip().encode() + b"\n", {"X-ClickHouse-Exception-Code": code.group(1) if code else "1"})

    def run(self, given, body):
        settings = {name: value for name, value in given.items() if name not in OWN and not name.startswith("param_")}
        params = {name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")}
        query, data = given.get("query"), body
        if query is None:
            query, data = body.decode(), b""
        query = query.strip().rstrip(";")
        stored = INSERT_FORMAT.search(query) if query[:6].upper() == "INSERT" else None
        if stored:
            return self.insert(query[: stored.start()], stored.group(1), settings, data)
        query += data.decode()
        key, connection = POOL.take(settings)
        try:
            if given.get("database", "default") != "default":
                connection.query("USE `" + given["database"].replace("`", "\\`") + "`")
            answer = connection.query(query, given.get("default_format", "TabSeparated"), params=params).bytes()
            if given.get("database", "default") != "default":
                connection.query("USE default")
        except BaseException:
            connection.close()
            raise
        POOL.give(key, connection)
        return answer

    def insert(self, head, form, settings, data):
        """The settings of an insert change each time (its token), so they go into its text instead of a connection."""
        settings.setdefault("input_format_parallel_parsing", "0")
        clause = " SETTINGS " + ", ".join(f"{name} = {literal(value)}" for name, value in settings.items())
        with tempfile.NamedTemporaryFile(dir=os.path.join(FOLDER, "http")) as file:
            file.write(data)
            file.flush()
            key, connection = POOL.take({})
            try:
                connection.query(f"{head} FROM INFILE {literal(file.name)} COMPRESSION 'none'{clause} FORMAT {form}")
            except BaseException:
                connection.close()
                raise
        POOL.give(key, connection)
        return b""

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """A client that is gone is no fault: the fault tests break off many."""


def end_with_parent():
    while os.read(0, 4096):
        pass
    if "--forget" in sys.argv:
        shutil.rmtree(FOLDER, ignore_errors=True)
    os._exit(0)


def main():
    os.makedirs(os.path.join(FOLDER, "http"), exist_ok=True)
    threading.Thread(target=end_with_parent, daemon=True).start()
    # The engine lives as long as one connection does.
    keep = Connection(FOLDER)
    keep.query("SELECT 1")
    server = Server(("127.0.0.1", PORT), Handler)
    print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


main()
