// HTTP on raw sockets: connections that stay open, requests behind one another and in pieces, what is in doubt, who is slow, who does not read.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import { execFileSync } from 'node:child_process';
import { createHash, createHmac } from 'node:crypto';
import { startSluice, until, sleep, SECRET } from './lib/sluice.mjs';

let s;
const line = allow_ips => ({ channel: 'webhook', tenant: 'demo', scheme: 'line', api_url: 'http://127.0.0.1:9', secret: SECRET, access_token: 'x', allow_ips });
before(async () => {
  s = await startSluice({ config: { inboxes: {
    loop: { channel: 'loopback', tenant: 'demo', secret: SECRET }, near: line(['192.0.2.1', '127.0.0.0/8']), far: line(['10.0.0.0/8']),
  } } });
});
after(async () => { await s.stop(); });

// One connection: what it was answered so far, parsed by lengths, so that anything between two answers is seen.
class Raw {
  constructor() {
    this.socket = net.connect({ port: s.gateways[0].port, host: '127.0.0.1', allowHalfOpen: true });
    this.bytes = Buffer.alloc(0);
    Object.assign(this, { ended: false, error: null });
    this.socket.on('data', d => { this.bytes = Buffer.concat([this.bytes, d]); });
    this.socket.on('end', () => { this.ended = true; });
    this.socket.on('error', e => { this.error = e; this.ended = true; });
    this.socket.on('close', () => { this.ended = true; });
  }
  write(text) { this.socket.write(text); return this; }
  answers(heads = new Set()) {
    const out = [];
    for (let at = 0; ;) {
      const end = this.bytes.indexOf('\r\n\r\n', at);
      if (end < 0) { this.rest = this.bytes.length - at; return out; }
      const [line, ...fields] = this.bytes.subarray(at, end).toString('latin1').split('\r\n');
      assert.match(line, /^HTTP\/1\.1 \d{3} /);
      const headers = Object.fromEntries(fields.map(f => [f.slice(0, f.indexOf(':')), f.slice(f.indexOf(':') + 1).trim()]));
      const status = +line.slice(9, 12), n = status === 100 || heads.has(out.length) ? 0 : +headers['content-length'];
      if (end + 4 + n > this.bytes.length) { this.rest = this.bytes.length - at; return out; }
      out.push({ status, headers, body: this.bytes.subarray(end + 4, end + 4 + n).toString('latin1') });
      at = end + 4 + n;
    }
  }
  async codes(count, heads) {
    await until(() => `${count} answers: ${JSON.stringify(this.bytes.toString('latin1').slice(-400))}`, () => this.answers(heads).length >= count || this.ended, 20000);
    return this.answers(heads).map(a => a.status);
  }
  async closed(ms = 20000) { await until('it is closed', () => this.ended, ms); return this.answers().map(a => a.status); }
  destroy() { this.socket.destroy(); }
}
const get = (path, more = '') => `GET ${path} HTTP/1.1\r\nHost: x\r\n${more}\r\n`;
const post = (path, body, more = '') => `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${more}\r\n${body}`;
const inbound = id => post('/loopback/loop', JSON.stringify({ address: 'http-1', id, kind: 'text', text: 'hi' }), `Authorization: Bearer ${SECRET}\r\n`);
const cpuTicks = () => { const f = fs.readFileSync(`/proc/${s.gateways[0].pid}/stat`, 'utf8').split(') ')[1].split(' '); return +f[11] + +f[12]; };

test('one connection takes many requests, one after another, and says nothing about closing', async () => {
  const c = new Raw();
  for (let i = 1; i <= 20; i++) {
    c.write(i % 2 ? get('/livez') : inbound(`after-${i}`));
    assert.deepEqual((await c.codes(i)).slice(-1), [i % 2 ? 200 : 202]);
  }
  assert.ok(c.answers().every(a => a.headers.connection === undefined && a.headers.date));
  assert.equal(c.ended, false);
  c.write(get('/livez', 'Connection: close\r\n'));
  await c.closed();
  assert.equal(c.answers().at(-1).headers.connection, 'close');
});

test('pipelined: forty requests in one write are answered in their order, those that wait for the store too', async () => {
  const c = new Raw(), wanted = [];
  let text = '';
  for (let i = 0; i < 40; i++) {
    const [piece, code] = [[get('/livez'), 200], [inbound(`pile-${i}`), 202], [get('/nothing'), 404], [post('/v1/login', '{}'), 400]][i % 4];
    text += piece;
    wanted.push(code);
  }
  c.write(text);
  assert.deepEqual(await c.codes(40), wanted);
  assert.equal(c.rest, 0);
  // far more than may wait on one connection: the rest stays with the client until there is room
  const many = new Raw();
  many.write(inbound('flood').repeat(600));
  assert.deepEqual(await many.codes(600), Array(600).fill(202));
  for (const x of [c, many]) x.destroy();
});

