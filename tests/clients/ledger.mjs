// The part the TypeScript drivers share: it reads the scenario, watches the wire below the SDK, and writes the ledger.
//
// The ledger must not repeat the SDK's opinion, so every HTTP exchange is observed in `fetch`, classified here, and
// compared with two others: what the scenario expects, and what the SDK's caller was told.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const STEP_MS_MAX = 30_000;
const META_VERSION = 'io.modelcontextprotocol/protocolVersion';

export const now = () => performance.now();

export function options(modes) {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      mode: { type: 'string', default: 'legacy' },
      server: { type: 'string' },
      header: { type: 'string', multiple: true, default: [] },
      denied: { type: 'string', multiple: true, default: [] },
      skip: { type: 'string', multiple: true, default: [] },
    },
  });
  const scenarios = JSON.parse(readFileSync(fileURLToPath(new URL('scenario.json', import.meta.url)), 'utf8'));
  const scenario = scenarios[values.server];
  const eras = values.mode === 'auto' ? ['legacy', 'modern'] : [values.mode];
  if (!values.url || !scenario || !modes.includes(values.mode) || !eras.some((era) => scenario.eras.includes(era))) {
    console.error(`usage: --url URL --server ${Object.keys(scenarios).join('|')} [--mode ${modes.join('|')}]`);
    console.error('       [--header NAME=VALUE]... [--denied NAME]... [--skip STEP]...');
    console.error('a server that speaks legacy alone cannot be driven with --mode modern');
    process.exit(2);
  }
  const headers = Object.fromEntries(values.header.map((each) => each.split(/=(.*)/s, 2)));
  return { ...values, headers, scenario };
}

/** Loads an SDK from where install.sh put it. */
export async function load(...names) {
  const services = process.env.MCP_RUNTIME_SERVICES_INSTALLED;
  if (!services) {
    console.error('start this through tests/clients/run, which installs the SDKs and says where they are');
    process.exit(2);
  }
  const { load } = await import(pathToFileURL(join(services, 'npm', 'load.mjs')).href);
  return Promise.all(names.map(load));
}

/** Splits a stream of text into SSE events and hands on the data of each. Knows `\n` and `\r\n`. */
function sse(onData) {
  let rest = '';
  let data = [];
  return (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const raw of lines) {
      const line = raw.replace(/\r$/, '');
      if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
      else if (line === '') {
        if (data.join('') !== '') onData(data.join('\n'));
        data = [];
      }
    }
  };
}

/** Watches every exchange below the SDK and keeps one entry per JSON-RPC request sent. */
export class Wire {
  calls = [];
  http = { post_requests: 0, post_notifications: 0, post_responses: 0, get: 0, get_resumed: 0, delete: 0 };
  notifications = [];
  serverRequests = [];
  step = 'connect';

  fetch = async (input, init = {}) => {
    const method = (init.method ?? 'GET').toUpperCase();
    if (method !== 'POST') {
      this.http[method.toLowerCase()] += 1;
      if (new Headers(init.headers).has('last-event-id')) this.http.get_resumed += 1;
      return this.#watch(await fetch(input, init), undefined);
    }
    const call = this.#sent(JSON.parse(init.body), new Headers(init.headers));
    try {
      return this.#watch(await fetch(input, init), call);
    } catch (fault) {
      if (call) call.fault ??= String(fault);
      throw fault;
    }
  };

