// Bad input: each kind gets its documented answer or close code, is counted, and costs nobody else anything.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import WebSocket from 'ws';
import { startSluice, until, sleep, SECRET, API_TOKEN } from './lib/sluice.mjs';

let s, steady;
before(async () => {
  s = await startSluice({
    config: {
      gateway: { hello: '600ms', heartbeat: '1s', max_sockets: 60 },
      inboxes: {
        web: { origins: ['https://shop.example'], rate: 5, burst: 10 },
        quick: { channel: 'webchat', tenant: 'demo', secret: SECRET, rate: 0, bot: 'faq' },
        strict: { channel: 'webchat', tenant: 'demo', secret: SECRET, allow_no_origin: false },
        loop: { channel: 'loopback', tenant: 'demo', secret: SECRET },
        other: { channel: 'webchat', tenant: 'another', secret: SECRET },
      },
      tokens: { blind: { tenant: 'demo', secret: 'a token without rights', rights: [] } },
    },
  });
  steady = s.visitor({ inbox: 'quick' });
  await steady.connect();
});
// Through all of it somebody else's conversation went on.
after(async () => {
  await steady.say('hello').res;
  assert.equal(steady.closed, null);
  assert.deepEqual(steady.problems, []);
  await s.stop();
});

async function closeOf(client, label) {
  const before = await s.metric('sluice_ws_closed_total', `reason="${label}"`);
  const { code } = await client.whenClosed;
  await until(`${label} is counted`, async () => await s.metric('sluice_ws_closed_total', `reason="${label}"`) > before - 1);
  return code;
}
async function open(options = {}) { const v = s.visitor({ inbox: 'quick', ...options }); await v.connect(); return v; }

const bad = {
  'no JSON': '{"t":',
  'not an object': '42',
  'an unknown type': '{"t":"shout"}',
  'an unknown command': '{"t":"cmd","id":"a","n":1,"topic":"me","k":"launch","d":{}}',
  'a number as text': '{"t":"cmd","id":"a","n":"1","topic":"me","k":"message.send","d":{"text":"x"}}',
  'a negative number': '{"t":"cmd","id":"a","n":-1,"topic":"me","k":"message.send","d":{"text":"x"}}',
  'a kind that nobody knows': '{"t":"cmd","id":"a","n":1,"topic":"me","k":"message.send","d":{"kind":"smell","text":"x"}}',
  'a name with a slash': '{"t":"cmd","id":"a/b","n":1,"topic":"me","k":"message.send","d":{"text":"x"}}',
  'deep nesting': '['.repeat(100) + ']'.repeat(100),
  'a member twice': '{"t":"ping","t":"ping"}',
  'an array with a bad frame': '[{"t":"ping"},{"t":"pong"}]',
  'hello twice': '{"t":"hello","role":"visitor","inbox":"quick"}',
};
for (const [what, text] of Object.entries(bad))
  test(`${what}: 4400`, async () => {
    const v = await open();
    v.raw(text);
    assert.equal(await closeOf(v, 'BAD_FRAME'), 4400);
  });

test('bytes that are not text: 4400, and invalid UTF-8 is refused', async () => {
  const v = await open();
  v.raw(Buffer.from([1, 2, 3]));
  assert.equal(await closeOf(v, 'BAD_FRAME'), 4400);
  const w = await open();
  w.raw(Buffer.from([0x22, 0xff, 0xfe, 0x22]), { binary: false });
  assert.ok([4400, 1007].includes((await w.whenClosed).code));
});

test('64 KiB pass, one byte more is 4413', async () => {
  const pad = n => { const f = '{"t":"ping","x":""}'; return f.replace('""', `"${'y'.repeat(n - f.length)}"`); };
  const v = await open();
  const pong = v.next(f => f.t === 'pong');
  v.raw(pad(65536));
  await pong;
  v.raw(pad(65537));
  assert.equal(await closeOf(v, 'TOO_BIG'), 4413);
});

test('a message in many fragments is put together, and capped', async () => {
  const v = await open();
  const pong = v.next(f => f.t === 'pong');
  for (const part of ['{"t"', ':"pi', 'ng"']) v.raw(part, { fin: false });
  v.raw('}', { fin: true });
  await pong;
  for (let i = 0; i < 70; i++) v.raw('x'.repeat(1024), { fin: false });
  assert.equal(await closeOf(v, 'TOO_BIG'), 4413);
});

