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
check('list tools', tools.includes('list_invoices'), tools);
const found = await call('get_invoice', { id: 'INV-1001' });
check('call', found.structuredContent?.id === 'INV-1001', found);
check('tool error', (await call('get_invoice', { id: 'INV-9999' })).isError === true);
const code = await call('broken_ledger', {}).then(() => undefined, (error) => error.code);
check('protocol error', code === 1001, code);
let steps = 0;
const report = await call('export_report', { month: '2026-10', steps: 4, duration_ms: 400 }, { onprogress: () => (steps += 1) });
check('progress', steps === 4 && !report.isError, { steps, report });
const approved = await call('ask_approval', { id: 'INV-1003' });
check('elicitation', asked.length === 1 && !approved.isError, { asked, approved });
const read = await client.readResource({ uri: 'payments://policy/refunds' });
check('resource', read.contents.length === 1, read);
const controller = new AbortController();
const cancelled = call('export_report', { month: '2026-11', steps: 5, duration_ms: 1500 }, {
  onprogress: () => controller.abort('enough'),
  signal: controller.signal,
}).then(() => false, () => true);
check('cancel', await cancelled);
const many = await Promise.all(Array.from({ length: 20 }, (_, at) => call('get_invoice', { id: `INV-${1001 + (at % 5)}` })));
check('side by side', many.every((one, at) => one.structuredContent?.id === `INV-${1001 + (at % 5)}`), many);
await client.close();
console.log(JSON.stringify({ driver, mode, version, ok: failures.length === 0, failures }));
process.exit(failures.length === 0 ? 0 : 1);
