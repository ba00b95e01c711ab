// The official TypeScript SDKs, first and second generation, with an adapter as their stdio server; see `run`.

import { load } from '../clients/ledger.mjs';

const [driver, mode, , command, ...args] = process.argv.slice(2);
const failures = [];
const check = (what, holds, seen) => holds || failures.push(`${what}: ${JSON.stringify(seen)}`);
const asked = [];
const answer = (request) => {
  asked.push(request.params.message);
  return { action: 'accept', content: { approved: true } };
};

async function first() {
  const [{ Client }, { StdioClientTransport }, types] = await load(
    '@modelcontextprotocol/sdk/client/index.js',
    '@modelcontextprotocol/sdk/client/stdio.js',
    '@modelcontextprotocol/sdk/types.js',
  );
  const client = new Client({ name: 'ts1', version: '1' }, { capabilities: { elicitation: {} } });
  client.setRequestHandler(types.ElicitRequestSchema, answer);
  await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));
  const call = (name, args, how) => client.callTool({ name, arguments: args }, undefined, how);
  return { client, call, version: undefined };
}

async function second() {
  const [{ Client }, { StdioClientTransport }] = await load('@modelcontextprotocol/client', '@modelcontextprotocol/client/stdio');
  const client = new Client(
    { name: 'ts2', version: '2' },
    { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: mode === 'modern' ? { pin: '2026-07-28' } : mode } },
  );
  client.setRequestHandler('elicitation/create', answer);
  await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));
  const call = (name, args, how) => client.callTool({ name, arguments: args }, how);
  return { client, call, version: client.getNegotiatedProtocolVersion() };
}

const { client, call, version } = await (driver === 'ts1' ? first() : second());
const tools = (await client.listTools()).tools.map((tool) => tool.name);
check('list tools', tools.includes('slow_progress'), tools);
const found = await call('add', { a: 2, b: 3 });
check('call', found.structuredContent?.result === 5, found);
check('text', (await call('echo', { message: 'grüße ✓' })).content[0].text === 'grüße ✓');
check('tool error', (await call('fail', {})).isError === true);
const code = await call('raise_rpc', { code: 1001 }).then(() => undefined, (error) => error.code);
check('protocol error', code === 1001, code);
let steps = 0;
const report = await call('slow_progress', { steps: 4, pause_ms: 50 }, { onprogress: () => (steps += 1) });
check('progress', steps === 4 && !report.isError, { steps, report });
const approved = await call('ask', {});
check('elicitation', asked.length === 1 && !approved.isError, { asked, approved });
const read = await client.readResource({ uri: 'test://greeting' });
check('resource', read.contents.length === 1, read);
const controller = new AbortController();
const cancelled = call('slow_progress', { steps: 50, pause_ms: 50 }, {
  onprogress: () => controller.abort('enough'),
  signal: controller.signal,
}).then(() => false, () => true);
check('cancel', await cancelled);
const many = await Promise.all(Array.from({ length: 20 }, (_, at) => call('add', { a: at, b: 1 })));
check('side by side', many.every((one, at) => one.structuredContent?.result === at + 1), many);
await client.close();
console.log(JSON.stringify({ driver, mode, version, ok: failures.length === 0, failures }));
process.exit(failures.length === 0 ? 0 : 1);