test('a text over 32 KiB is refused', async () => {
  const v = await open();
  v.raw(JSON.stringify({ t: 'cmd', id: 'a', n: 1, topic: 'me', k: 'message.send', d: { text: 'z'.repeat(32769) } }));
  assert.equal((await v.whenClosed).code, 4413);
});

test('hello: wrong origin, forged token, unknown inbox, none in time, something else first', async () => {
  await assert.rejects(s.visitor({ origin: 'https://evil.example' }).connect(), { code: 4403 });
  await assert.rejects(s.visitor({ origin: 'https://shop.example.evil.example' }).connect(), { code: 4403 });
  await s.visitor({ origin: 'https://shop.example' }).connect();
  await s.visitor({ inbox: 'quick', origin: s.url() }).connect();
  await assert.rejects(s.visitor({ inbox: 'strict' }).connect(), { code: 4403 });
  await assert.rejects(s.visitor({ inbox: 'nowhere' }).connect(), { code: 4403 });
  const { token } = await open();
  const forged = token.replace(/.$/, c => (c === 'A' ? 'B' : 'A'));
  await assert.rejects(s.visitor({ inbox: 'quick', token: forged }).connect(), { code: 4401 });
  await assert.rejects(s.visitor({ inbox: 'other', token }).connect(), { code: 4401 }, 'a token of another inbox with the same secret');
  await assert.rejects(s.visitor({ inbox: 'quick', token: 'v1.x' }).connect(), { code: 4401 });
  const first = s.visitor({ inbox: 'quick' });
  first.hello = () => ({ t: 'ping' });
  await assert.rejects(first.connect(), { code: 4401 });
  const mute = new WebSocket(s.wsUrl(), 'sluice.v1', { perMessageDeflate: false });
  const code = await new Promise(resolve => mute.on('close', resolve));
  assert.equal(code, 4408);
});

test('an upgrade without the sub-protocol is refused', async () => {
  const code = await new Promise(resolve => {
    const ws = new WebSocket(s.wsUrl());
    ws.on('unexpected-response', (_rq, rs) => resolve(rs.statusCode));
    ws.on('error', () => resolve(0));
    ws.on('open', () => resolve('open'));
  });
  assert.notEqual(code, 'open');
});

// What comes back on a connection of its own for these bytes, and whether the gateway closed it.
const raw = (bytes, ms = 1500) => new Promise(resolve => {
  const socket = net.connect(s.gateways[0].port, '127.0.0.1');
  let text = '', closed = false;
  socket.on('data', data => { text += data.toString('latin1'); });
  socket.on('error', () => {});
  socket.on('close', () => { closed = true; done(); });
  const done = () => { clearTimeout(timer); socket.destroy(); resolve({ codes: [...text.matchAll(/HTTP\/1\.[01] (\d+)/g)].map(m => Number(m[1])), text, closed }); };
  const timer = setTimeout(done, ms);
  socket.write(bytes);
});

const upgrade = (path, to, version = 13, method = 'GET') => `${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n` +
  `Upgrade: ${to}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n` +
  `Sec-WebSocket-Version: ${version}\r\nSec-WebSocket-Protocol: sluice.v1\r\n${method === 'GET' ? '' : 'Content-Length: 0\r\n'}\r\n`;

test('an upgrade to anything but a WebSocket of version 13 at /ws is refused and counted', async () => {
  const before = await s.metric('sluice_ws_refused_total', 'upgrade');
  const refused = [upgrade('/ws', 'h2c'), upgrade('/agent', 'websocket'), upgrade('/ws', 'websocket', 8), upgrade('/ws', 'websocket', 13, 'POST')];
  for (const bytes of refused) assert.deepEqual((await raw(bytes)).codes, [400], bytes);
  assert.deepEqual((await raw(upgrade('/ws', 'websocket'), 300)).codes, [101]);
  assert.equal(await s.metric('sluice_ws_refused_total', 'upgrade'), before + refused.length);
});

