// SMS over HTTP against the simulated providers, and against the vendors' own packages: Twilio's SDK signs what is pushed to us,
// Aliyun's and Tencent's compute again the signatures of what we send.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { createRequire } from 'node:module';
import { PASSWORD, startSluice, sleep, until } from './lib/sluice.mjs';
import { start as startProviders, twilioSignature } from '../fakes/sms_http.mjs';

const require = createRequire(import.meta.url);
const twilio = require('twilio');
const aliyun = require('@alicloud/openapi-util').default;
const { default: TencentSign } = require('tencentcloud-sdk-nodejs-common/tencentcloud/common/sign');

const PUBLIC = 'https://gw.example.com/sms_http/tw', PATH_SECRET = 'a-path-that-nobody-guesses';
const TWILIO = { account: 'ACfa4e0000000000000000000000000000', token: 'demo-auth-token', number: '+15005550006' };
const inboxes = api_url => ({
  tw: { channel: 'sms_http', tenant: 'demo', provider: 'twilio', account: TWILIO.account, secret: TWILIO.token, number: TWILIO.number, public_url: PUBLIC, api_url, country: '1' },
  ali: { channel: 'sms_http', tenant: 'demo', provider: 'aliyun', account: 'demo-access-key', access_token: 'demo-access-secret', secret: PATH_SECRET, sign_name: '演示', template_code: 'SMS_1', api_url },
  ten: { channel: 'sms_http', tenant: 'demo', provider: 'tencent', account: 'demo-secret-id', access_token: 'demo-secret-key', secret: PATH_SECRET, app_id: '1400000000', sign_name: '演示', template_code: '1110', api_url },
});

async function world(t, change = x => x) {
  const fake = await startProviders({});
  t.after(() => fake.stop());
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-media-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const s = await startSluice({ config: { inboxes: change(inboxes(fake.url)), media: { dir } } });
  Object.assign(fake.twilio, TWILIO, { url: `${s.url()}/sms_http/tw`, public_url: PUBLIC });
  fake.aliyun.url = `${s.url()}/sms_http/ali/${PATH_SECRET}`;
  fake.tencent.url = `${s.url()}/sms_http/ten/${PATH_SECRET}`;
  return { s, fake };
}
const heard = (fake, to, text, ms = 15000) => until(() => `${to} reads ${text}: ${JSON.stringify(fake.phone(to).slice(-4))}\n${fake.complaints.join('\n')}`,
  () => fake.phone(to).find(e => e.by === 'service' && e.text.includes(text)), ms);
const sends = (fake, to) => fake.journal.filter(l => l.op === 'send' && l.to === to);
async function history(s, inbox, address) {
  const key = await until(`a conversation of ${address}`, async () => (await s.redisClient.keys(`addr:*demo/${inbox}/${address}`))[0]);
  const conv = JSON.parse(await s.redisClient.hget(key, 's')).c;
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
}
const outcomes = entries => entries.filter(e => e.m.data?.code === 'delivery').map(e => e.m.data);
const delivered = (s, inbox, address, state = 'delivered') => until(`${address}: ${state}`,
  async () => outcomes(await history(s, inbox, address)).find(d => d.state === state));

test('Twilio, Aliyun and Tencent: asked, answered once, delivered; receipts in other spellings and before the answer', async t => {
  const { s, fake } = await world(t);
  fake.set({ wrong_case: 1 });
  await fake.customer({ provider: 'twilio', from: '+15551234567', text: '你好' });
  await heard(fake, '+15551234567', '您好');
  await delivered(s, 'tw', '+15551234567');
  fake.set({ wrong_case: 0, receipt: 'early' });
  await fake.customer({ provider: 'twilio', from: '+15551234568', text: 'hello' });
  await delivered(s, 'tw', '+15551234568');
  fake.set({ receipt: 'normal' });
  await fake.customer({ provider: 'aliyun', from: '13800138000', text: '你好' });
  await heard(fake, '13800138000', '您好');
  await delivered(s, 'ali', '+8613800138000');
  await fake.customer({ provider: 'tencent', from: '+8613800138001', text: '营业时间' });
  await heard(fake, '+8613800138001', '九点到六点');
  await delivered(s, 'ten', '+8613800138001');
  fake.set({ receipt_fail: { next: 1 } });
  await fake.customer({ provider: 'aliyun', from: '13800138002', text: '你好' });
  const failed = await delivered(s, 'ali', '+8613800138002', 'failed');
  assert.match(JSON.stringify(failed), /空号/); // the provider's own words reach the agent
  for (const to of ['+15551234567', '+15551234568', '13800138000', '+8613800138001']) assert.equal(sends(fake, to).length, 1);
  assert.deepEqual(fake.complaints, []);
  await s.stop();
});

