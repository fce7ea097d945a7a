// Attachments are shown by signed links: with safe headers, until they expire, to nobody else.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { sleep, startSluice, API_TOKEN } from './lib/sluice.mjs';

const PNG = Buffer.from('89504e470d0a1a0a0000000d49484452', 'hex');
const PAGE = Buffer.from('<html><script>alert(1)</script></html>');
let s, dir, secret;

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-media-'));
  s = await startSluice({ config: { media: { dir } } });
  secret = fs.readFileSync(path.join(dir, 'link.secret'), 'utf8');
});
after(async () => {
  await s.stop();
  fs.rmSync(dir, { recursive: true });
});

// What the store does, written down once more.
function keep(bytes) {
  const id = crypto.createHash('sha256').update(bytes).digest('hex');
  const folder = path.join(dir, id.slice(0, 2), id.slice(2, 4));
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, id), bytes);
  return id;
}
const sign = (id, name, exp) => crypto.createHmac('sha256', secret).update(`media\n${id}\n${name}\n${exp}`).digest('base64url');
const soon = () => Math.floor(Date.now() / 1000) + 600;
const link = (id, name, exp = soon()) => `${s.url()}/media/${id}/${encodeURIComponent(name)}?exp=${exp}&sig=${sign(id, name, exp)}`;

test('an image is shown with safe headers and in parts', async () => {
  const id = keep(PNG);
  const whole = await fetch(link(id, '收据 1.png'));
  assert.equal(whole.status, 200);
  assert.equal(whole.headers.get('content-type'), 'image/png');
  assert.equal(whole.headers.get('x-content-type-options'), 'nosniff');
  assert.match(whole.headers.get('content-security-policy'), /^sandbox; default-src 'none'$/);
  assert.equal(whole.headers.get('content-disposition'), `inline; filename*=UTF-8''${encodeURIComponent('收据 1.png')}`);
  assert.match(whole.headers.get('cache-control'), /^private, max-age=\d{1,3}$/);
  assert.deepEqual(Buffer.from(await whole.arrayBuffer()), PNG);
  const part = await fetch(link(id, 'a.png'), { headers: { range: 'bytes=1-3' } });
  assert.equal(part.status, 206);
  assert.equal(part.headers.get('content-range'), `bytes 1-3/${PNG.length}`);
  assert.equal(await part.text(), 'PNG');
  const tail = await fetch(link(id, 'a.png'), { headers: { range: 'bytes=-4' } });
  assert.equal(await tail.text(), 'IHDR');
  assert.equal((await fetch(link(id, 'a.png'), { headers: { range: `bytes=${PNG.length}-` } })).status, 416);
});

test('what a browser would run is a download of no type', async () => {
  const answer = await fetch(link(keep(PAGE), 'x.html'));
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('content-type'), 'application/octet-stream');
  assert.match(answer.headers.get('content-disposition'), /^attachment;/);
});

test('a large attachment comes whole', async () => {
  const bytes = crypto.randomBytes(19 << 20);
  const answer = await fetch(link(keep(bytes), 'large.bin'));
  assert.equal(answer.status, 200);
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes));
});

test('who reads slowly gets the whole, and many of them get no more memory than there is for all', async () => {
  const bytes = crypto.randomBytes(12 << 20), url = link(keep(bytes), 'slow.bin');
  const slow = () => new Promise((resolve, reject) => {
    const rq = http.get(url, rs => resolve({ rq, rs, status: rs.statusCode })).on('error', reject);
  });
  const first = await slow(), chunks = [];
  assert.equal(first.status, 200);
  const others = await Promise.all(Array.from({ length: 30 }, slow)); // none of these is read
  assert.ok(others.some(o => o.status === 503) && others.some(o => o.status === 200), JSON.stringify(others.map(o => o.status)));
  for (const o of others) o.rq.destroy();
  await sleep(7000); // longer than libwebsockets waits for who does not take the end of what it has
  for await (const chunk of first.rs) chunks.push(chunk);
  assert.ok(Buffer.concat(chunks).equals(bytes));
  assert.equal((await fetch(url)).status, 200);
});

test('a link that is not ours is 403, an old one 410, one to nothing 404', async () => {
  const id = keep(PNG), status = async url => (await fetch(url)).status;
  const good = link(id, 'a.png');
  assert.equal(await status(good), 200);
  assert.equal(await status(good.replace('/a.png', '/b.png')), 403);
  assert.equal(await status(good.replace(/exp=\d+/, `exp=${soon() + 9999}`)), 403);
  assert.equal(await status(good.replace(/sig=.*/, 'sig=')), 403);
  assert.equal(await status(good.replace(/\?.*/, '')), 403);
  assert.equal(await status(`${s.url()}/media/${id}`), 403);
  assert.equal(await status(`${s.url()}/media/../link.secret`), 404);
  assert.equal(await status(`${s.url()}/media/..%2flink.secret/x?exp=1&sig=1`), 404);
  assert.equal(await status(link(id, 'a.png', Math.floor(Date.now() / 1000) - 1)), 410);
  assert.equal(await status(link('0'.repeat(64), 'a.png')), 404);
});

const upload = (bytes, token, query = '', type = 'application/octet-stream') =>
  fetch(`${s.url()}/media?${query}`, { method: 'POST', body: bytes, headers: { authorization: `Bearer ${token}`, 'content-type': type } });

test('an agent, a visitor and a program upload what they then show', async () => {
  const visitor = s.visitor();
  await visitor.connect();
  const tokens = [[await s.login('anna'), ''], [visitor.token, '&inbox=web'], [API_TOKEN, '']];
  for (const [token, more] of tokens) {
    const answer = await upload(PNG, token, `name=${encodeURIComponent('a/b 图.png')}${more}`, 'text/html');
    assert.equal(answer.status, 201);
    const { url, ...attachment } = await answer.json();
    const sha256 = crypto.createHash('sha256').update(PNG).digest('hex');
    assert.deepEqual(attachment, { id: sha256, sha256, type: 'image/png', size: PNG.length, name: 'b 图.png' });
    assert.deepEqual(Buffer.from(await (await fetch(s.url() + url)).arrayBuffer()), PNG);
    const link = await fetch(`${s.url()}/v1/media-link?id=${sha256}&name=x.png${more}`, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(link.status, 200);
    assert.equal((await fetch(s.url() + (await link.json()).url)).status, 200);
  }
});

test('nobody else uploads or gets a link, and nothing is too large', async () => {
  const agent = await s.login('anna');
  for (const [token, query] of [['', ''], ['nonsense', ''], ['nonsense', 'inbox=web'], ['', 'inbox=web'], ['x'.repeat(43), '']]) {
    assert.equal((await upload(PNG, token, query)).status, 401);
    assert.equal((await fetch(`${s.url()}/v1/media-link?id=${'0'.repeat(64)}&${query}`, { headers: { authorization: `Bearer ${token}` } })).status, 401);
  }
  const large = crypto.randomBytes(20 << 20);
  const stored = await upload(large, agent, 'name=large');
  assert.equal(stored.status, 201);
  const { url } = await stored.json();
  assert.ok(Buffer.from(await (await fetch(s.url() + url)).arrayBuffer()).equals(large));
  assert.equal((await upload(Buffer.alloc((20 << 20) + 1), agent).catch(() => ({ status: 413 }))).status, 413);
  assert.equal((await upload(Buffer.alloc(0), agent)).status, 400);
  assert.equal((await fetch(`${s.url()}/v1/messages`, { method: 'POST', body: Buffer.alloc(200000), headers: { authorization: `Bearer ${API_TOKEN}` } }).catch(() => ({ status: 413 }))).status, 413);
});