test('a request whose end is in doubt gets one 400, and what follows it is not read', async () => {
  const smuggled = 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n';
  const doubtful = ['Content-Length: 5\r\nContent-Length: 36', 'Content-Length: 5, 5', 'Content-Length: 5x', 'Content-Length: +5', 'Content-Length: -1',
    'Content-Length: 99999999999999999999', 'Content-Length: 36\r\nTransfer-Encoding: chunked', 'Transfer-Encoding: chunked'];
  for (const headers of doubtful) {
    const got = await raw(`POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${headers}\r\n\r\n${smuggled}${smuggled}`);
    assert.deepEqual([headers, got.codes, got.closed], [headers, [400], true]);
  }
});

test('a message whose last fragment is empty is whole', async () => {
  const v = await open();
  const pong = v.next(f => f.t === 'pong', 2000);
  v.raw('{"t":"ping"}', { fin: false });
  v.raw('', { fin: true });
  await pong;
});

test("a visitor's topics and commands are his own", async () => {
  const v = await open();
  assert.equal((await v.sub('queue')).code, 'EDENIED');
  await assert.rejects(v.cmd('conv.accept', { ticket: 1 }).ack, { code: 'EDENIED' });
  await assert.rejects(v.cmd('presence.set', { state: 'ready' }).ack, { code: 'EDENIED' });
});

test('too many messages: ERATE, and what was refused can be sent again', async () => {
  const v = await open({ inbox: 'web' });
  const sent = Array.from({ length: 14 }, (_, i) => v.say(`burst ${i}`));
  const outcomes = await Promise.allSettled(sent.map(c => c.ack));
  const refused = outcomes.filter(o => o.status === 'rejected');
  assert.ok(refused.length >= 3, `${refused.length} refused`);
  assert.equal(refused[0].reason.code, 'ERATE');
  assert.equal(outcomes.slice(0, 10).every(o => o.status === 'fulfilled'), true);
});

test('a flood of frames: 4429', async () => {
  const v = await open();
  for (let i = 0; i < 4000; i++) v.raw('{"t":"ping"}');
  assert.equal(await closeOf(v, 'RATE'), 4429);
});

test('a slow reader is closed, resumes and has lost nothing', async () => {
  const token = (await open()).token;
  const slow = s.visitor({ inbox: 'quick', token }), busy = s.visitor({ inbox: 'quick', token });
  await slow.connect();
  await busy.connect();
  const before = await s.metric('sluice_ws_closed_total', 'SLOW') + await s.metric('sluice_ws_closed_total', 'SILENT');
  slow.ws._socket.pause();
  const text = 'w'.repeat(30000);
  let sent = 0;
  await until('it is closed', async () => {
    if (sent < 400) { await busy.say(text).ack; sent++; }
    return await s.metric('sluice_ws_closed_total', 'SLOW') + await s.metric('sluice_ws_closed_total', 'SILENT') > before;
  }, 25000, 1);
  assert.ok(busy.closed === null, 'the quick one is not touched');
  slow.ws.terminate();
  await slow.whenClosed;
  await slow.connect();
  await until('it has caught up', () => slow.topic('me').pos?.[1] >= busy.topic('me').pos[1], 20000);
  assert.deepEqual(slow.problems.filter(p => !p.includes('resumed')), []);
});

test('half-open and slow connections do not hold anything up', async () => {
  const idle = Array.from({ length: 20 }, () => net.connect(s.gateways[0].port, '127.0.0.1'));
  for (const socket of idle) socket.on('error', () => {});
  idle[0].write('GET /ws HT');
  idle[1].write('POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"a"');
  await sleep(200);
  await open();
  assert.equal((await s.get('/livez')).status, 200);
  for (const socket of idle) socket.destroy();
});

test('beyond max_sockets upgrades are refused, and there is room again afterwards', async () => {
  const many = [];
  let refused;
  for (let i = 0; i < 70 && !refused; i++) {
    const v = s.visitor({ inbox: 'quick' });
    many.push(v);
    await v.connect().catch(error => { refused = error.message; });
  }
  assert.match(refused ?? '', /refused/);
  for (const v of many) v.close();
  await until('there is room', async () => { try { (await open()).close(); return true; } catch { return false; } });
});