async function push(s, params, { signature, url = PUBLIC, rest = '', token = TWILIO.token } = {}) {
  const answer = await fetch(`${s.url()}/sms_http/tw${rest}`, {
    method: 'POST', body: new URLSearchParams(params).toString(),
    headers: { 'content-type': 'application/x-www-form-urlencoded', 'x-twilio-signature': signature ?? twilio.getExpectedTwilioSignature(token, url + rest, params) } });
  return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() };
}

test("what Twilio's SDK signs is taken once, anything else is refused with 403", async t => {
  const { s, fake } = await world(t);
  const params = { MessageSid: 'SM00000000000000000000000000000001', From: '+15557654321', To: TWILIO.number, Body: '营业时间 + & = % 😀', NumMedia: '0' };
  for (let i = 0; i < 3; i++) {
    const answer = await push(s, params);
    assert.deepEqual([answer.status, answer.type.split(';')[0], answer.text], [200, 'text/xml', '<Response/>']);
  }
  const said = (await until('the message', async () => { const h = await history(s, 'tw', '+15557654321'); return h.length > 0 && h; })).filter(e => e.m.by === 'visitor');
  assert.equal(said.length, 1);
  assert.equal(said[0].m.text, params.Body);
  assert.equal((await push(s, { ...params, MessageSid: 'SM2' }, { url: 'https://gw.example.com:443/sms_http/tw' })).status, 200); // the default port, written out
  // refused: another token, another URL, a parameter more, one changed, each bit of the signature, none
  assert.equal((await push(s, params, { token: 'other' })).status, 403);
  assert.equal((await push(s, params, { url: 'https://gw.example.com/sms_http/other' })).status, 403);
  const signature = twilio.getExpectedTwilioSignature(TWILIO.token, PUBLIC, params);
  assert.equal((await push(s, { ...params, Extra: '1' }, { signature })).status, 403);
  assert.equal((await push(s, { ...params, Body: 'x' }, { signature })).status, 403);
  assert.equal((await push(s, params, { signature: '' })).status, 403);
  for (let i = 0; i < signature.length; i++) {
    const changed = signature.slice(0, i) + (signature[i] === 'A' ? 'B' : 'A') + signature.slice(i + 1);
    assert.equal((await push(s, params, { signature: changed })).status, 403, `byte ${i}`);
  }
  assert.ok(await s.metric('sluice_webhook_refused_total', 'inbox="tw"') >= signature.length + 5);
  // the simulated provider signs as the SDK does
  assert.ok(twilio.validateRequest(TWILIO.token, twilioSignature(TWILIO.token, PUBLIC, Object.entries(params)), PUBLIC, params));
  // a wrong path says nothing of the secret, a push that is not JSON is refused
  const bare = (path, body) => fetch(`${s.url()}${path}`, { method: 'POST', body, headers: { 'content-type': 'application/json' } }).then(a => a.status);
  assert.equal(await bare('/sms_http/ali', '[]'), 404);
  assert.equal(await bare('/sms_http/ali/a-path-that-nobody-guesseS', '[]'), 404);
  assert.equal(await bare(`/sms_http/ali/${PATH_SECRET}`, '['), 400);
  assert.equal(await bare(`/sms_http/ali/${PATH_SECRET}`, '[]'), 200);
  await s.stop();
});

