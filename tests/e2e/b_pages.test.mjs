// The two built-in pages in a real browser, at 360 and 1280 px, in both languages: a visitor and an agent talk; notes stay inside;
// nothing is lost, doubled or reordered while gateways die, sockets are cut and pages are loaded again; the policy blocks nothing of ours.
import { test, before, after, afterEach } from 'node:test';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { startSluice, until, sleep, freePort, PASSWORD, API_TOKEN } from './lib/sluice.mjs';

const BROWSER = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(p => fs.existsSync(p));
const skip = BROWSER ? false : 'no chromium here: deploy/install brings it';
const options = { skip, timeout: 90000 };
let s, browser, mediaDir;
before(async () => {
  if (skip) return;
  const agent = { queues: ['default'], capacity: 5 };
  mediaDir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-pages-'));
  s = await startSluice({ config: { media: { dir: mediaDir }, agents: { anna: agent, ben: agent }, rules: { queues: ['default', 'billing'], place_ms: 300 } } });
  browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'] });
});
after(async () => {
  await browser?.close();
  await s?.stop();
  if (mediaDir) fs.rmSync(mediaDir, { recursive: true });
});

afterEach(async () => { for (const c of contexts.splice(0)) await c.close(); });

const contexts = [];
const complaints = [];
async function page(where, { width = 1280, locale = 'zh-CN', context, base = s.url() } = {}) {
  const c = context ?? await browser.newContext({ viewport: { width, height: 740 }, locale });
  if (!context) contexts.push(c);
  c.setDefaultTimeout(20000);
  const p = await c.newPage();
  p.told = []; // what its sockets were told
  p.on('websocket', ws => ws.on('framereceived', f => p.told.push(String(f.payload))));
  p.on('console', m => {
    // A dead gateway is no fault of the page: browsers complain about the socket by themselves.
    if (m.type() === 'error' && !/WebSocket connection to|ERR_CONNECTION|ERR_EMPTY_RESPONSE/.test(m.text())) complaints.push(`${where}: ${m.text()}`);
  });
  p.on('pageerror', e => complaints.push(`${where}: ${e.stack}`));
  await p.goto(base + where);
  return p;
}
// Every test ends with this: no complaint in any console.
function finish() {
  assert.deepEqual(complaints.splice(0), []);
}
async function login(name, how = {}) {
  const agent = await page('/agent', how);
  await agent.fill('#tenant', 'demo');
  await agent.fill('#name', name);
  await agent.fill('#password', PASSWORD);
  await agent.click('#enter');
  await agent.waitForSelector('#desk:not([hidden])');
  return agent;
}
async function say(p, text) {
  await p.fill('#text', text);
  await p.press('#text', 'Enter');
}
// A visitor who asked for a person, taken by this agent.
async function talk(visitor, agent) {
  await visitor.click('#human');
  await agent.click('#convs li.new button');
  await agent.click('#accept:enabled');
  await visitor.waitForSelector('#list li.system:has-text("客服已接入"), #list li.system:has-text("An agent has joined")');
  await agent.waitForSelector('#close:not([hidden])');
}
// What the bot does not know ends in the line: nobody is left there for the next test.
async function end(visitor) {
  await visitor.click('#end');
  await visitor.click('#end');
  await visitor.waitForSelector('#end:disabled');
}
const texts = (p, which) => p.$$eval(`#list li${which} p`, all => all.map(e => e.textContent));
const waitTaken = p => p.waitForFunction(() => document.querySelector('#list li') && !document.querySelector('#list li.waiting'), null, { timeout: 40000 });
const isNarrow = p => p.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
const nameless = p => p.$$eval('button, input, select, textarea', all => all.filter(e => e.offsetParent !== null
  && !(e.getAttribute('aria-label') || e.textContent.trim() || [...(e.labels ?? [])].some(l => l.textContent.trim()))).map(e => e.outerHTML));
const inOrder = p => p.$$eval('#list li', all => all.map(e => Number(e.dataset.n)).every((n, i, row) => i === 0 || n > row[i - 1]));
// What the store has of this visitor: her own words, in order.
async function stored(visitor) {
  const token = await visitor.evaluate(() => localStorage.getItem('sluice.web.token'));
  const reader = s.visitor({ token });
  await reader.connect();
  await until('the history is read', () => reader.shown().length > 0);
  await sleep(300);
  const own = reader.shown().filter(x => x.entry.m.by === 'visitor').map(x => x.entry.m.text);
  reader.close();
  return own;
}