test('in pieces: each byte alone, and cut at every place', async () => {
  const one = inbound('bytes'), c = new Raw();
  c.socket.setNoDelay(true);
  for (const byte of one + get('/livez')) { c.write(byte); await new Promise(setImmediate); }
  assert.deepEqual(await c.codes(2), [202, 200]);
  const cuts = Array.from({ length: one.length - 1 }, (_, i) => i + 1).filter(i => i % 7 === 0 || one[i] === '\r' || one[i] === '\n');
  for (const [i, cut] of cuts.entries()) {
    c.write(one.slice(0, cut));
    await sleep(2);
    c.write(one.slice(cut));
    assert.equal((await c.codes(3 + i)).at(-1), 202, String(cut));
  }
  c.destroy();
});

test('100-continue: asked for before the body, not when it is there already, and not for what is refused anyway', async () => {
  const expect = 'Expect: 100-continue\r\n', whole = post('/v1/login', '{}', expect), c = new Raw();
  c.write(whole.slice(0, -2));
  assert.deepEqual(await c.codes(1), [100]);
  c.write('{}');
  assert.deepEqual(await c.codes(2), [100, 400]);
  c.write(whole);
  assert.deepEqual(await c.codes(3), [100, 400, 400]);
  c.write(`POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n${expect}\r\n`);
  assert.deepEqual(await c.codes(4), [100, 400, 400, 413]);
  await c.closed();
  const other = new Raw().write(post('/v1/login', '{}', 'Expect: wonders\r\n'));
  assert.deepEqual(await other.closed(), [417]);
});

test('HEAD has the length and no body, and the next answer follows at once; empty bodies; HTTP/1.0', async () => {
  const c = new Raw().write(get('/livez').replace('GET', 'HEAD') + post('/v1/login', '') + get('/livez') + '\r\n' + get('/livez'));
  assert.deepEqual(await c.codes(4, new Set([0])), [200, 400, 200, 200]);
  const [head, , full] = c.answers(new Set([0]));
  assert.equal(head.headers['content-length'], full.headers['content-length']);
  c.destroy();
  const old = new Raw().write('GET /livez HTTP/1.0\r\n\r\n');
  assert.deepEqual(await old.closed(), [200]);
  const stays = new Raw().write('GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n');
  assert.deepEqual(await stays.codes(1), [200]);
  assert.equal(stays.answers()[0].headers.connection, 'keep-alive');
  stays.write('GET /livez HTTP/1.0\r\n\r\n');
  assert.deepEqual(await stays.closed(), [200, 200]);
});