test('who opts out is told nothing more until she comes back; the provider\'s own word counts, too', async t => {
  const { s, fake } = await world(t);
  const who = '+15550001111';
  await fake.customer({ provider: 'twilio', from: who, text: 'hello' });
  await heard(fake, who, '您好');
  fake.optedOut.clear();
  await fake.customer({ provider: 'twilio', from: who, text: ' Stop. ' });
  fake.optedOut.clear(); // only our ledger holds her now
  await fake.customer({ provider: 'twilio', from: who, text: '营业时间' });
  const failed = await delivered(s, 'tw', who, 'failed');
  assert.match(JSON.stringify(failed), /opted out/);
  await sleep(300);
  assert.equal(sends(fake, who).length, 1);
  await fake.customer({ provider: 'twilio', from: who, text: 'START' });
  await fake.customer({ provider: 'twilio', from: who, text: '你好' });
  await until('she is told again', () => sends(fake, who).length >= 2, 15000);
  // 21610: the provider knows of one that we do not
  const other = '+15550002222';
  fake.optedOut.add(other);
  await fake.customer({ provider: 'twilio', from: other, text: 'hello' });
  assert.match(JSON.stringify(await delivered(s, 'tw', other, 'failed')), /opted out/);
  await until('the ledger has it', async () => (await s.redisClient.keys(`box:*optout.${other}`)).length === 1);
  await s.stop();
});

