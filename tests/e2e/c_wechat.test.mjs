// WeChat's three products over the simulated platform. Callbacks are also built and our answers read by packages nobody here
// wrote (@wecom/crypto, wechat-crypto), and another client (co-wechat-api) uses the same platform, so that it does not fit us alone.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { startSluice, sleep, until } from './lib/sluice.mjs';
import { start as startWeChat, DEMO_KEY } from '../fakes/wechat.mjs';

const require = createRequire(import.meta.url);
const { encrypt, decrypt, getSignature } = require('@wecom/crypto');
const WXBizMsgCrypt = require('wechat-crypto');
const WechatAPI = require('co-wechat-api');

const OA = 'wxfa4e00000000demo', CORP = 'wwfa4e00000000demo', TOKEN = 'demoToken';
const common = { tenant: 'demo', token: TOKEN, aes_key: DEMO_KEY };
const inboxes = api_url => ({
  oa: { ...common, channel: 'wechat', appid: OA, secret: 'demo-app-secret', api_url },
  bare: { ...common, channel: 'wechat', appid: OA, secret: 'demo-app-secret', api_url, passive: true },
  staff: { ...common, channel: 'wecom', corpid: CORP, agent_id: '1000002', secret: 'demo-corp-secret', api_url },
  kefu: { ...common, channel: 'wechat_kf', corpid: CORP, open_kfid: 'wkDemo0001', secret: 'demo-kf-secret', api_url, welcome: '欢迎！' },
});

async function world(t, options = {}) {
  const fake = await startWeChat({ retry_ms: 5000, ...options.fake });
  t.after(() => fake.stop());
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-media-'));
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
  const s = await startSluice({ gateways: options.gateways ?? 1, config: { inboxes: inboxes(fake.url), media: { dir } } });
  const last = s.gateways.length - 1;
  fake.actions.point({ oa: `${s.url()}/wechat/oa`, wecom: `${s.url()}/wecom/staff`, kf: `${s.url(last)}/wechat_kf/kefu` });
  return { s, fake };
}
const sends = (fake, to) => fake.journal.filter(l => ['send', 'passive'].includes(l.op) && l.to === to);
const heard = (fake, to, text, ms = 15000) => until(() => `${to} reads ${text}: ${JSON.stringify(fake.phone(to).slice(-4))}\n${fake.complaints.join('\n')}`,
  () => fake.phone(to).find(e => e.by === 'service' && e.text.includes(text)), ms);
const now = () => String(Math.floor(Date.now() / 1000));

// A callback as the package writes it.
function sealed(id, xml, { timestamp = now(), nonce = '1372623149', token = TOKEN } = {}) {
  const cipher = encrypt(DEMO_KEY, xml, id);
  const query = new URLSearchParams({ timestamp, nonce, msg_signature: getSignature(token, timestamp, nonce, cipher), encrypt_type: 'aes' });
  return { query, body: `<xml><ToUserName><![CDATA[gh_demo00000000]]></ToUserName><Encrypt><![CDATA[${cipher}]]></Encrypt></xml>` };
}
const message = (from, id, text) => `<xml><ToUserName><![CDATA[gh_demo00000000]]></ToUserName><FromUserName><![CDATA[${from}]]></FromUserName>`
  + `<CreateTime>${now()}</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[${text}]]></Content><MsgId>${id}</MsgId></xml>`;
async function push(s, where, { query, body }, gateway = 0) {
  const answer = await fetch(`${s.url(gateway)}${where}?${query}`, { method: 'POST', headers: { 'content-type': 'text/xml' }, body });
  return { status: answer.status, text: await answer.text() };
}

test('an Official Account, a WeCom application and customer service: asked, answered, once', async t => {
  const { s, fake } = await world(t, { gateways: 2 });
  for (const product of ['oa', 'wecom', 'kf']) {
    const check = await fake.verify(product);
    assert.ok(check.isVerified, `${product}: ${JSON.stringify(check)}`);
    assert.ok(check.ms < 1000, `${product} answered its check after ${check.ms} ms`);
  }
  await Promise.all(['oa', 'wecom', 'kf'].map(async product => {
    const from = `u-${product}`;
    const asked = await fake.customer({ product, from, text: '你好' });
    assert.equal(asked.answer, 'accepted');
    await heard(fake, from, '您好');
  }));
  await fake.actions.enter({ from: 'u-new' });
  await heard(fake, 'u-new', '欢迎');
  // many at once, in order, none twice, one token a product
  await Promise.all([1, 2, 3].map(i => fake.customer({ from: `many-${i}`, text: 'What are your opening hours?' })));
  for (const i of [1, 2, 3]) await heard(fake, `many-${i}`, '9 to 18');
  await sleep(500);
  for (const to of ['u-oa', 'u-wecom', 'u-kf', 'many-1', 'many-2', 'many-3']) assert.equal(sends(fake, to).length, 1, `${to} was told once`);
  assert.equal(fake.tokensMade.stable, 1);
  assert.deepEqual(fake.complaints, []);
  await s.stop();
});