test('both pages speak with the same client', () => {
  const client = name => fs.readFileSync(new URL(`../../gateway/pages/${name}.html`, import.meta.url), 'utf8').match(/\/\* ---- sluice\.v1:[^]*end of sluice\.v1 ---- \*\//)[0];
  assert.equal(client('visitor'), client('agent'));
});

for (const [width, locale, name] of [[360, 'zh-CN', 'anna'], [1280, 'en-US', 'ben']])
  test(`a visitor asks, gets a person, both answer, notes stay inside, rating: ${width} px, ${locale}`, options, async () => {
    const zh = locale === 'zh-CN';
    const visitor = await page('/', { width, locale }), agent = await login(name, { width, locale });
    await say(visitor, 'hello');
    await visitor.waitForSelector('#list li.bot');
    assert.match((await texts(visitor, '.bot'))[0], /Hello/);
    await talk(visitor, agent);
    await agent.fill('#text', '您好，我是真人');
    await agent.click('#send');
    await visitor.waitForSelector('#list li.agent:has-text("我是真人")');
    await agent.fill('#text', 'a secret among agents');
    await agent.click('#note');
    await agent.waitForSelector('#list li.note:not(.waiting):has-text("a secret among agents")');
    await say(visitor, '<b>谢谢</b>');
    await agent.waitForSelector('#list li.visitor:has-text("<b>谢谢</b>")');
    await visitor.waitForSelector('#list li.visitor[data-n]:has-text("<b>谢谢</b>")'); // confirmed: she has its number, too
    for (const p of [visitor, agent]) assert.deepEqual([await isNarrow(p), await nameless(p), await inOrder(p)], [true, [], true]);
    await visitor.reload();
    await visitor.waitForSelector('#list li.visitor:has-text("谢谢")');
    assert.deepEqual(await texts(visitor, '.visitor'), ['hello', zh ? '转人工' : 'I want to talk to a human', '<b>谢谢</b>']);
    await agent.click('#close');
    await visitor.click('#rate button[data-score="5"]');
    await visitor.waitForSelector(`#list li.system:has-text("${zh ? '感谢您的评价' : 'Thank you for rating'}")`);
    assert.equal(await visitor.isVisible('#rate'), false);
    assert.equal((await visitor.content()).includes('a secret among agents') || visitor.told.some(f => f.includes('a secret among agents')), false, 'a note is never told to a visitor');
    await visitor.click('#language');
    assert.equal(await visitor.textContent('#send'), zh ? 'Send' : '发送');
    await visitor.waitForSelector(`#list li.system:has-text("${zh ? 'Thank you for rating' : '感谢您的评价'}")`);
    finish();
  });

test('the language is the one asked for', options, async () => {
  const a = await page('/?lang=en'), b = await page('/?lang=zh', { locale: 'en-US' }), c = await page('/agent?lang=zh', { locale: 'fr-FR' });
  assert.deepEqual([await a.textContent('#send'), await b.textContent('#send'), await c.textContent('#enter')], ['Send', '发送', '登录']);
  assert.equal(await a.evaluate(() => document.documentElement.lang), 'en');
  finish();
});

test('the visitor sees a place in line and ends the conversation', options, async () => {
  const visitor = await page('/', { locale: 'en-US' });
  await visitor.click('#human');
  await visitor.waitForSelector('#place:has-text("number 1 in line")');
  await visitor.click('#end');
  assert.equal(await visitor.textContent('#end'), 'Really end it?');
  await visitor.click('#end');
  await visitor.waitForSelector('#list li.system:has-text("closed")');
  assert.equal(await visitor.isVisible('#place'), false);
  finish();
});

test('the gateway dies while both type: nothing lost, nothing twice, nothing out of order', options, async () => {
  const visitor = await page('/'), agent = await login('anna');
  await talk(visitor, agent);
  const said = ['转人工'], answered = [];
  const both = async (i, word) => {
    await say(visitor, `${word} ${i}`);
    said.push(`${word} ${i}`);
    await say(agent, `answer ${word} ${i}`);
    answered.push(`answer ${word} ${i}`);
  };
  for (let i = 0; i < 4; i++) await both(i, 'before');
  await s.gateways[0].kill();
  for (let i = 0; i < 4; i++) await both(i, 'dead');
  assert.ok(await visitor.locator('#list li.waiting').count() >= 4, 'what is not stored looks so');
  s.gateways[0].start();
  for (let i = 0; i < 4; i++) await both(i, 'again');
  for (const p of [visitor, agent]) await waitTaken(p);
  for (const p of [visitor, agent]) await p.waitForFunction(n => document.querySelectorAll('#list li.visitor[data-n]').length === n, said.length, { timeout: 30000 });
  for (const p of [visitor, agent]) await p.waitForFunction(n => document.querySelectorAll('#list li.agent[data-n]').length === n, answered.length, { timeout: 30000 });
  for (const p of [visitor, agent]) assert.deepEqual([await texts(p, '.visitor'), await texts(p, '.agent'), await inOrder(p)], [said, answered, true]);
  assert.deepEqual(await stored(visitor), said);
  await agent.click('#close');
  await visitor.waitForSelector('#rate:not([hidden])');
  finish();
});

test('what was typed outlives the page', options, async () => {
  const visitor = await page('/');
  await say(visitor, 'hello');
  await visitor.waitForSelector('#list li.bot');
  s.gateways[0].pause();
  for (const i of [1, 2, 3]) await say(visitor, `unsure ${i}`);
  await sleep(300);
  await s.gateways[0].kill();
  await say(visitor, 'unsure 4');
  s.gateways[0].start();
  await s.readyGateway(s.gateways[0]);
  await visitor.reload();
  await waitTaken(visitor);
  await visitor.waitForFunction(() => document.querySelectorAll('#list li.visitor[data-n]').length === 5);
  const expected = ['hello', 'unsure 1', 'unsure 2', 'unsure 3', 'unsure 4'];
  assert.deepEqual([await texts(visitor, '.visitor'), await inOrder(visitor)], [expected, true]);
  assert.deepEqual(await stored(visitor), expected);
  await end(visitor);
  finish();
});

test('a link that is cut again and again, at any byte', options, async () => {
  const port = await freePort(), target = s.gateways[0].port;
  const proxy = net.createServer(a => {
    const b = net.connect(target, '127.0.0.1');
    let budget = proxy.isCutting ? 200 + Math.floor(Math.random() * 1500) : Infinity; // bytes, both ways
    const end = () => { a.destroy(); b.destroy(); };
    const pass = (from, to) => from.on('data', data => {
      to.write(data.subarray(0, Math.min(data.length, budget)));
      budget -= data.length;
      if (budget <= 0) { proxy.cuts++; setTimeout(end, Math.random() * 20); }
    }).on('error', end).on('close', end);
    pass(a, b);
    pass(b, a);
  }).listen(port, '127.0.0.1');
  proxy.cuts = 0;
  const visitor = await page('/', { base: `http://127.0.0.1:${port}` });
  await visitor.waitForSelector('#state.on');
  proxy.isCutting = true;
  await visitor.evaluate(() => link.ws.close());
  const said = [];
  for (let i = 0; i < 30; i++) {
    said.push(`message ${i}`);
    await say(visitor, said[i]);
    await sleep(60);
  }
  await until('it was cut', () => proxy.cuts >= 5, 30000);
  proxy.isCutting = false;
  await waitTaken(visitor);
  await visitor.waitForFunction(() => document.querySelectorAll('#list li.visitor[data-n]').length === 30, null, { timeout: 30000 });
  assert.deepEqual([await texts(visitor, '.visitor'), await inOrder(visitor)], [said, true]);
  assert.deepEqual(await stored(visitor), said);
  await end(visitor);
  finish();
  proxy.close();
});

test('two tabs of one visitor see the same and do not fight', options, async () => {
  const a = await page('/');
  await a.waitForSelector('#state.on');
  const b = await page('/', { context: a.context() });
  await b.waitForSelector('#state.on');
  await say(a, 'hello from a');
  await b.waitForSelector('#list li.visitor:has-text("hello from a")');
  await say(b, 'hello from b');
  await a.waitForSelector('#list li.visitor:has-text("hello from b")');
  await waitTaken(a);
  await waitTaken(b);
  await until('both show the same', async () => JSON.stringify(await texts(a, '')) === JSON.stringify(await texts(b, '')));
  assert.equal(await s.metric('sluice_ws_closed_total', 'REPLACED'), 0);
  await end(a);
  finish();
});

test('an agent holds several conversations, also after a reload; refusals are told in words', options, async () => {
  const agent = await login('ben'), one = await page('/'), two = await page('/');
  await talk(one, agent);
  await talk(two, agent);
  await say(agent, 'to the second');
  await two.waitForSelector('#list li.agent:has-text("to the second")');
  await say(one, 'are you there?');
  await agent.waitForSelector('#convs li.open:has-text("1 条新消息")');
  await agent.click('#convs li.open:has-text("1 条新消息") button');
  await agent.waitForSelector('#list li.visitor:has-text("are you there?")');
  await agent.reload(); // back within the grace of rules.offline_ms: both are still with her
  await agent.waitForFunction(() => document.querySelectorAll('#convs li.open').length === 2);
  await agent.click('#convs li:has-text("are you there?") button');
  await say(agent, 'to the first');
  await one.waitForSelector('#list li.agent:has-text("to the first")');
  for (const visitor of [one, two]) assert.equal(await visitor.locator('#list li.system:has-text("您已回到原来的排队位置")').count(), 0);
  await agent.fill('#queue', 'nowhere');
  await agent.click('#transfer');
  await agent.waitForSelector('#problem:has-text("没有这个队列")');
  await agent.fill('#queue', 'billing');
  await agent.click('#transfer');
  await one.waitForSelector('#list li.system:has-text("正在为您转接到其他客服")');
  await agent.waitForSelector('#convs li.ended:has-text("to the first")');
  await agent.click('#convs li.open button');
  await agent.click('#close');
  await two.waitForSelector('#rate:not([hidden])');
  await end(one);
  finish();
});

test('who is away is offered nothing until she is ready; the line is counted', options, async () => {
  const agent = await login('anna');
  await agent.evaluate(() => { link.on_ack = link.on_res = () => {}; }); // the page never learns that it was taken
  await agent.selectOption('#presence', 'away');
  // Agents of the tests before count as away, too, for rules.offline_ms: nobody is ready when she is not.
  await agent.waitForSelector('#board:has-text("在线 0")');
  await agent.waitForFunction(() => link.topic('me').pending.length === 1 && link.topic('me').pending[0].sent);
  await agent.reload();
  await agent.waitForSelector('#state.on');
  assert.equal(await agent.inputValue('#presence'), 'away');
  await agent.waitForFunction(() => !link.topic('me').pending.length); // stored at the desk, so before what the visitor wants
  const visitor = await page('/');
  await visitor.click('#human');
  await agent.waitForSelector('#board:has-text("排队 1"):has-text("在线 0")');
  assert.equal(await agent.locator('#convs li.new').count(), 0);
  await agent.selectOption('#presence', 'ready');
  await agent.click('#accept:enabled');
  await agent.waitForSelector('#close:not([hidden])');
  await agent.click('#close');
  await visitor.waitForSelector('#rate:not([hidden])');
  finish();
});

test('logging in: refused in words, with a link that works once, and out', options, async () => {
  const agent = await page('/agent', { locale: 'en-US' });
  await agent.fill('#name', 'anna');
  await agent.fill('#password', 'not this');
  const refused = agent.waitForEvent('console', m => m.text().includes('401')); // the browser says so by itself
  await agent.click('#enter');
  await agent.waitForSelector('#problem:has-text("is wrong")');
  await refused;
  complaints.length = 0;
  const token = 'one-time-token-for-the-page';
  await s.redisClient.set(`once:${createHash('sha256').update(token).digest('hex')}`, JSON.stringify({ tenant: 'demo', agent: 'anna' }), 'PX', 60000);
  await agent.goto(`${s.url()}/agent#once=${token}`);
  await agent.waitForSelector('#state.on');
  assert.equal(agent.url().includes(token), false, 'the token leaves the address');
  await agent.click('#logout');
  await agent.waitForSelector('#login:not([hidden])');
  await agent.reload();
  assert.equal(await agent.isVisible('#login'), true);
  finish();
});

test('an image that was uploaded is shown to the visitor and to the agent', options, async () => {
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
  const authorization = `Bearer ${API_TOKEN}`;
  const agent = await login('anna'), visitor = await page('/');
  await say(visitor, '你好');
  await talk(visitor, agent);
  const { me } = JSON.parse(visitor.told.find(x => x.includes('"welcome"')));
  const uploaded = await fetch(s.url() + '/media?name=' + encodeURIComponent('收据.png'), { method: 'POST', body: png, headers: { authorization } });
  const { url, ...attachment } = await uploaded.json();
  const sent = await fetch(s.url() + '/v1/messages', {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ inbox: 'web', address: me.address, id: 'image-1', kind: 'image', data: { attachments: [attachment] } }),
  });
  assert.equal(sent.status, 202);
  for (const p of [visitor, agent]) {
    const image = await p.waitForSelector('.media img');
    assert.equal(await image.getAttribute('alt'), '收据.png');
    await p.waitForFunction(() => document.querySelector('.media img').naturalWidth === 1);
  }
  finish();
});
