// Drives a server with the second generation of the official TypeScript SDK, in either protocol era.
//
//   tests/clients/run ts2 --url URL --server everything|python|demo [--mode legacy|auto|modern] [--header NAME=VALUE]...

import { Ledger, load, options } from './ledger.mjs';

const [{ Client, StreamableHTTPClientTransport, specTypeSchemas }] = await load('@modelcontextprotocol/client');

const given = options(['legacy', 'auto', 'modern']);
const ledger = new Ledger('ts2', '@modelcontextprotocol/client 2.4.0', given);
const mode = given.mode === 'modern' ? { pin: '2026-07-28' } : given.mode;
const client = new Client(
  { name: 'ts2', version: '2.4.0' },
  { capabilities: { sampling: {}, elicitation: { form: {} } }, versionNegotiation: { mode } },
);
client.setRequestHandler('elicitation/create', ledger.answers['elicitation/create']);
client.setRequestHandler('sampling/createMessage', ledger.answers['sampling/createMessage']);
const transport = new StreamableHTTPClientTransport(new URL(given.url), {
  fetch: ledger.wire.fetch,
  requestInit: { headers: given.headers },
});

await ledger.run({
  async connect() {
    await client.connect(transport);
    return client.getNegotiatedProtocolVersion();
  },
  run({ method, name, arguments: args }, how) {
    switch (method) {
      case 'tools/list':
        return client.listTools(undefined, how);
      case 'tools/call':
        return client.callTool({ name, arguments: args }, how);
      case 'resources/list':
        return client.listResources(undefined, how);
      case 'resources/read':
        return client.readResource({ uri: name }, how);
      case 'prompts/list':
        return client.listPrompts(undefined, how);
      case 'prompts/get':
        return client.getPrompt({ name, arguments: args }, how);
      default:
        return client.request({ method }, specTypeSchemas.EmptyResult, how);
    }
  },
  async close() {
    if (transport.sessionId) await transport.terminateSession();
    await client.close();
  },
});