test('callbacks of a package nobody here wrote are taken once; what is not from the platform is refused', async t => {
  const { s, fake } = await world(t);
  await fake.customer({ from: 'oPeer', text: '你好' }); // the platform knows the customer, and has a window open
  await heard(fake, 'oPeer', '您好');
  const asked = sealed(OA, message('oPeer', '6600000000000000001', '营业时间'));
  for (let i = 0; i < 3; i++) assert.deepEqual(await push(s, '/wechat/oa', asked), { status: 200, text: 'success' }); // repeats of the same
  await heard(fake, 'oPeer', '九点到六点');
  await sleep(300);
  assert.equal(sends(fake, 'oPeer').filter(l => l.text.includes('九点')).length, 1);

  const refused = async (what, status, post, where = '/wechat/oa') => assert.equal((await push(s, where, post)).status, status, what);
  await refused('another token', 403, sealed(OA, message('oPeer', '2', 'x'), { token: 'other' }));
  await refused('another account', 403, sealed('wx0000000000000000', message('oPeer', '3', 'x')));
  await refused('a stale timestamp', 403, sealed(OA, message('oPeer', '4', 'x'), { timestamp: String(Number(now()) - 3600) }));
  const changed = sealed(OA, message('oPeer', '5', 'x'));
  changed.body = changed.body.replace(/CDATA\[(.)/, (_, c) => `CDATA[${c}`).replace(/Encrypt><!\[CDATA\[../, 'Encrypt><![CDATA[AA');
  await refused('a changed byte', 403, changed);
  const open = sealed(OA, 'x');
  await refused('no encryption in safe mode', 403, { query: open.query, body: message('oPeer', '6', 'forged') });
  await refused('a DOCTYPE outside', 403, { query: open.query, body: `<!DOCTYPE xml>${open.body}` });
  await refused('a DOCTYPE inside', 400, sealed(OA, '<!DOCTYPE xml [<!ENTITY a "b">]><xml><MsgType>text</MsgType><Content>&a;</Content></xml>'));
  await refused('too large', 413, { query: open.query, body: 'a'.repeat(200000) });
  await refused('bad padding', 403, (() => {
    const bad = 'jn1L23DB+6ELqJ+6bruv23wqrxucuKIbckbdfsKqpRBxRa3gpi+ylbzBfe5e6nPDXskh0x/nfySFms100loFyg==', timestamp = now();
    const query = new URLSearchParams({ timestamp, nonce: 'n', msg_signature: getSignature(TOKEN, timestamp, 'n', bad) });
    return { query, body: `<xml><Encrypt>${bad}</Encrypt></xml>` };
  })());
  assert.ok(await s.metric('sluice_wechat_total', 'refused_signature') >= 6);
  assert.equal(fake.phone('oPeer').filter(e => e.by === 'service').length, 2);
  await s.stop();
});

test('an account without the customer-service interface is answered in its own request, across gateways', async t => {
  const { s, fake } = await world(t, { gateways: 2 });
  const peer = new WXBizMsgCrypt(TOKEN, DEMO_KEY, OA);
  const owner = await until('somebody owns the lane', async () => s.redisClient.hget('meta:{send:bare}', 'run'));
  assert.ok(owner);
  for (const gateway of [0, 1]) { // one of the two is not the lane's owner
    const answer = await push(s, '/wechat/bare', sealed(OA, message(`oBare${gateway}`, `770000000000000000${gateway}`, '你好')), gateway);
    assert.equal(answer.status, 200);
    const field = (text, name) => new RegExp(`<${name}>(?:<!\\[CDATA\\[)?(.*?)(?:\\]\\]>)?</${name}>`, 's').exec(text)?.[1];
    const cipher = field(answer.text, 'Encrypt');
    assert.equal(peer.getSignature(field(answer.text, 'TimeStamp'), field(answer.text, 'Nonce'), cipher), field(answer.text, 'MsgSignature'));
    const { message: xml, id } = peer.decrypt(cipher);
    assert.equal(id, OA);
    assert.equal(decrypt(DEMO_KEY, cipher).message, xml);
    assert.match(field(xml, 'Content'), /您好/);
    assert.equal(field(xml, 'ToUserName'), `oBare${gateway}`);
    assert.equal(field(xml, 'FromUserName'), 'gh_demo00000000');
  }
  assert.equal(fake.journal.filter(l => l.op === 'send').length, 0);
  await s.stop();
});

test('a token that is revoked is replaced once, and nothing is lost or doubled', async t => {
  const { s, fake } = await world(t);
  await fake.customer({ from: 'oToken', text: '你好' });
  await heard(fake, 'oToken', '您好');
  fake.actions.revoke_token();
  await fake.customer({ from: 'oToken', text: '营业时间' });
  await heard(fake, 'oToken', '九点到六点', 30000);
  assert.equal(sends(fake, 'oToken').length, 2);
  assert.ok(fake.tokensMade.forced <= 1);
  fake.actions.revoke_token();
  await fake.customer({ product: 'kf', from: 'wmToken', text: '你好' });
  await heard(fake, 'wmToken', '您好', 30000);
  assert.equal(sends(fake, 'wmToken').length, 1);
  await s.stop();
});

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
async function history(s, inbox, address) {
  const key = await until(`${address} has a conversation`, async () => (await s.redisClient.keys(`addr:*demo/${inbox}/${address}`))[0]);
  const conv = JSON.parse(await s.redisClient.hget(key, 's')).c;
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
}

test('pictures both ways, an agent, and a rating by menu', async t => {
  const { s, fake } = await world(t);
  const agent = await s.agent('anna');
  await agent.connect();
  await fake.customer({ from: 'oPic', text: '人工' });
  const offer = await agent.entry(d => d.t === 'offered');
  const topic = `conv:${offer.c}`;
  const { snap } = await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;

  const asked = await fake.customer({ from: 'oPic', kind: 'image', base64: PNG });
  assert.equal(asked.answer, 'accepted');
  const picture = await agent.entry(d => d.m?.kind === 'image', 10000, topic);
  const [attachment] = picture.m.data.attachments;
  assert.equal(attachment.type, 'image/png');
  assert.equal(attachment.size, Buffer.from(PNG, 'base64').length);

  await agent.cmd('message.send', { kind: 'image', data: { attachments: [attachment] }, control: snap.state.epoch }, { topic }).res;
  const shown = await until(() => `the picture on the phone: ${JSON.stringify(fake.journal.slice(-4))}`, () => fake.phone('oPic').find(e => e.by === 'service' && e.kind === 'image'), 15000);
  assert.equal(fake.media.get(shown.more.media_id).bytes.toString('base64'), PNG);

  await agent.cmd('conv.close', { control: snap.state.epoch }, { topic }).res;
  const menu = await until(() => `the rating's menu: ${JSON.stringify(fake.phone('oPic').slice(-3))}`, () => fake.phone('oPic').find(e => e.kind === 'menu'), 15000);
  const best = menu.more.options[0];
  assert.equal(best.id, 'sluice-rate-5');
  await fake.customer({ from: 'oPic', text: best.text, menu_id: best.id });
  await until('the rating', async () => (await history(s, 'oa', 'oPic')).some(e => e.m.data?.code === 'rated' && e.m.data.score === 5));
  assert.deepEqual(fake.complaints, []);
  await s.stop();
});

const states = (entries, n) => entries.filter(e => e.m.data?.code === 'delivery' && (n === undefined || e.m.data.of === n)).map(e => e.m.data.state);

test('an answer that is lost: never twice where nothing tells repeats apart, again under the same key where it does', async t => {
  const { s, fake } = await world(t);
  fake.set({ drop_after: { next: 1 } });
  await fake.customer({ from: 'oLost', text: '你好' });
  await until(async () => `the outcome: ${JSON.stringify(states(await history(s, 'oa', 'oLost')))}`, async () => states(await history(s, 'oa', 'oLost')).includes('unknown'), 30000);
  fake.set({ drop_after: { next: 1 } });
  await fake.customer({ product: 'kf', from: 'wmLost', text: '你好' });
  await until('the outcome', async () => states(await history(s, 'kefu', 'wmLost')).includes('sent'), 30000);
  const kf = fake.journal.filter(l => l.op === 'send' && l.to === 'wmLost');
  assert.ok(kf.length >= 2 && kf.every(l => l.key === kf[0].key), JSON.stringify(kf));
  assert.equal(fake.phone('wmLost').filter(e => e.by === 'service').length, 1);
  await sleep(2000);
  assert.equal(sends(fake, 'oLost').length, 1);
  assert.equal(states(await history(s, 'oa', 'oLost')).includes('sent'), false);
  await s.stop();
});

test('a template message is delivered or blocked as its receipt says; a closed window is told in plain words', async t => {
  const { s, fake } = await world(t);
  const agent = await s.agent('anna');
  await agent.connect();
  await fake.customer({ from: 'oTpl', text: '人工' });
  const offer = await agent.entry(d => d.t === 'offered'), topic = `conv:${offer.c}`;
  const { snap } = await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  const template = n => ({ kind: 'text', text: `order ${n}`, data: { template: { template_id: 'TM1', data: { number: { value: String(n) } } } }, control: snap.state.epoch });
  await agent.cmd('message.send', template(1), { topic }).res;
  const outcome = async (text, state) => {
    const said = await until(`"${text}" in the history`, async () => (await history(s, 'oa', 'oTpl')).find(e => e.m.text === text));
    return agent.entry(d => d.m?.data?.code === 'delivery' && d.m.data.of === said.n && d.m.data.state === state, 20000, topic);
  };
  await outcome('order 1', 'delivered');
  fake.set({ receipt_fail: { next: 1 } });
  await agent.cmd('message.send', template(2), { topic }).res;
  assert.match(JSON.stringify((await outcome('order 2', 'failed')).m.data.why), /屏蔽/);
  fake.actions.expire_windows();
  await agent.say('are you there?', { topic }).res;
  assert.match(JSON.stringify((await outcome('are you there?', 'failed')).m.data.why), /48/);
  await s.stop();
});

// A grant of five sends: what an answer costs is what the platform is given, and nothing is half sent.
test('a long answer costs its parts; one that costs more than is left is refused, and nothing of it is sent', async t => {
  const { s, fake } = await world(t);
  const agent = await s.agent('anna');
  await agent.connect();
  await fake.customer({ from: 'oLong', text: '人工' });
  const offer = await agent.entry(d => d.t === 'offered'), topic = `conv:${offer.c}`;
  await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  const texts = () => fake.phone('oLong').filter(e => e.by === 'service').map(e => e.text);
  await until(() => `two comfort texts: ${JSON.stringify(texts())}`, () => texts().length === 2, 15000); // in line, agent joined: three are left
  const sentence = i => `第${i}句：您的订单已经受理，我们会在两个工作日内发货，请您耐心等待。`;
  const long = n => Array.from({ length: n }, (_, i) => sentence(i)).join('');
  const fate = async (text, state) => {
    const said = await until('the message in the history', async () => (await history(s, 'oa', 'oLong')).find(e => e.m.text === text));
    return (await agent.entry(d => d.m?.data?.code === 'delivery' && d.m.data.of === said.n && d.m.data.state === state, 20000, topic)).m.data;
  };
  const tooLong = long(80), fits = long(55);
  assert.ok(Buffer.byteLength(tooLong) > 3 * 2048 && Buffer.byteLength(fits) > 2 * 2048);
  await agent.say(tooLong, { topic }).res;
  const refused = await fate(tooLong, 'failed');
  assert.deepEqual([refused.why.code, refused.why.left], ['needs_sends', 3]);
  assert.ok(refused.why.needs > 3, JSON.stringify(refused.why));
  assert.match(refused.why.zh, /只剩 3 条/);
  // The second part is throttled for a moment: it alone goes again.
  const before = fake.journal.length;
  fake.set({ fail_429: { skip: 1, next: 1 } });
  await agent.say(fits, { topic }).res;
  await fate(fits, 'sent');
  assert.equal(fake.faults.fail_429, 1);
  assert.equal(texts().length, 5);
  assert.equal(texts().slice(2).join(''), fits);
  assert.equal(fake.journal.slice(before).filter(l => l.op === 'send' && l.to === 'oLong' && !l.error).length, 3);
  await agent.say('one more', { topic }).res; // nothing is left, and the platform is not asked
  assert.equal((await fate('one more', 'failed')).why.code, 'window_closed');
  await fake.customer({ from: 'oLong', text: '好的' });
  await agent.say('and again', { topic }).res;
  await fate('and again', 'sent');
  assert.equal(texts().length, 6);
  assert.deepEqual(fake.complaints, []);
  await s.stop();
});

test('a picture that cannot be had keeps no message back', async t => {
  const { s, fake } = await world(t);
  await push(s, '/wechat/oa', sealed(OA, `<xml><ToUserName>gh_demo00000000</ToUserName><FromUserName>oGone</FromUserName><CreateTime>${now()}</CreateTime>`
    + '<MsgType>image</MsgType><PicUrl>http://127.0.0.1:1/x</PicUrl><MediaId>expired</MediaId><MsgId>88001</MsgId></xml>'));
  const [entry] = await history(s, 'oa', 'oGone');
  assert.equal(entry.m.kind, 'image');
  assert.equal(entry.m.data.media_id, 'expired');
  assert.equal(entry.m.data.attachments, undefined);
  assert.equal(await s.metric('sluice_wechat_total', 'media_missing'), 1);
  assert.deepEqual(fake.complaints, []);
  await s.stop();
});

test('a gateway killed in the middle of a drain, and a store that is away: every message once, in order', async t => {
  const { s, fake } = await world(t, { gateways: 2, fake: { retry_ms: 500, retries: 30 } });
  fake.options.kf_page = 7; // many pages
  fake.actions.point({ kf: 'http://127.0.0.1:9/' }); // the hints are lost
  fake.retries = 0;
  const texts = Array.from({ length: 60 }, (_, i) => `note ${i}`);
  for (const text of texts) await fake.customer({ product: 'kf', from: `wm${texts.indexOf(text) % 3}`, text });
  fake.retries = 30;
  fake.actions.point({ kf: `${s.url(1)}/wechat_kf/kefu` });
  const last = fake.customer({ product: 'kf', from: 'wm0', text: 'the last' });
  await until('some of them are stored', async () => (await s.redisClient.keys('addr:*demo/kefu/wm*')).length > 0);
  await s.gateways[1].kill(); // it holds the drain's lock and a page half stored
  fake.actions.point({ kf: `${s.url(0)}/wechat_kf/kefu` });
  await last;
  const again = fake.customer({ product: 'kf', from: 'wm1', text: 'after the crash' });
  await sleep(300);
  await s.redis.kill();
  await sleep(1000);
  s.redis.start();
  await again;
  const wanted = from => [...texts.filter((_, i) => `wm${i % 3}` === from), ...(from === 'wm0' ? ['the last'] : from === 'wm1' ? ['after the crash'] : [])];
  for (const from of ['wm0', 'wm1', 'wm2']) {
    let seen = [];
    await until(() => `all of ${from}: ${seen.length} of ${wanted(from).length}`, async () => {
      seen = (await history(s, 'kefu', from)).filter(e => e.m.by === 'visitor').map(e => e.m.text);
      return seen.length >= wanted(from).length;
    }, 90000, 200);
    assert.deepEqual(seen, wanted(from));
  }
  await s.stop();
});

test('the simulated platform serves another client, too', async t => {
  const fake = await startWeChat({});
  t.after(() => fake.stop());
  await fake.customer({ from: 'oOther', text: 'hi', product: 'kf' }).catch(() => {}); // opens a window; nobody listens
  const api = new WechatAPI(OA, 'demo-app-secret');
  api.prefix = `${fake.url}/cgi-bin/`;
  await api.ensureAccessToken();
  const sent = await api.sendText('oOther', '你好');
  assert.equal(sent.errcode, 0);
  assert.equal(fake.phone('oOther').at(-1).text, '你好');
  await assert.rejects(api.sendText('nobody', 'x'), /40003|invalid openid/);
  const wrong = new WechatAPI(OA, 'not the secret');
  wrong.prefix = api.prefix;
  await assert.rejects(wrong.ensureAccessToken(), /40125|invalid appsecret/);
});

test("a session of customer service that is not ours: the agent is told whose it is; it is taken back when that is configured", async t => {
  const { s, fake } = await world(t);
  const failed = async who => until(() => `${who}: a failed send: ${JSON.stringify(fake.journal.slice(-4))}`, async () => (await history(s, 'kefu', who)).find(e => e.m.data?.code === 'delivery' && e.m.data.state === 'failed'), 15000);
  for (const [who, state, words] of [['wmHuman', 3, /person in WeCom/], ['wmQueue', 2, /WeCom's own queue/], ['wmEnded', 4, /has ended/]]) {
    fake.kfState.set(who, state);
    await fake.customer({ product: 'kf', from: who, text: '你好' });
    assert.match(JSON.stringify((await failed(who)).m), words);
    assert.equal(fake.kfState.get(who), state); // not ours to change
    assert.equal(sends(fake, who).length, 0);
  }
  await s.gateways[0].term();
  const taking = await s.addGateway({ inboxes: { kefu: { kf_take_back: true } } });
  taking.start();
  await s.readyGateway(taking);
  fake.actions.point({ kf: `${s.url(1)}/wechat_kf/kefu` });
  for (const [who, state] of [['wmHuman2', 3], ['wmQueue2', 2]]) {
    fake.kfState.set(who, state);
    await fake.customer({ product: 'kf', from: who, text: '你好' });
    await heard(fake, who, '您好', 30000);
    assert.equal(fake.kfState.get(who), 1);
    assert.equal(sends(fake, who).length, 1);
  }
  await s.stop();
});