// Everything that comes is kept as it was; answers like all of them at once.
async function capture(t) {
  const seen = [];
  const server = http.createServer((rq, rs) => {
    let body = '';
    rq.on('data', d => { body += d; });
    rq.on('end', () => {
      seen.push({ method: rq.method, url: rq.url, headers: rq.headers, body });
      rs.setHeader('content-type', 'application/json');
      rs.end(JSON.stringify({ Code: 'OK', BizId: '1^0', Response: { SendStatusSet: [{ Code: 'Ok', SerialNo: '1:1' }] } }));
    });
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { seen, url: `http://127.0.0.1:${server.address().port}` };
}

test("Aliyun's and Tencent's own packages compute the signatures of our calls", async t => {
  const provider = await capture(t);
  const { s } = await world(t, all => ({ ...all, ali: { ...all.ali, api_url: provider.url }, ten: { ...all.ten, api_url: provider.url } }));
  const post = (path, body) => fetch(`${s.url()}/sms_http/${path}/${PATH_SECRET}`, { method: 'POST', body: JSON.stringify(body) });
  await post('ali', [{ phone_number: '13800138000', content: '你好', send_time: '2024-01-01 00:00:00', dest_code: '1', sequence_id: '9' }]);
  const ali = await until('a call to Aliyun', () => provider.seen.find(rq => rq.headers['x-acs-action']));
  const signed = { method: 'POST', pathname: '/', query: {}, headers: Object.fromEntries(Object.entries(ali.headers).filter(([k]) => k === 'host' || k === 'content-type' || k.startsWith('x-acs-'))) };
  assert.equal(aliyun.getAuthorization(signed, 'ACS3-HMAC-SHA256', ali.headers['x-acs-content-sha256'], 'demo-access-key', 'demo-access-secret'), ali.headers.authorization);
  const form = new URLSearchParams(ali.body);
  assert.equal(form.get('PhoneNumbers'), '13800138000');
  assert.match(JSON.parse(form.get('TemplateParam')).content, /您好/);
  await post('ten', { extend: '', mobile: '13800138001', nationcode: '86', sign: 'x', text: '你好', time: 1700000000 });
  const ten = await until('a call to Tencent', () => provider.seen.find(rq => rq.headers['x-tc-action']));
  const url = require('url'), { URL: Real } = url;
  url.URL = class extends Real { get hostname() { return this.host; } }; // the package forgets the port, which a test's address has
  t.after(() => { url.URL = Real; });
  const again = TencentSign.sign3({ method: 'POST', url: provider.url, payload: JSON.parse(ten.body), timestamp: Number(ten.headers['x-tc-timestamp']), service: 'sms',
    secretId: 'demo-secret-id', secretKey: 'demo-secret-key', headers: { 'Content-Type': ten.headers['content-type'] } });
  assert.equal(again, ten.headers.authorization);
  assert.deepEqual(JSON.parse(ten.body).PhoneNumberSet, ['+8613800138001']);
  await s.stop();
});

test('an attachment comes in with its bytes; one that cannot be fetched is named', async t => {
  const { s, fake } = await world(t);
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
  const wanted = `Basic ${Buffer.from(`${TWILIO.account}:${TWILIO.token}`).toString('base64')}`;
  fake.on('GET', '/media/1', rq => (rq.headers.authorization === wanted ? { raw: png, type: 'image/png' } : { status: 401 }));
  await fake.customer({ provider: 'twilio', from: '+15553334444', text: 'a picture', media: [{ url: `${fake.url}/media/1`, type: 'image/png' }, { url: 'http://127.0.0.1:9/secret', type: 'image/png' }] });
  const entry = (await until('the message', async () => { const h = await history(s, 'tw', '+15553334444'); return h.length > 0 && h; })).find(e => e.m.by === 'visitor');
  const { attachments } = entry.m.data;
  assert.equal(attachments.length, 2, JSON.stringify(entry.m));
  assert.equal(attachments[0].type, 'image/png');
  assert.equal(attachments[0].size, png.length);
  assert.equal(attachments[1].missing, true); // a private address of a stranger's
  assert.equal(entry.m.kind, 'image');
  await s.stop();
});

test('what a text costs is told before it is sent, as the calculator nobody here wrote says', async t => {
  const { SegmentedMessage } = require('sms-segments-calculator');
  const { s } = await world(t, all => ({ ...all, tw: { ...all.tw, price_classes: ['+=international', '+1=domestic', '+1900=premium'] } }));
  for (const text of ['hello', 'a'.repeat(161), '你'.repeat(71), '€'.repeat(81), '😀'.repeat(36), 'ç', '👨‍👩‍👧‍👦'.repeat(7)]) {
    const theirs = new SegmentedMessage(text);
    const ours = await s.post('/v1/segments', { inbox: 'tw', to: '+15551234567', text });
    assert.equal(ours.status, 200);
    assert.deepEqual(ours.body, { encoding: theirs.encodingName, units: theirs.numberOfCharacters, segments: theirs.segmentsCount, price_class: 'domestic' });
  }
  assert.equal((await s.post('/v1/segments', { inbox: 'tw', to: '+19005', text: 'x' })).body.price_class, 'premium');
  assert.equal((await s.post('/v1/segments', { inbox: 'web', text: 'x' })).status, 404);
  await s.stop();
});

test('an agent sees it while she types', { skip: !fs.existsSync('/usr/bin/chromium') && 'chromium is not installed' }, async t => {
  const { chromium } = require('playwright-core');
  const { s, fake } = await world(t, all => ({ ...all, tw: { ...all.tw, price_classes: ['+1=domestic'] } }));
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  await page.goto(`${s.url()}/agent?lang=en`);
  await page.fill('#tenant', 'demo');
  await page.fill('#name', 'anna');
  await page.fill('#password', PASSWORD);
  await page.click('#enter');
  await fake.customer({ provider: 'twilio', from: '+15557770000', text: '人工' });
  await page.click('#convs button');
  await page.click('#accept');
  await page.waitForFunction(() => !document.querySelector('#send').disabled);
  await page.fill('#text', '你'.repeat(71));
  await page.waitForFunction(() => /^2 messages · UCS-2 · 71 characters · domestic$/.test(document.querySelector('#cost').textContent), null, { timeout: 10000 });
  if (process.env.SLUICE_SHOTS) await page.screenshot({ path: `${process.env.SLUICE_SHOTS}/cost.png` });
  await s.stop();
});