  #sent(message, headers) {
    if (message.method === undefined) {
      this.http.post_responses += 1;
      return undefined;
    }
    if (message.id === undefined) {
      this.http.post_notifications += 1;
      this.notifications.push(message.method);
      const target = this.calls.findLast((each) => each.request_id === message.params?.requestId);
      if (message.method === 'notifications/cancelled' && target) target.cancelled = true;
      return undefined;
    }
    this.http.post_requests += 1;
    const call = {
      n: this.calls.length,
      step: this.step,
      rpc_method: message.method,
      name: message.params?.name ?? message.params?.uri,
      request_id: message.id,
      modern: message.params?._meta?.[META_VERSION] !== undefined,
      protocol_version: headers.get('mcp-protocol-version') ?? undefined,
      token: message.params?._meta?.progressToken,
      start: now(),
      progress_count: 0,
      progress_replayed: 0,
      server_requests: [],
    };
    this.calls.push(call);
    return call;
  }

  #watch(response, call) {
    const kind = (response.headers.get('content-type') ?? '').split(';')[0];
    if (call) {
      call.http_status = response.status;
      call.content_type = kind;
    }
    if (!response.body) return response;
    const text = new TextDecoder();
    const whole = [];
    const events = sse((data) => this.#received(JSON.parse(data), call));
    const take = (chunk) => (kind === 'text/event-stream' ? events(text.decode(chunk, { stream: true })) : whole.push(chunk));
    const done = () => {
      if (kind === 'application/json' && whole.length > 0) this.#received(JSON.parse(Buffer.concat(whole).toString()), call);
    };
    // A pass-through, not a tee: cancelling one half of a tee would not close the connection, and in the modern era
    // closing it is how a call is cancelled.
    const seen = response.body.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          take(chunk);
          controller.enqueue(chunk);
        },
        flush: done,
      }),
    );
    return new Response(seen, { status: response.status, statusText: response.statusText, headers: response.headers });
  }

  #received(message, call) {
    if (message.method !== undefined && message.id !== undefined) {
      this.serverRequests.push(message.method);
      call?.server_requests.push(message.method);
    } else if (message.method === 'notifications/progress') {
      const target = this.calls.findLast((each) => each.token !== undefined && each.token === message.params?.progressToken);
      if (!target) return;
      // The first TypeScript SDK resumes the stream of every call that ended in a JSON-RPC error, a second later, and
      // server-everything then replays whatever followed, whichever call it belonged to.
      if (target !== call) return void (target.progress_replayed += 1);
      target.progress_count += 1;
      target.first_progress_ms ??= now() - target.start;
    } else if (message.method === undefined) {
      // An error may carry no id; it then belongs to the request whose answer this is.
      const target = message.id == null ? call : (this.calls.findLast((each) => each.request_id === message.id) ?? call);
      if (!target || target.answer) return;
      target.answer = message;
      target.result_ms = now() - target.start;
    }
  }
}

/** What a recorder between client and server has to find, judged from what came over the wire. */
function outcome(call) {
  const { answer } = call;
  if (call.cancelled) return 'cancelled';
  if (answer === undefined) {
    // Since 2026-07-28 closing the stream is the cancel. Earlier, a call without an answer is a lost one.
    return call.modern && call.wanted === 'cancelled' ? 'cancelled' : 'transport_error';
  }
  if (answer.error) {
    const known = answer.error.code <= -32020 && answer.error.code >= -32099;
    if (answer.error.data?.decision_id !== undefined) return 'denied';
    if (call.modern && call.rpc_method === 'server/discover' && call.http_status >= 300 && !known) return 'era_probe';
    return 'rpc_error';
  }
  if (answer.result?.isError === true) return 'tool_error';
  if (answer.result?.resultType === 'input_required') return 'input_required';
  return 'ok';
}