test('what is in doubt is 400 and the end of the connection, what stood before it is answered, what is behind it is not read', async () => {
  const behind = get('/livez').repeat(3), before = await s.metric('sluice_http_bad_total');
  const doubtful = [
    'POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n', 'POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 'POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n',
    'POST /v1/login HTTP/1.1\r\nHost: x\r\nX: y\r\n Content-Length: 5\r\n\r\n', 'GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n', 'GET /livez HTTP/1.1\r\n\r\n', 'GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n',
    'GET /livez?a=%zz HTTP/1.1\r\nHost: x\r\n\r\n', 'GET /%00livez HTTP/1.1\r\nHost: x\r\n\r\n', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  ];
  for (const bytes of doubtful) assert.deepEqual(await new Raw().write(get('/livez') + bytes + behind).closed(), [200, 400], bytes);
  for (const [bytes, code] of [[`GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 414], [get('/livez', `X: ${'a'.repeat(9000)}\r\n`), 431], [get('/livez', 'X: y\r\n'.repeat(120)), 431], [get('/livez').replace('1.1', '2.0'), 505]])
    assert.deepEqual(await new Raw().write(bytes + behind).closed(), [code]);
  assert.equal(await s.metric('sluice_http_bad_total'), before + doubtful.length - 2 + 4); // the two with percent signs are read
});

test('too large a body is 413, and the answer arrives although the client still writes', async () => {
  const c = new Raw().write('POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n' + 'x'.repeat(2000000));
  assert.deepEqual(await c.closed(), [413]);
  assert.equal(c.error, null);
});

test('a client that closes its side behind a request is answered, one that left is forgotten', async () => {
  const c = new Raw();
  c.socket.end(inbound('half-1') + get('/livez'));
  assert.deepEqual(await c.closed(), [202, 200]);
  for (let i = 0; i < 50; i++) {
    const gone = new Raw().write(inbound(`gone-${i}`));
    await new Promise(resolve => gone.socket.on('connect', resolve));
    if (i % 2) gone.socket.resetAndDestroy?.() ?? gone.destroy();
    else gone.destroy();
  }
  await until('no request is left open', async () => await s.metric('sluice_http_requests ') <= 1);
  await until('no connection is left open', async () => await s.metric('sluice_http_connections ') <= 8); // those of fetch
});

test('a slow body is waited for while others are served; idle and half-written connections cost no processor time', async () => {
  const slow = new Raw(), text = inbound('slow');
  slow.write(text.slice(0, -20));
  const idle = Array.from({ length: 40 }, (_, i) => {
    const c = new Raw();
    if (i % 4 === 1) c.write('GET /livez HT');
    if (i % 4 === 2) c.write(get('/livez'));
    if (i % 4 === 3) c.write(post('/v1/login', '{"a":1}').slice(0, -3));
    return c;
  });
  const half = new Raw(); // written to its end, closed on its side, and its answer not read
  half.socket.pause();
  half.socket.end(get('/agent').repeat(30));
  await sleep(500);
  const before = cpuTicks(), since = Date.now();
  await sleep(3000);
  const share = (cpuTicks() - before) * 10 / (Date.now() - since);
  assert.ok(share < 0.4, `${(share * 100).toFixed(0)} % of a processor while nothing happens`);
  assert.equal((await s.get('/livez')).status, 200);
  slow.write(text.slice(-20));
  assert.deepEqual(await slow.codes(1), [202]);
  half.socket.resume();
  assert.deepEqual(await half.closed(), Array(30).fill(200));
  for (const c of [slow, ...idle]) c.destroy();
});

test('whoever does not finish a head or a body within 15 s is told 408, others are not held up', async () => {
  const late = [new Raw().write('GET /livez HT'), new Raw().write(post('/v1/login', '{"a":1}').slice(0, -3)), new Raw()];
  const drip = new Raw().write('GET /livez HTTP/1.1\r\nHost: x\r\n');
  const drops = setInterval(() => drip.write('X: y\r\n'), 500);
  assert.deepEqual(await Promise.all(late.map(c => c.closed(40000))), [[408], [408], []]);
  assert.deepEqual(await drip.closed(40000), [408]);
  clearInterval(drops);
});

test('a WebSocket may be asked for behind requests, in pieces, and with its first frame in the same packet', async () => {
  const upgrade = 'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sluice.v1\r\n\r\n';
  const ping = Buffer.concat([Buffer.from([0x81, 0x80 + 12, 0, 0, 0, 0]), Buffer.from('{"t":"ping"}')]); // before hello: 4401
  const accept = createHash('sha1').update('dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  for (const cut of [0, 5, 60, upgrade.length - 2, upgrade.length]) {
    const c = new Raw();
    c.socket.setNoDelay(true);
    c.write(get('/livez') + upgrade.slice(0, cut));
    await sleep(30);
    c.write(Buffer.concat([Buffer.from(upgrade.slice(cut)), ping]));
    await until(() => `closed with 4401: ${c.bytes.toString('latin1')}`, () => c.bytes.includes(Buffer.from([0x11, 0x31]))); // 4401
    assert.match(c.bytes.toString('latin1').toLowerCase(), /^http\/1\.1 200 ok/);
    assert.ok(c.bytes.toString('latin1').includes(accept), String(cut));
    c.destroy();
  }
});

test('who may call: the address of the connection is looked at, whatever is signed', async () => {
  const body = '{"destination":"U1","events":[]}', signed = { 'x-line-signature': createHmac('sha256', SECRET).update(body).digest('base64') };
  assert.equal((await s.post('/webhook/near', body, signed)).status, 200);
  assert.equal((await s.post('/webhook/near', body)).status, 401);
  assert.equal((await s.post('/webhook/far', body, signed)).status, 401);
});

test('without descriptors to spare, who waits longest for nothing goes, and requests are answered all the same', async () => {
  const { pid } = s.gateways[0], limit = soft => execFileSync('prlimit', ['--pid', String(pid), `--nofile=${soft}:`]);
  const whole = execFileSync('prlimit', ['--pid', String(pid), '--nofile', '--output', 'SOFT', '--noheadings'], { encoding: 'utf8' }).trim();
  limit(fs.readdirSync(`/proc/${pid}/fd`).length + 40);
  try {
    const idle = Array.from({ length: 150 }, (_, i) => (i % 2 ? new Raw() : new Raw().write('GET /livez HT')));
    await until('many of them were closed', () => idle.filter(c => c.ended).length >= 100);
    for (let i = 0; i < 5; i++) assert.deepEqual(await new Raw().write(get('/livez', 'Connection: close\r\n')).closed(), [200]);
    for (const c of idle) c.destroy();
  } finally {
    limit(whole);
  }
});
