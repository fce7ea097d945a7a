// The same front with TLS, where libwebsockets reads HTTP: one request a connection, whatever stands behind it; a browser's socket.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import tls from 'node:tls';
import WebSocket from 'ws';
import { startSluice, until, sleep, SECRET } from './lib/sluice.mjs';

let s, gateway;
before(async () => {
  s = await startSluice({ gateways: 0, bots: 0, config: { inboxes: { loop: { channel: 'loopback', tenant: 'demo', secret: SECRET } } } });
  const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1', '-subj', '/CN=sluice',
    '-keyout', `${s.dir}/tls.key`, '-out', `${s.dir}/tls.crt`]);
  assert.equal(made.status, 0, String(made.stderr));
  gateway = await s.addGateway({ gateway: { tls_cert: `${s.dir}/tls.crt`, tls_key: `${s.dir}/tls.key` }, media: { dir: `${s.dir}/media` } });
  gateway.start();
  await until('TLS answers', () => ask('GET', '/readyz').then(a => a.status === 200, () => false), 20000);
});
after(async () => { await s.stop(); });

function ask(method, where, body, headers = {}, onAnswer = null) {
  return new Promise((resolve, reject) => {
    const rq = https.request({ method, host: '127.0.0.1', port: gateway.port, path: where, headers, agent: false, rejectUnauthorized: false }, async rs => {
      try {
        const chunks = [];
        await onAnswer?.();
        for await (const chunk of rs) chunks.push(chunk);
        resolve({ status: rs.statusCode, headers: rs.headers, body: Buffer.concat(chunks) });
      } catch (error) { reject(error); }
    });
    rq.on('error', reject);
    rq.end(body);
  });
}
const raw = bytes => new Promise(resolve => {
  const socket = tls.connect({ host: '127.0.0.1', port: gateway.port, rejectUnauthorized: false }, () => socket.write(bytes));
  let text = '';
  socket.on('data', d => { text += d.toString('latin1'); });
  socket.on('error', () => {});
  socket.on('close', () => resolve([...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(m => +m[1])));
});
const json = { 'content-type': 'application/json' };

test('requests with their headers, bodies and queries; HEAD; what is not there', async () => {
  const message = JSON.stringify({ address: 'tls-1', id: 'tls-m-1', kind: 'text', text: 'hi' });
  assert.equal((await ask('POST', '/loopback/loop', message, json)).status, 401);
  assert.equal((await ask('POST', '/loopback/loop', message, { ...json, authorization: `Bearer ${SECRET}` })).status, 202);
  const get = await ask('GET', '/livez'), head = await ask('HEAD', '/livez');
  assert.deepEqual([get.status, get.headers.connection, head.status, head.body.length], [200, 'close', 200, 0]);
  assert.equal(head.headers['content-length'], String(get.body.length));
  assert.equal((await ask('GET', '/nothing')).status, 404);
  assert.deepEqual(await raw('POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n'), [413]);
});

test('a large answer comes whole, to a slow reader too', async () => {
  const bytes = crypto.randomBytes(8 << 20), id = crypto.createHash('sha256').update(bytes).digest('hex');
  const folder = path.join(s.dir, 'media', id.slice(0, 2), id.slice(2, 4)), exp = Math.floor(Date.now() / 1000) + 600;
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, id), bytes);
  const secret = fs.readFileSync(path.join(s.dir, 'media', 'link.secret'), 'utf8');
  const where = `/media/${id}/a.bin?exp=${exp}&sig=${crypto.createHmac('sha256', secret).update(`media\n${id}\na.bin\n${exp}`).digest('base64url')}`;
  for (const wait of [0, 6500]) {
    const answer = await ask('GET', where, null, {}, () => sleep(wait));
    assert.equal(answer.status, 200);
    assert.ok(answer.body.equals(bytes));
  }
});

test('what is in doubt is one 400; behind a request nothing is read, and nothing hangs', async () => {
  const get = where => `GET ${where} HTTP/1.1\r\nHost: x\r\n\r\n`;
  const login = 'POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}';
  for (const length of ['Content-Length: 5\r\nContent-Length: 36', 'Content-Length: 5x', 'Content-Length: -1', 'Content-Length: 36\r\nTransfer-Encoding: chunked', 'Transfer-Encoding: chunked'])
    assert.deepEqual(await raw(`POST /v1/login HTTP/1.1\r\nHost: x\r\n${length}\r\n\r\n${get('/livez')}`), [400], length);
  for (const [bytes, code] of [[get('/livez') + login, 200], [get('/nothing') + login + get('/livez'), 404], [login + login, 400], [login + get('/livez'), 400]]) {
    assert.deepEqual(await raw(bytes), [code], bytes);
    assert.equal((await ask('GET', '/livez')).status, 200);
  }
});

test("a browser's socket", async () => {
  const ws = new WebSocket(`wss://127.0.0.1:${gateway.port}/ws`, 'sluice.v1', { rejectUnauthorized: false });
  const welcome = await new Promise((resolve, reject) => {
    ws.on('open', () => ws.send(JSON.stringify({ t: 'hello', role: 'visitor', inbox: 'web' })));
    ws.on('message', data => resolve(JSON.parse(data)));
    ws.on('error', reject);
    ws.on('close', code => reject(new Error(`closed with ${code}`)));
  });
  assert.equal(welcome.t, 'welcome');
  ws.terminate();
});