const TOLD = { ok: 'result', tool_error: 'tool_error', rpc_error: 'error', denied: 'error', cancelled: 'cancelled' };

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end within ${STEP_MS_MAX} ms`)), STEP_MS_MAX);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What the SDK told its caller. */
async function told(run, controller) {
  try {
    const result = await run;
    return result?.isError ? { kind: 'tool_error' } : { kind: 'result' };
  } catch (fault) {
    if (controller.signal.aborted) return { kind: 'cancelled' };
    return { kind: 'error', code: fault.code, message: String(fault.message).slice(0, 200) };
  }
}

export class Ledger {
  failures = [];

  constructor(client, sdk, options) {
    this.options = options;
    this.wire = new Wire();
    this.head = { client, sdk, server: options.server, mode: options.mode };
  }

  /** What the client answers when the server asks. */
  answers = {
    'elicitation/create': () => this.current?.answer ?? { action: 'decline' },
    'sampling/createMessage': () => ({ role: 'assistant', model: 'none', content: { type: 'text', text: 'hello back' } }),
  };

  /** Runs the scenario. `sdk` has `connect() -> version`, `run(step, {onprogress, signal})` and `close()`. */
  async run(sdk) {
    try {
      const version = await within(sdk.connect(), 'connect');
      this.head.protocol_version = version;
      this.head.era = version >= '2026-07-28' ? 'modern' : 'legacy';
      for (const call of this.wire.calls) this.#expect(call, call.rpc_method === 'server/discover' && this.head.era === 'legacy' ? 'era_probe' : 'ok');
      for (const step of this.options.scenario.steps) {
        if (!this.options.skip.includes(step.step)) await this.#step(sdk, step);
      }
      this.wire.step = 'close';
      await within(sdk.close(), 'close');
    } catch (fault) {
      this.failures.push(`${this.wire.step}: ${fault?.stack ?? fault}`);
    }
    return this.#write();
  }

  async #step(sdk, step) {
    this.current = step;
    this.wire.step = step.step;
    const before = this.wire.calls.length;
    const controller = new AbortController();
    let callbacks = 0;
    const onprogress = () => {
      callbacks += 1;
      if (step.cancel) controller.abort('the driver cancels after the first progress');
    };
    const wants = step.progress || step.cancel ? { onprogress } : {};
    const said = await within(told(sdk.run(step, { ...wants, signal: controller.signal }), controller), step.step);
    const denied = this.options.denied.includes(step.name);
    const outcomes = denied ? ['denied'] : Array.isArray(step.outcome) ? step.outcome : step.outcome[this.head.era];
    const sent = this.wire.calls.slice(before);
    const own = sent.filter((call) => call.rpc_method === step.method && call.name === step.name);
    for (const call of sent) if (!own.includes(call)) this.#expect(call, 'ok', true);
    if (own.length !== outcomes.length) this.failures.push(`${step.step}: sent ${own.length} requests instead of ${outcomes.length}`);
    own.forEach((call, at) => this.#expect(call, outcomes[at] ?? 'none'));
    const last = own.at(-1);
    if (last) last.sdk = said;
    if (said.kind !== TOLD[outcomes.at(-1)]) this.failures.push(`${step.step}: the caller was told ${JSON.stringify(said)}`);
    if (denied || !last) return;
    this.#details(step, own, last, callbacks);
  }

  #details(step, own, last, callbacks) {
    const complain = (text) => this.failures.push(`${step.step}: ${text}`);
    if (step.rpc_code !== undefined && last.answer?.error?.code !== step.rpc_code) complain(`code ${last.answer?.error?.code} instead of ${step.rpc_code}`);
    if (step.progress !== undefined) {
      if (last.progress_count !== step.progress) complain(`${last.progress_count} progress notifications instead of ${step.progress}`);
      if (callbacks !== last.progress_count + last.progress_replayed) complain(`${callbacks} progress callbacks`);
      if (!(last.result_ms - last.first_progress_ms >= step.spread_ms_min)) complain('progress came together with the result: something on the way collects the stream');
    }
    if (step.server_request !== undefined) {
      const legacy = own.flatMap((call) => call.server_requests);
      const modern = own.flatMap((call) => Object.values(call.answer?.result?.inputRequests ?? {}).map((each) => each.method));
      const asked = this.head.era === 'modern' ? modern : legacy;
      if (asked.join() !== step.server_request) complain(`the server asked [${asked}] instead of [${step.server_request}]`);
    }
  }

  #expect(call, wanted, implicit) {
    call.wanted = wanted;
    if (implicit) call.implicit = true;
  }

  #write() {
    for (const call of this.wire.calls) if (call.wanted === undefined) this.#expect(call, 'ok', true);
    const round = (ms) => (ms === undefined ? undefined : Math.round(ms * 10) / 10);
    const calls = this.wire.calls.map((call) => {
      const seen = outcome(call);
      if (seen !== call.wanted) this.failures.push(`${call.step}: ${call.rpc_method} ended ${seen} instead of ${call.wanted}${call.fault ? ` (${call.fault})` : ''}`);
      return {
        n: call.n,
        step: call.step,
        rpc_method: call.rpc_method,
        name: call.name,
        request_id: call.request_id,
        implicit: call.implicit,
        expected_outcome: call.wanted,
        ok: seen === call.wanted,
        observed: {
          outcome: seen,
          http_status: call.http_status,
          content_type: call.content_type,
          rpc_code: call.answer?.error?.code,
          reason: call.answer?.error?.data?.reason,
          protocol_version: call.protocol_version,
          sdk: call.sdk,
        },
        server_requests: call.server_requests,
        input_requests: Object.values(call.answer?.result?.inputRequests ?? {}).map((each) => each.method),
        progress_count: call.progress_count,
        progress_replayed: call.progress_replayed,
        first_progress_ms: round(call.first_progress_ms),
        result_ms: round(call.result_ms),
      };
    });
    const { http, notifications, serverRequests } = this.wire;
    const ok = this.failures.length === 0;
    const ledger = { ...this.head, ok, failures: this.failures, calls, notifications, server_requests: serverRequests, http };
    process.stdout.write(`${JSON.stringify(ledger, null, 2)}\n`, () => process.exit(ok ? 0 : 1));
  }
}
