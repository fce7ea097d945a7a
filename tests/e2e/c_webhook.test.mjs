// The generic webhook: one provider a scheme, played by a small server of the test. What the vendors' own packages sign is taken, what
// they check of ours holds; anything changed is refused.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { createRequire } from 'node:module';
import { createCipheriv, createHash, createHmac, randomBytes } from 'node:crypto';
import { startSluice, until } from './lib/sluice.mjs';

const require = createRequire(import.meta.url);
const { validateSignature } = require('@line/bot-sdk');
const { Webhook } = require('standardwebhooks');
const { AESCipher } = require('@larksuiteoapi/node-sdk');

const SECRET = 'a-secret-for-tests', WHSEC = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', KEY = 'kudryavka-kudryavka', VERIFY = 'verify-me-please';
const hmac = (key, text, form) => createHmac('sha256', key).update(text).digest(form);
const seconds = () => String(Math.floor(Date.now() / 1000));

// A provider that takes whatever it is called with; `answers` maps the start of a path to an answer.
async function provider(t, answers) {
  const seen = [];
  const server = http.createServer((rq, rs) => {
    let body = '';
    rq.on('data', d => { body += d; });
    rq.on('end', () => {
      seen.push({ path: rq.url, headers: rq.headers, body: JSON.parse(body || '{}') });
      const [, answer] = Object.entries(answers).find(([start]) => rq.url.startsWith(start)) ?? [null, { status: 404 }];
      const { status = 200, json = {}, headers = {} } = typeof answer === 'function' ? answer(seen.at(-1)) : answer;
      rs.writeHead(status, { 'content-type': 'application/json', ...headers });
      rs.end(JSON.stringify(json));
    });
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { seen, url: `http://127.0.0.1:${server.address().port}` };
}

const box = (scheme, api_url, more = {}) => ({ channel: 'webhook', tenant: 'demo', scheme, api_url, secret: SECRET, access_token: 'an-access-token', ...more });
async function post(s, inbox, body, headers = {}) {
  const answer = await fetch(`${s.url()}/webhook/${inbox}`, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } });
  return { status: answer.status, text: await answer.text() };
}
const answered = (p, where, ms = 15000) => until(() => `an answer at ${where}: ${JSON.stringify(p.seen)}`, () => p.seen.find(rq => rq.path.startsWith(where) && JSON.stringify(rq.body).includes('您好')), ms);
async function outcome(s, inbox, state) {
  return until(`${inbox}: ${state}`, async () => {
    const keys = await s.redisClient.keys(`addr:*demo/${inbox}/*`);
    for (const key of keys) {
      const conv = JSON.parse(await s.redisClient.hget(key, 's')).c;
      const entries = (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
      const found = entries.find(e => e.m.data?.code === 'delivery' && e.m.data.state === state);
      if (found) return found.m.data;
    }
    return null;
  }, 15000);
}

test('LINE: the signature is what the SDK checks; a repeat is one message; a secret may be replaced', async t => {
  const p = await provider(t, { '/v2/bot/message/push': { json: { sentMessages: [{ id: 'L1' }] } } });
  const s = await startSluice({ config: { inboxes: { line: box('line', p.url, { secret: 'the-new-secret', secret_previous: SECRET }) } } });
  const body = JSON.stringify({ destination: 'U1', events: [{ type: 'message', webhookEventId: '01H', timestamp: Date.now(), source: { type: 'user', userId: 'Uabc' }, message: { id: '9', type: 'text', text: '你好' } }] });
  for (const secret of ['the-new-secret', SECRET]) {
    const signature = hmac(secret, body, 'base64');
    assert.ok(validateSignature(body, secret, signature));
    assert.deepEqual(await post(s, 'line', body, { 'x-line-signature': signature }), { status: 200, text: '{}' });
  }
  const call = await answered(p, '/v2/bot/message/push');
  assert.equal(call.headers.authorization, 'Bearer an-access-token');
  assert.match(call.headers['x-line-retry-key'], /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(call.body.to, 'Uabc');
  await outcome(s, 'line', 'sent');
  assert.equal(p.seen.length, 1); // two requests, one message, one answer
  // the handshake: no events, signed
  assert.equal((await post(s, 'line', '{"destination":"U1","events":[]}', { 'x-line-signature': hmac(SECRET, '{"destination":"U1","events":[]}', 'base64') })).status, 200);
  const good = hmac(SECRET, body, 'base64');
  for (let bit = 0; bit < 64; bit++) {
    const changed = Buffer.from(body);
    changed[bit * 3 % changed.length] ^= 1 << (bit % 8);
    assert.equal((await post(s, 'line', changed, { 'x-line-signature': good })).status, 401);
  }
  assert.equal((await post(s, 'line', body)).status, 401);
  assert.equal((await post(s, 'line', '{', { 'x-line-signature': hmac(SECRET, '{', 'base64') })).status, 400);
  assert.ok(await s.metric('sluice_webhook_refused_total', 'inbox="line"') >= 65);
  assert.equal(await s.metric('sluice_webhook_malformed_total', 'inbox="line"'), 1);
  await s.stop();
});

test('Standard Webhooks: signed by the package, stale and replayed ones refused or known', async t => {
  const p = await provider(t, { '/messages': { json: { id: 'P-1' } } });
  const s = await startSluice({ config: { inboxes: { std: box('standard', p.url, { secret: WHSEC }) } } });
  const hook = new Webhook(WHSEC);
  const send = (id, body, at = new Date()) => post(s, 'std', body, { 'webhook-id': id, 'webhook-timestamp': String(Math.floor(at / 1000)), 'webhook-signature': `v1,bm90IG91cnM= ${hook.sign(id, at, body)}` });
  const body = JSON.stringify({ type: 'message.received', data: { from: 'cust:1', text: '你好' } });
  assert.equal((await send('msg_1', body)).status, 200);
  assert.equal((await send('msg_1', body)).status, 200);
  const call = await answered(p, '/messages');
  assert.equal(call.body.data.to, 'cust:1'); // the address came back as it was
  assert.equal(call.headers['idempotency-key'], call.body.data.key);
  assert.equal((await send('msg_2', body, new Date(Date.now() - 400000))).status, 401);
  assert.equal((await send('msg_3', body, new Date(Date.now() + 400000))).status, 401);
  await outcome(s, 'std', 'sent');
  assert.equal((await send('msg_4', JSON.stringify({ type: 'message.status', data: { message_id: 'p-1', status: 'delivered' } }))).status, 200);
  await outcome(s, 'std', 'delivered');
  assert.equal(p.seen.length, 1);
  await s.stop();
});

test("Feishu: encrypted events that the SDK's cipher reads, the challenge, a token that is fetched once", async t => {
  const p = await provider(t, { '/open-apis/auth': { json: { code: 0, tenant_access_token: 't-1', expire: 7200 } }, '/open-apis/im/v1/messages': { json: { code: 0, data: { message_id: 'om_9' } } } });
  const s = await startSluice({ config: { inboxes: { fs: box('feishu', p.url, { encrypt_key: KEY, verify_token: VERIFY, app_secret: 'app-secret', vars: ['app_id=cli_1'] }) } } });
  const seal = plain => {
    const iv = randomBytes(16), cipher = createCipheriv('aes-256-cbc', createHash('sha256').update(KEY).digest(), iv);
    const encrypt = Buffer.concat([iv, cipher.update(plain), cipher.final()]).toString('base64');
    assert.equal(new AESCipher(KEY).decrypt(encrypt), plain);
    return JSON.stringify({ encrypt });
  };
  const headers = (body, ts = seconds()) => ({ 'x-lark-request-timestamp': ts, 'x-lark-request-nonce': 'n0', 'x-lark-signature': createHash('sha256').update(ts + 'n0' + KEY + body).digest('hex') });
  const challenge = await post(s, 'fs', seal(JSON.stringify({ challenge: 'abc"飞书', token: VERIFY, type: 'url_verification' })));
  assert.deepEqual([challenge.status, JSON.parse(challenge.text)], [200, { challenge: 'abc"飞书' }]);
  assert.equal((await post(s, 'fs', seal(JSON.stringify({ challenge: 'abc', token: 'other', type: 'url_verification' })))).status, 401);
  const event = (id, text) => seal(JSON.stringify({ schema: '2.0', header: { event_id: id, event_type: 'im.message.receive_v1', token: VERIFY },
    event: { sender: { sender_id: { open_id: 'ou_1' } }, message: { message_id: `om_${id}`, chat_id: 'oc', create_time: String(Date.now()), message_type: 'text', content: JSON.stringify({ text }) } } }));
  const body = event('e1', '你好');
  assert.equal((await post(s, 'fs', body)).status, 401); // no signature
  assert.equal((await post(s, 'fs', body, headers(body, String(Number(seconds()) - 3600)))).status, 401);
  assert.equal((await post(s, 'fs', body, headers(body))).status, 200);
  const call = await answered(p, '/open-apis/im');
  assert.equal(call.headers.authorization, 'Bearer t-1');
  assert.match(JSON.parse(call.body.content).text, /您好/);
  assert.equal(call.body.receive_id, 'ou_1');
  const changed = body.replace(/"encrypt":"..../, '"encrypt":"AAAA');
  assert.equal((await post(s, 'fs', changed, headers(changed))).status, 400); // signed, but no JSON inside
  assert.equal(p.seen.filter(rq => rq.path.startsWith('/open-apis/auth')).length, 1);
  await outcome(s, 'fs', 'sent');
  await s.stop();
});

test('WhatsApp, Slack, Telegram, DingTalk and Messenger: handshake, message, answer', async t => {
  const p = await provider(t, {
    '/12345/messages': { json: { messages: [{ id: 'wamid.OUT' }] } }, '/chat.postMessage': { json: { ok: true, channel: 'D1', ts: '1.2' } }, '/me/messages': { json: { message_id: 'm_out' } },
    '/botan-access-token/sendMessage': { json: { ok: true, result: { message_id: 3, chat: { id: 77 } } } }, '/robot/sendBySession': { json: { errcode: 0, errmsg: 'ok' } } });
  const s = await startSluice({ config: { inboxes: {
    wa: box('whatsapp', p.url, { verify_token: VERIFY, vars: ['phone_number_id=12345'] }), sl: box('slack', p.url), tg: box('telegram', p.url), dt: box('dingtalk', p.url), fb: box('messenger', p.url, { verify_token: VERIFY }) } } });
  const get = query => fetch(`${s.url()}/webhook/wa?${query}`).then(async a => [a.status, await a.text()]);
  assert.deepEqual(await get(`hub.mode=subscribe&hub.verify_token=${VERIFY}&hub.challenge=1158201444`), [200, '1158201444']);
  assert.equal((await get('hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1'))[0], 401);

  const wa = JSON.stringify({ object: 'whatsapp_business_account', entry: [{ id: '1', changes: [{ field: 'messages', value: { messages: [{ from: '8613800138000', id: 'wamid.IN', timestamp: seconds(), type: 'text', text: { body: '你好' } }] } }] }] });
  assert.equal((await post(s, 'wa', wa, { 'x-hub-signature-256': `sha256=${hmac(SECRET, wa, 'hex')}` })).status, 200);
  assert.equal((await answered(p, '/12345/messages')).body.to, '8613800138000');
  await outcome(s, 'wa', 'sent');
  const statuses = JSON.stringify({ entry: [{ changes: [{ value: { statuses: [{ id: 'wamid.OUT', status: 'read' }, { id: 'wamid.OUT', status: 'delivered' }] } }] }] });
  assert.equal((await post(s, 'wa', statuses, { 'x-hub-signature-256': `sha256=${hmac(SECRET, statuses, 'hex')}` })).status, 200);
  await outcome(s, 'wa', 'read');
  assert.equal((await post(s, 'wa', statuses, { 'x-hub-signature-256': hmac(SECRET, statuses, 'hex') })).status, 401); // the prefix is part of it

  const slack = (body, ts = seconds()) => post(s, 'sl', body, { 'x-slack-request-timestamp': ts, 'x-slack-signature': `v0=${hmac(SECRET, `v0:${ts}:${body}`, 'hex')}` });
  assert.deepEqual(await slack(JSON.stringify({ type: 'url_verification', challenge: '3eZ' })), { status: 200, text: '3eZ' });
  const event = JSON.stringify({ type: 'event_callback', event_id: 'Ev1', event: { type: 'message', user: 'U1', text: '你好', ts: `${seconds()}.0001`, channel: 'D1' } });
  assert.equal((await slack(event, String(Number(seconds()) - 400))).status, 401);
  assert.equal((await slack(event)).status, 200);
  assert.equal((await answered(p, '/chat.postMessage')).body.channel, 'D1');

  const tg = JSON.stringify({ update_id: 7, message: { message_id: 1, date: Number(seconds()), chat: { id: 77 }, text: '你好' } });
  assert.equal((await post(s, 'tg', tg, { 'x-telegram-bot-api-secret-token': 'a-secret-for-testS' })).status, 401);
  assert.equal((await post(s, 'tg', tg, { 'x-telegram-bot-api-secret-token': SECRET })).status, 200);
  assert.equal((await answered(p, '/botan-access-token/')).body.chat_id, '77');

  const ms = String(Date.now()), dt = url => JSON.stringify({ msgId: `m-${url.length}`, msgtype: 'text', senderId: '$:LWCP_v1:$abc', createAt: Date.now(), text: { content: '你好' }, sessionWebhook: url });
  const sign = { timestamp: ms, sign: hmac(SECRET, `${ms}\n${SECRET}`, 'base64') };
  assert.equal((await post(s, 'dt', dt(`${p.url}/robot/sendBySession?session=1`), sign)).status, 200);
  await answered(p, '/robot/sendBySession');
  assert.equal((await post(s, 'dt', dt('http://127.0.0.1:9/elsewhere/of/a/strangers'), sign)).status, 200);
  assert.match(JSON.stringify(await outcome(s, 'dt', 'failed')), /not the provider/); // the body is not signed: it may not lead us anywhere

  const fb = JSON.stringify({ object: 'page', entry: [{ messaging: [{ sender: { id: '1' }, timestamp: Date.now(), message: { mid: 'm_1', text: '你好' } }] }] });
  assert.equal((await post(s, 'fb', fb, { 'x-hub-signature-256': `sha256=${hmac(SECRET, fb, 'hex')}` })).status, 200);
  assert.equal((await answered(p, '/me/messages')).body.recipient.id, '1');
  await s.stop();
});

test('what the provider answers is told in words: refused, too fast, unknown', async t => {
  let calls = 0;
  const p = await provider(t, { '/messages': rq => {
    calls++;
    if (rq.body.data.to === 'gone') return { status: 404, json: { code: 'no_such_user', message: 'this customer is not here' } };
    if (rq.body.data.to === 'slow') return calls < 3 ? { status: 429, headers: { 'retry-after': '1' } } : { json: { id: 'P-slow' } };
    return { json: { id: `P-${calls}` } };
  } });
  const s = await startSluice({ config: { inboxes: { std: box('standard', p.url, { secret: WHSEC }) } } });
  const hook = new Webhook(WHSEC);
  const write = (id, from) => {
    const body = JSON.stringify({ type: 'message.received', data: { from, text: '你好' } }), at = new Date();
    return post(s, 'std', body, { 'webhook-id': id, 'webhook-timestamp': String(Math.floor(at / 1000)), 'webhook-signature': hook.sign(id, at, body) });
  };
  assert.equal((await write('a', 'gone')).status, 200);
  assert.match(JSON.stringify(await outcome(s, 'std', 'failed')), /no_such_user.*this customer is not here/);
  calls = 0;
  assert.equal((await write('b', 'slow')).status, 200);
  await outcome(s, 'std', 'sent');
  assert.ok(calls >= 3);
  await s.stop();
});

// An agent's picture goes where the provider takes an address, as a signed link of ours; where there is none, or no public address, as text.
test('attachments go by their address', async t => {
  const p = await provider(t, {
    '/v2/bot/message/push': { json: { sentMessages: [{ id: 'L1' }] } }, '/17/messages': { json: { messages: [{ id: 'wamid.1' }] } },
    '/botan-access-token/': { json: { ok: true, result: { chat: { id: 5 }, message_id: 6 } } },
  });
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
  const id = createHash('sha256').update(png).digest('hex');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-hook-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  fs.mkdirSync(path.join(dir, id.slice(0, 2), id.slice(2, 4)), { recursive: true });
  fs.writeFileSync(path.join(dir, id.slice(0, 2), id.slice(2, 4), id), png);
  const s = await startSluice({ config: {
    media: { dir, public_url: 'https://chat.example' },
    inboxes: { line: box('line', p.url), wa: box('whatsapp', p.url, { vars: ['phone_number_id=17'], verify_token: VERIFY }), tg: box('telegram', p.url) },
  } });
  const agent = await s.agent('anna');
  await agent.connect();
  const ask = {
    line: () => { const b = JSON.stringify({ events: [{ type: 'message', webhookEventId: 'E1', timestamp: Date.now(), source: { type: 'user', userId: 'Upic' }, message: { id: '1', type: 'text', text: '人工' } }] }); return post(s, 'line', b, { 'x-line-signature': hmac(SECRET, b, 'base64') }); },
    wa: () => { const b = JSON.stringify({ entry: [{ changes: [{ value: { messages: [{ id: 'w1', from: '8613800138000', timestamp: seconds(), type: 'text', text: { body: '人工' } }] } }] }] }); return post(s, 'wa', b, { 'x-hub-signature-256': `sha256=${hmac(SECRET, b, 'hex')}` }); },
    tg: () => post(s, 'tg', JSON.stringify({ update_id: 1, message: { message_id: 1, date: Number(seconds()), chat: { id: 5 }, text: '人工' } }), { 'x-telegram-bot-api-secret-token': SECRET }),
  };
  const link = new RegExp(`^https://chat\\.example/media/${id}/a%20_b_\\.png\\?exp=\\d+&sig=[\\w-]+$`);
  const picture = { kind: 'image', text: '看这里', data: { attachments: [{ id, name: 'a "b".png', type: 'image/png', size: png.length }] } };
  const expected = {
    line: rq => rq.body.messages?.[0].type === 'image' && rq.body.to === 'Upic' && rq.body.messages[0].previewImageUrl === rq.body.messages[0].originalContentUrl && rq.body.messages[0].originalContentUrl,
    wa: rq => rq.body.type === 'image' && rq.body.to === '8613800138000' && rq.body.image.link,
    tg: rq => rq.path === '/botan-access-token/sendPhoto' && rq.body.chat_id === '5' && rq.body.photo,
  };
  const known = new Set();
  for (const name of ['line', 'wa', 'tg']) {
    assert.equal((await ask[name]()).status, 200, name);
    const offer = await agent.entry(d => d.t === 'offered' && !known.has(d.c), 15000);
    known.add(offer.c);
    const topic = `conv:${offer.c}`, { snap } = await agent.sub(topic);
    await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
    await agent.cmd('message.send', { ...picture, control: snap.state.epoch }, { topic }).res;
    const url = await until(() => `${name}: a picture: ${JSON.stringify(p.seen)}`, () => p.seen.map(expected[name]).find(Boolean), 15000);
    assert.match(url, link, name);
    assert.ok(p.seen.some(rq => JSON.stringify(rq.body).includes('看这里')), `${name}: its words`);
    p.seen.length = 0;
    await agent.cmd('conv.close', { control: snap.state.epoch }, { topic }).res;
  }
  await s.stop();
});