test('HTTP: wrong token, no right, wrong type, too big, broken JSON, unknown path', async () => {
  const auth = { authorization: `Bearer ${API_TOKEN}` }, message = { inbox: 'quick', address: 'v1', id: 'm1', text: 'hi' };
  assert.equal((await s.post('/v1/messages', message)).status, 401);
  assert.equal((await s.post('/v1/messages', message, { authorization: 'Bearer nope' })).status, 401);
  assert.equal((await s.post('/v1/messages', message, { authorization: 'Bearer a token without rights' })).status, 403);
  assert.equal((await s.post('/v1/messages', { ...message, inbox: 'other' }, auth)).status, 403, "another tenant's inbox");
  assert.equal((await s.post('/v1/messages', message, { ...auth, 'content-type': 'text/plain' })).status, 415);
  assert.equal((await s.post('/v1/messages', '{"a":', auth)).status, 400);
  assert.equal((await s.post('/v1/messages', { ...message, address: 'a/b' }, auth)).status, 400);
  assert.equal((await s.post('/v1/messages', { ...message, text: 'x'.repeat(70000) }, auth)).status, 413);
  assert.equal((await s.post('/v1/messages', { ...message, text: 'x'.repeat(300000) }, auth)).status, 413);
  assert.equal((await s.get('/v1/messages')).status, 405);
  assert.equal((await s.get('/nothing')).status, 404);
  assert.equal((await s.get('/v1/conversations/1.01ARZ3NDEKTSV4RRFFQ69G5FAV', auth)).status, 404);
  assert.equal((await s.post('/v1/login', { tenant: 'demo' })).status, 400);
  const problem = (await s.post('/v1/messages', message)).body;
  assert.equal(problem.code, 'EAUTH');
});

test('HTTP: a message is appended once, and the conversation can be read', async () => {
  const auth = { authorization: `Bearer ${API_TOKEN}` }, message = { inbox: 'quick', address: 'api-1', id: 'm-1', text: 'hello' };
  const first = await s.post('/v1/messages', message, auth);
  assert.equal(first.status, 202);
  const again = await s.post('/v1/messages', message, auth);
  assert.equal(again.status, 202);
  assert.equal(again.body.entry, first.body.entry);
  let conv;
  await until('there is a conversation', async () => {
    for (const key of await s.redisClient.keys('addr:*api-1')) conv = JSON.parse(await s.redisClient.hget(key, 's')).c;
    return conv;
  });
  const read = await until('it has the answer', async () => {
    const got = await s.get(`/v1/conversations/${conv}?from=1`, auth);
    return got.status === 200 && got.body.entries.length >= 2 ? got : null;
  });
  assert.equal(read.body.entries.filter(e => e.m.id === 'm-1').length, 1);
  const tail = await s.get(`/v1/conversations/${conv}?from=2`, auth);
  assert.equal(tail.body.entries[0].n, 2);
});

test('loopback: only with its secret, and the same id is one message', async () => {
  const message = { address: 'l-1', id: 'l-m-1', kind: 'text', text: 'hello' };
  assert.equal((await s.post('/loopback/loop', message)).status, 401);
  const auth = { authorization: `Bearer ${SECRET}` };
  assert.equal((await s.post('/loopback/loop', message, auth)).status, 202);
  assert.equal((await s.post('/loopback/loop', message, auth)).status, 202);
  assert.equal((await s.post('/loopback/nope', message, auth)).status, 404);
});

test('health and pages answer, with a policy for scripts', async () => {
  assert.equal((await s.get('/livez')).status, 200);
  const ready = await s.get('/readyz');
  assert.deepEqual([ready.status, ready.body.ready], [200, true]);
  for (const page of ['/', '/agent']) {
    const got = await s.get(page);
    assert.equal(got.status, 200);
    assert.match(got.headers.get('content-security-policy'), /script-src 'sha256-/);
  }
  assert.ok(await s.metric('sluice_ws_frames_total', 'dir="in"') > 0);
});

test('readyz fails when nobody processes the command log', async () => {
  s.routers[0].pause();
  const v = await open();
  await v.say('is anybody there').ack;
  await until('readyz says so', async () => (await s.get('/readyz')).status === 503, 15000, 200);
  s.routers[0].resume();
  await until('and recovers', async () => (await s.get('/readyz')).status === 200, 15000, 200);
});
