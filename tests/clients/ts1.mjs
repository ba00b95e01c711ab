// Drives a server with the first generation of the official TypeScript SDK, which speaks 2025-11-25 and earlier.
//
//   tests/clients/run ts1 --url URL --server everything|python|demo [--header NAME=VALUE]...

import { Ledger, load, options } from './ledger.mjs';

const [{ Client }, { StreamableHTTPClientTransport }, types] = await load(
  '@modelcontextprotocol/sdk/client/index.js',
  '@modelcontextprotocol/sdk/client/streamableHttp.js',
  '@modelcontextprotocol/sdk/types.js',
);

const given = options(['legacy']);
const ledger = new Ledger('ts1', '@modelcontextprotocol/sdk 1.32.2', given);
const client = new Client({ name: 'ts1', version: '1.32.2' }, { capabilities: { sampling: {}, elicitation: {} } });
client.setRequestHandler(types.ElicitRequestSchema, ledger.answers['elicitation/create']);
client.setRequestHandler(types.CreateMessageRequestSchema, ledger.answers['sampling/createMessage']);
const transport = new StreamableHTTPClientTransport(new URL(given.url), {
  fetch: ledger.wire.fetch,
  requestInit: { headers: given.headers },
});

await ledger.run({
  async connect() {
    await client.connect(transport);
    return transport.protocolVersion;
  },
  run({ method, name, arguments: args }, how) {
    switch (method) {
      case 'tools/list':
        return client.listTools(undefined, how);
      case 'tools/call':
        return client.callTool({ name, arguments: args }, undefined, how);
      case 'resources/list':
        return client.listResources(undefined, how);
      case 'resources/read':
        return client.readResource({ uri: name }, how);
      case 'prompts/list':
        return client.listPrompts(undefined, how);
      case 'prompts/get':
        return client.getPrompt({ name, arguments: args }, how);
      default:
        return client.request({ method }, types.EmptyResultSchema, how);
    }
  },
  async close() {
    if (transport.sessionId) await transport.terminateSession();
    await client.close();
  },
});
