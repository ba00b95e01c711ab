// An OpenID provider for tests: the npm package oidc-provider, on 127.0.0.1 and a free port, with everything in memory.
// It prints {"issuer": ..., "pid": ...} once it listens, and ends on SIGTERM, SIGINT, or when a pipe on its input closes.
//
// Clients:
//   service   secret `service-secret`; client_credentials. With `resource=URL` the access token is a JWT whose `aud` is URL.
//   web       secret `web-secret`; authorization_code and refresh_token; redirects to http://127.0.0.1:ANY/callback and to
//             http://127.0.0.1:ANY/auth/callback
//   cli       public (no secret), PKCE; authorization_code, refresh_token and the device code; redirects as `web`
//   others    register themselves at POST /reg (RFC 7591), with redirect URIs of their own
//
// Every path of the provider is as usual (/auth, /token, /jwks, /device/auth, /device, /me, discovery). People need no page: the
// login and the consent approve themselves, as the account in `login_hint`, or else as the one of /test/account. A client that
// follows redirects and keeps cookies therefore gets from /auth to its redirect URI without a form. Any name is an account; its
// claims are sub, email (NAME@example.com, verified), name, preferred_username, and what /test/account set.
//
// Controls, all POST with a JSON body and answer:
//   /test/account  {"account": "alice", "claims": {"groups": ["x"]}}  who approves by default, and claims of that account
//   /test/claims   {"team": "a", ...}     more claims of every JWT access token from now on; {} removes them
//   /test/approve  {"user_code": "ABCD-EFGH", "account": "alice", "deny": false}   settles a device's code
//   /test/rotate   {"keep": true}         signs with a new key; without `keep` the old ones are withdrawn
//   /test/sign     {"header": {...}, "claims": {...}, "key": "current"|"stranger"}   {"token"}: any JWT, also a malformed one;
//                  `alg` decides the key's kind (RS256, PS256, ES256, EdDSA, HS256 with the public key as its secret, none)
//   /test/away     {"away": true}         drops every connection but those to /test until {"away": false}
//   /test/counts   {}                     {"discovery": 1, "jwks": 1, ...}: how often each path was asked

import { fstatSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { generateKeyPairSync, randomUUID } from 'node:crypto';

const services = process.env.MCP_RUNTIME_SERVICES_INSTALLED;
const port = Number(process.argv[2] ?? 0);
if (!services || !Number.isInteger(port)) {
  console.error('usage: oidc.sh [PORT]');
  process.exit(2);
}
// Standard output is for the issuer alone, and the package's advice on productive use is for nobody.
console.log = console.info = console.debug = console.warn = () => {};

const { load } = await import(pathToFileURL(join(services, 'npm', 'load.mjs')).href);
const { default: Provider } = await load('oidc-provider');
const { SignJWT, exportJWK, importJWK, base64url } = await load('jose');

const KINDS = { RS256: ['rsa', { modulusLength: 2048 }], ES256: ['ec', { namedCurve: 'P-256' }], EdDSA: ['ed25519', {}] };

async function newKeys() {
  const keys = [];
  for (const [alg, [kind, options]] of Object.entries(KINDS)) {
    const { privateKey } = generateKeyPairSync(kind, options);
    keys.push({ ...(await exportJWK(privateKey)), kid: `${alg}-${randomUUID()}`, use: 'sig', ...(alg === 'RS256' ? {} : { alg }) });
  }
  return keys;
}

let issuer;
let keys = await newKeys();
const strangers = await newKeys();
let account = 'alice';
let tokenClaims = {};
let isAway = false;
let handle;
const accounts = new Map();
const counts = {};

const redirects = ['http://127.0.0.1/callback', 'http://127.0.0.1/auth/callback'];
const code = { application_type: 'native', redirect_uris: redirects, response_types: ['code'] };
const clients = [
  {
    client_id: 'service',
    client_secret: 'service-secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  },
  { client_id: 'web', client_secret: 'web-secret', grant_types: ['authorization_code', 'refresh_token'], ...code },
  {
    client_id: 'cli',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    ...code,
  },
];
const SCOPES = 'openid profile email groups offline_access mcp tools:read tools:write';

function start(published) {
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys: published },
    cookies: { keys: ['test'] },
    scopes: SCOPES.split(' '),
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'], groups: ['groups'] },
    conformIdTokenClaims: false,
    pkce: { required: (_context, client) => client.tokenEndpointAuthMethod === 'none' },
    responseTypes: ['code'],
    issueRefreshToken: (_context, client) => client.grantTypeAllowed('refresh_token'),
    extraTokenClaims: () => tokenClaims,
    ttl: { AccessToken: 3600, ClientCredentials: 3600, DeviceCode: 600, IdToken: 3600, RefreshToken: 86400, Grant: 86400 },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: `${id}@example.com`,
        email_verified: true,
        name: id,
        preferred_username: id,
        ...accounts.get(id),
      }),
    }),
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      registration: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: (_context, _client, oneOf) => oneOf,
        useGrantedResource: () => true,
        getResourceServerInfo: (_context, resource) => ({
          scope: SCOPES,
          audience: resource,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  const callback = provider.callback();
  handle = (request, response) =>
    request.url.startsWith('/interaction/') ? settle(provider, request, response) : callback(request, response);
  return provider;
}

// Login and consent in place of a person: first the one, then, on the next redirect, the other.
async function settle(provider, request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  let result;
  if (prompt.name === 'login') {
    result = { login: { accountId: params.login_hint ?? account } };
  } else {
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    allow(grant, prompt.details);
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

function allow(grant, { missingOIDCScope, missingOIDCClaims, missingResourceScopes }) {
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(' '));
}

async function approve({ user_code: userCode, account: name = account, deny = false }) {
  const device = await provider.DeviceCode.findByUserCode(userCode.toUpperCase().replace(/\W/g, ''));
  if (!device) throw new Error(`no device waits with ${userCode}`);
  if (deny) {
    Object.assign(device, { error: 'access_denied', errorDescription: 'refused by the test' });
  } else {
    const { scope = 'openid', resource } = device.params;
    const grant = new provider.Grant({ accountId: name, clientId: device.clientId });
    grant.addOIDCScope(scope);
    for (const each of [resource ?? []].flat()) grant.addResourceScope(each, scope);
    const authTime = Math.floor(Date.now() / 1000);
    Object.assign(device, { accountId: name, grantId: await grant.save(), scope, resource, authTime, claims: {} });
  }
  await device.save();
  return {};
}

async function sign({ header = {}, claims = {}, key = 'current' }) {
  const alg = header.alg ?? 'RS256';
  const part = (value) => base64url.encode(JSON.stringify(value));
  if (alg === 'none') return { token: `${part({ alg, ...header })}.${part(claims)}.` };
  const kind = alg in KINDS && alg !== 'RS256' ? alg : 'RS256';
  const from = key === 'stranger' ? strangers : keys;
  const { alg: _own, ...jwk } = from.find(({ kid }) => kid.startsWith(kind));
  const { n, e, kty } = jwk;
  const secret = alg.startsWith('HS')
    ? new TextEncoder().encode(JSON.stringify({ kty, e, n }))
    : await importJWK({ ...jwk, alg }, alg);
  const head = { alg, kid: key === 'stranger' ? keys[0].kid : jwk.kid, ...header };
  for (const [name, value] of Object.entries(head)) if (value === null) delete head[name];
  return { token: await new SignJWT(claims).setProtectedHeader(head).sign(secret) };
}

const controls = {
  account: ({ account: name, claims }) => {
    account = name ?? account;
    if (claims) accounts.set(account, claims);
    return { account };
  },
  claims: (claims) => ((tokenClaims = claims), {}),
  approve,
  rotate: async ({ keep = false }) => {
    const fresh = await newKeys();
    provider = start(keep ? [...fresh, ...keys] : fresh);
    keys = fresh;
    return {};
  },
  sign,
  away: ({ away }) => ((isAway = away), {}),
  counts: () => counts,
};

async function control(request, response, name) {
  let text = '';
  for await (const piece of request) text += piece;
  let status = 200;
  let answer;
  try {
    if (!(name in controls)) throw new Error(`no control named ${name}`);
    answer = await controls[name](text ? JSON.parse(text) : {});
  } catch (error) {
    status = 400;
    answer = { error: String(error.message ?? error) };
  }
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
}

let provider;
const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, issuer);
  if (pathname.startsWith('/test/')) return void control(request, response, pathname.slice('/test/'.length));
  if (isAway) return void request.socket.destroy();
  const name = pathname.startsWith('/.well-known/') ? 'discovery' : pathname.slice(1);
  counts[name] = (counts[name] ?? 0) + 1;
  Promise.resolve(handle(request, response)).catch((error) => {
    if (!response.headersSent) response.writeHead(500);
    response.end(String(error));
  });
});
server.listen(port, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  provider = start(keys);
  process.stdout.write(`${JSON.stringify({ issuer, pid: process.pid })}\n`);
});

for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
const stdin = fstatSync(0);
if (stdin.isFIFO() || stdin.isSocket()) {
  process.stdin.on('end', () => process.exit(0));
  process.stdin.on('error', () => process.exit(0));
  process.stdin.resume();
}
