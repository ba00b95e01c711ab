// The client under test of the suite's client scenarios: the official TypeScript SDK, doing what every scenario asks for. It connects, lists
// what there is and calls each tool once.
//
//   node client.mjs URL
//
// MCP_CONFORMANCE_PROTOCOL_VERSION says which revision to speak, MCP_CONFORMANCE_CONTEXT which calls to make where that matters.

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const { load } = await import(pathToFileURL(join(process.env.MCP_RUNTIME_SERVICES_INSTALLED, 'npm', 'load.mjs')).href);
const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client');

const url = process.argv.at(-1);
const version = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION;
const mode = version === undefined || version >= '2026-07-28' ? { pin: '2026-07-28' } : 'legacy';
const client = new Client(
  { name: 'conformance', version: '1' },
  { capabilities: { elicitation: { form: { applyDefaults: true } } }, versionNegotiation: { mode } },
);
client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { confirmed: true } }));
await client.connect(new StreamableHTTPClientTransport(new URL(url)));

/** A value of the kind that a schema asks for. */
function made(schema = {}) {
  if (schema.enum) return schema.enum[0];
  if (schema.type === 'number' || schema.type === 'integer') return 7;
  if (schema.type === 'boolean') return true;
  if (schema.type === 'array') return [];
  if (schema.type === 'object' || schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, each]) => [name, made(each)]));
  }
  return 'text';
}

const { tools } = await client.listTools();
const { toolCalls } = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
for (const call of toolCalls ?? tools.map(({ name, inputSchema }) => ({ name, arguments: made(inputSchema) }))) {
  // A scenario may have tools that refuse to be called; it looks at what was sent.
  await client.callTool(call).catch(() => {});
}
for (const list of ['listResources', 'listPrompts']) await client[list]().catch(() => {});
await client.close();
