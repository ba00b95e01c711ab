// Runs the reference server `server-everything` over streamable HTTP and prints {"url": ...} once it listens.
//
// The package listens on every interface and lets nothing but the port be chosen. It also offers a tool that shows the
// environment, so this launcher guards the bind: every listen of this process goes to 127.0.0.1, and to a free
// port unless one is given (`everything.sh 3001`).
//
// It ends on SIGTERM, SIGINT, or when a pipe on its standard input closes, so it never outlives its starter.

import { fstatSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Server } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const services = process.env.MCP_RUNTIME_SERVICES_INSTALLED;
const port = Number(process.argv[2] ?? 0);
if (!services || !Number.isInteger(port)) {
  console.error('usage: everything.sh [PORT]');
  process.exit(2);
}

// Standard output is for the URL alone.
console.log = console.info = console.debug = () => {};

const listen = Server.prototype.listen;
Server.prototype.listen = function (_where, ...rest) {
  this.once('listening', () => {
    const { address, port } = this.address();
    process.stdout.write(`${JSON.stringify({ url: `http://${address}:${port}/mcp`, pid: process.pid })}\n`);
  });
  return listen.call(this, { host: '127.0.0.1', port }, ...rest.filter((each) => typeof each === 'function'));
};

for (const signal of ['SIGTERM', 'SIGINT']) process.prependListener(signal, () => process.exit(0));
const stdin = fstatSync(0);
if (stdin.isFIFO() || stdin.isSocket()) {
  process.stdin.on('end', () => process.exit(0));
  process.stdin.on('error', () => process.exit(0));
  process.stdin.resume();
}

const packages = createRequire(join(services, 'npm', 'load.mjs'));
const entry = join(packages.resolve('@modelcontextprotocol/server-everything/package.json'), '..', 'dist', 'index.js');
// The package reads its transport from the first argument. It will name port 3001 on standard error: what it asked
// for, not what the guard above gave it.
process.argv = [process.argv[0], entry, 'streamableHttp'];
await import(pathToFileURL(entry).href);
