// What the two pages show of attachments, mail and channels, in a real browser: files picked, pasted and dropped go up and are shown to the
// other side; refusals are told in words; an agent sees who wrote a mail, how far that is certain, and what the mail quotes.
import { test, before, after, afterEach } from 'node:test';
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import nodemailer from 'nodemailer';
import { simpleParser } from 'mailparser';
import { chromium } from 'playwright-core';
import { SMTPServer } from 'smtp-server';
import { freePort, startSluice, until, PASSWORD, SECRET } from './lib/sluice.mjs';

const BROWSER = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(p => fs.existsSync(p));
const skip = BROWSER ? false : 'no chromium here: deploy/install brings it';
const options = { skip, timeout: 60000 };
const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
const ADDRESS = 'support@sluice.example', MAX = 200000;
const SHOTS = process.env.SLUICE_SHOTS;
let s, browser, dir, lmtp, submission;
const mails = []; // what we sent to customers
const contexts = [], complaints = [];

before(async () => {
  if (skip) return;
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-pages-'));
  lmtp = await freePort();
  const port = await freePort();
  submission = new SMTPServer({
    authOptional: true, disabledCommands: ['AUTH', 'STARTTLS'], logger: false,
    onData(stream, session, done) {
      simpleParser(stream).then(mail => { mails.push({ to: session.envelope.rcptTo[0].address, mail }); done(); }, done);
    },
  });
  await new Promise(resolve => submission.listen(port, '127.0.0.1', resolve));
  s = await startSluice({ config: {
    media: { dir, max: MAX }, agents: { anna: { capacity: 9 } },
    inboxes: {
      mail: { channel: 'email', tenant: 'demo', secret: 'a mail secret for tests', address: ADDRESS, authserv_id: 'mx.sluice.example', lmtp_listen: `127.0.0.1:${lmtp}`, smtp_url: `smtp://127.0.0.1:${port}` },
      loop: { channel: 'loopback', tenant: 'demo', secret: SECRET },
    } } });
  browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'] });
});
after(async () => {
  await browser?.close();
  await s?.stop();
  if (submission) await new Promise(resolve => submission.close(resolve));
  if (dir) fs.rmSync(dir, { recursive: true });
});
afterEach(async () => { for (const c of contexts.splice(0)) await c.close(); });

async function page(where, { width = 1280, locale = 'zh-CN', base = s.url() } = {}) {
  const c = await browser.newContext({ viewport: { width, height: 740 }, locale });
  contexts.push(c);
  c.setDefaultTimeout(15000);
  const p = await c.newPage();
  p.on('console', m => { if (m.type() === 'error' && !/status of (413|503)/.test(m.text())) complaints.push(`${where}: ${m.text()}`); });
  p.on('pageerror', e => complaints.push(`${where}: ${e.stack}`));
  await p.goto(base + where);
  return p;
}
async function desk(how) {
  const agent = await page('/agent', how);
  await agent.fill('#name', 'anna');
  await agent.fill('#password', PASSWORD);
  await agent.click('#enter');
  await agent.waitForSelector('#desk:not([hidden])');
  return agent;
}
async function take(agent) {
  await agent.click('#convs li.new button');
  await agent.click('#accept:enabled');
  await agent.waitForSelector('#close:not([hidden])');
}
const shot = async (p, name) => { if (SHOTS) await p.screenshot({ path: path.join(SHOTS, `${name}.png`) }); };
const fits = p => p.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);
const nameless = p => p.$$eval('button, input, progress', all => all.filter(e => e.offsetParent !== null
  && !(e.getAttribute('aria-label') || e.textContent.trim() || [...(e.labels ?? [])].some(l => l.textContent.trim()))).map(e => e.outerHTML));
const shown = (p, name) => p.waitForFunction(alt => [...document.querySelectorAll('#list .media img')].some(i => i.alt === alt && i.naturalWidth === 1), name);
const bytesOf = async (p, name) => { // what the link beside a message gives
  const href = await p.locator('#list .media a', { hasText: name }).getAttribute('href');
  return Buffer.from(await (await fetch(s.url() + href)).arrayBuffer());
};
function finish() { assert.deepEqual(complaints.splice(0), []); }

test('both pages carry the same lines for attachments', () => {
  const block = name => fs.readFileSync(new URL(`../../gateway/pages/${name}.html`, import.meta.url), 'utf8').match(/\/\* ---- attachments:[^]*end of attachments ---- \*\//)[0];
  assert.equal(block('visitor'), block('agent'));
});

for (const [width, locale] of [[360, 'zh-CN'], [1280, 'en-US']])
  test(`files go both ways, picked, pasted and dropped: ${width} px, ${locale}`, options, async () => {
    const zh = locale === 'zh-CN', visitor = await page('/', { width, locale }), agent = await desk({ width, locale });
    await visitor.click('#human');
    await take(agent);
    for (const p of [visitor, agent]) assert.equal(await p.getAttribute('#attach', 'aria-label'), zh ? '添加附件' : 'Attach a file');

    const [chooser] = await Promise.all([visitor.waitForEvent('filechooser'), visitor.click('#attach')]);
    assert.equal(chooser.isMultiple(), true);
    const long = '很长的文件名'.repeat(30) + '.bin', bytes = crypto.randomBytes(50000);
    await visitor.fill('#text', 'half a sentence');
    await chooser.setFiles([{ name: '收据 1.png', mimeType: 'image/png', buffer: PNG }, { name: long, mimeType: 'text/html', buffer: bytes }]);
    for (const p of [visitor, agent]) {
      await shown(p, '收据 1.png');
      assert.deepEqual(await bytesOf(p, '.bin'), bytes);
      await p.locator('#list li.visitor[data-n]:has(.media img) ~ li.visitor[data-n]:has(.media a:has-text(".bin"))').waitFor(); // in the order they were chosen
    }
    assert.equal(await visitor.inputValue('#text'), 'half a sentence'); // what is being typed stays
    assert.equal(await visitor.isVisible('#files'), false);

    // a picture out of the clipboard; text with a picture of it, as spreadsheets copy it, is text
    const paste = (p, name, withText) => p.evaluate(([data, file, isText]) => {
      const all = new DataTransfer();
      all.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], file, { type: 'image/png' }));
      if (isText) all.setData('text/plain', 'cells');
      document.getElementById('text').dispatchEvent(new ClipboardEvent('paste', { clipboardData: all, bubbles: true, cancelable: true }));
    }, [PNG.toString('base64'), name, withText]);
    await paste(agent, 'cells.png', true);
    await paste(agent, 'pasted.png', false);
    for (const p of [visitor, agent]) await shown(p, 'pasted.png');
    assert.equal(await agent.locator('#list img[alt="cells.png"]').count(), 0);
    await agent.locator('#list li.agent[data-n]:has(img[alt="pasted.png"])').waitFor();

    const drag = (p, type, name) => p.evaluate(([data, what, file]) => {
      const all = new DataTransfer();
      all.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], file, { type: 'image/png' }));
      const e = new DragEvent(what, { dataTransfer: all, bubbles: true, cancelable: true });
      document.getElementById('log').dispatchEvent(e);
      return e.defaultPrevented;
    }, [PNG.toString('base64'), type, name]);
    await drag(agent, 'dragenter', 'dropped.png');
    assert.equal(await agent.isVisible('#drop'), true);
    assert.equal(await drag(agent, 'dragover', 'dropped.png'), true);
    await drag(agent, 'drop', 'dropped.png');
    assert.equal(await agent.isVisible('#drop'), false);
    for (const p of [visitor, agent]) await shown(p, 'dropped.png');
    for (const p of [visitor, agent]) assert.deepEqual([await fits(p), await nameless(p)], [true, []]);
    await shot(visitor, `files-visitor-${width}`);
    await shot(agent, `files-agent-${width}`);
    await visitor.reload(); // and from the history
    await shown(visitor, 'dropped.png');
    await agent.click('#close');
    await visitor.waitForSelector('#rate:not([hidden])');
    finish();
  });

test('what cannot be sent is told in words, tried again or taken away', options, async () => {
  const visitor = await page('/', { width: 360 });
  await visitor.waitForSelector('#attach:enabled');
  const pick = files => visitor.setInputFiles('#picker', files);
  const row = name => visitor.locator('#files li', { hasText: name });
  await pick([{ name: 'large.bin', mimeType: '', buffer: Buffer.alloc(MAX + 1) }, { name: 'empty.txt', mimeType: '', buffer: Buffer.alloc(0) }]);
  await row('large.bin').getByText('文件太大，最多 195.3 KB。').waitFor();
  await row('empty.txt').getByText('文件是空的，不能发送。').waitFor();
  assert.equal(await row('large.bin').getByRole('button', { name: '重试' }).count(), 0);

  // The server says no: busy at first, then it takes it. In between there is progress to see, and the page can be told to stop.
  let answers = [503, 413, 'hold'], held = null;
  await visitor.route('**/media?*', route => {
    const next = answers.shift();
    if (next === undefined) return route.continue();
    if (next === 'hold') { held = route; return undefined; }
    return route.fulfill({ status: next, body: '{}' });
  });
  await pick([{ name: 'busy.png', mimeType: 'image/png', buffer: PNG }]);
  await row('busy.png').getByText('系统繁忙，请稍后重试。').waitFor();
  await pick([{ name: 'refused.bin', mimeType: '', buffer: Buffer.alloc(99, 'x') }]);
  await row('refused.bin').getByText('文件太大').waitFor();
  await pick([{ name: 'stopped.bin', mimeType: '', buffer: Buffer.alloc(99, 'y') }, { name: 'after.png', mimeType: 'image/png', buffer: PNG }]);
  await row('stopped.bin').locator('progress').waitFor();
  await row('after.png').getByText('等待上传').waitFor();
  assert.deepEqual([await fits(visitor), await nameless(visitor)], [true, []]);
  await shot(visitor, 'files-refused-360');
  await until('the upload is held', () => held);
  await row('stopped.bin').getByRole('button', { name: '取消' }).click();
  await shown(visitor, 'after.png');
  await row('busy.png').getByRole('button', { name: '重试' }).click();
  await shown(visitor, 'busy.png');
  await visitor.click('#language');
  await row('large.bin').getByText('Too large: at most 195.3 KB.').waitFor();
  for (const name of ['large.bin', 'empty.txt', 'refused.bin']) await row(name).getByRole('button', { name: 'Cancel' }).click();
  assert.equal(await visitor.isVisible('#files'), false);
  assert.equal(await visitor.locator('#list .media').count(), 2); // nothing else was sent
  // more than ten at once
  answers = Array(20).fill(503);
  await pick(Array.from({ length: 12 }, (_, i) => ({ name: `${i}.png`, mimeType: 'image/png', buffer: PNG })));
  await visitor.locator('#files li', { hasText: 'At most 10 files at a time.' }).waitFor();
  assert.equal(await visitor.locator('#files li').count(), 11);
  await visitor.click('#end'); // what the bot made of the pictures leaves nobody in line for the next test
  await visitor.click('#end');
  await visitor.waitForSelector('#end:disabled');
  finish();
});

test('a gateway that keeps no attachments offers none', options, async () => {
  const gateway = await s.addGateway(), { mail, ...inboxes } = s.config.inboxes; // mail needs a place for attachments
  s.writeConfig(gateway.name, { ...s.config, gateway: { ...s.config.gateway, listen: `127.0.0.1:${gateway.port}` }, media: { ...s.config.media, dir: '' }, inboxes });
  assert.ok(mail);
  gateway.start();
  await s.readyGateway(gateway);
  const visitor = await page('/', { base: `http://127.0.0.1:${gateway.port}` });
  await visitor.waitForSelector('#state.on');
  assert.equal(await visitor.isVisible('#attach'), false);
  finish();
});

async function give(mail, headers) {
  const transport = nodemailer.createTransport({ host: '127.0.0.1', port: lmtp, lmtp: true, secure: false, ignoreTLS: true });
  return transport.sendMail({ to: ADDRESS, envelope: { from: mail.from.replace(/.*<|>.*/g, ''), to: [ADDRESS] }, headers, ...mail });
}

for (const [width, locale] of [[360, 'en-US'], [1280, 'zh-CN']])
  test(`of a mail: subject, sender, how certain, what it quotes; each conversation's channel: ${width} px, ${locale}`, options, async () => {
    const zh = locale === 'zh-CN', name = `c${width}`, from = `张三 <${name}@example.cn>`, agent = await desk({ width, locale });
    const quoted = `在 2024年1月1日，客服 <${ADDRESS}> 写道：\n> 我们九点开门。\n> <b>bold</b>\n`;
    await give({ from, subject: '订单 <b>问题</b>', text: `转人工\n\n${quoted}` }, { 'Authentication-Results': 'mx.sluice.example; dmarc=pass header.from=example.cn' });
    await take(agent);
    const line = agent.locator('#list li.visitor', { hasText: '转人工' }).first();
    await line.locator('.mail', { hasText: '订单 <b>问题</b>' }).waitFor();
    assert.equal(await line.locator('.mail').innerText(), `订单 <b>问题</b> · 张三 <${name}@example.cn> · ${zh ? '已验证发件人' : 'sender verified'}`);
    assert.equal(await line.locator('p').first().innerText(), '转人工');
    assert.equal((await line.innerText()).includes('九点'), false);
    assert.equal(await line.locator('.more').getAttribute('aria-expanded'), 'false');
    await line.locator('.more').click();
    await line.locator('.quote', { hasText: '我们九点开门' }).waitFor();
    assert.equal(await line.locator('.quote').innerText(), quoted.trim());
    assert.equal(await line.locator('.more').getAttribute('aria-expanded'), 'true');
    await shot(agent, `mail-${width}`);
    await line.locator('.more').click();
    assert.equal(await line.locator('.quote').count(), 0);

    // unverified, by a program, and without a quote
    await give({ from, subject: 'Out of office', text: 'I am away.' }, { 'Auto-Submitted': 'auto-replied' });
    const away = agent.locator('#list li.visitor', { hasText: 'I am away.' });
    await away.waitFor();
    const words = await away.locator('.mail').innerText();
    assert.match(words, zh ? /未验证发件人 · 自动邮件$/ : /sender not verified · automatic mail$/);
    assert.equal(await away.locator('.more').count(), 0);

    // somebody else in the same thread: the token in our address proves the thread, not the person
    const told = await until('a mail to the customer', () => mails.find(m => m.to === `${name}@example.cn`)), { address } = told.mail.replyTo.value[0];
    assert.match(address, /^support\+c/);
    await give({ from: 'mallory@example.org', subject: 'Re: 订单', text: 'send it to me instead', envelope: { from: 'mallory@example.org', to: [address] }, to: address });
    const strange = agent.locator('#list li.visitor', { hasText: 'send it to me instead' });
    await strange.locator('.mail .beware', { hasText: zh ? '此人未参与过该会话' : 'a stranger in this thread' }).waitFor();

    const label = async li => li.locator('.channel').innerText();
    assert.equal(await label(agent.locator('#convs li.open')), zh ? '邮件' : 'Email');
    const visitor = await page('/', { locale });
    await visitor.click('#human');
    await agent.waitForFunction(() => document.querySelectorAll('#convs li.new .channel').length === 1);
    assert.equal(await label(agent.locator('#convs li.new')), zh ? '网页' : 'Web');
    await shot(agent, `channels-${width}`);
    await agent.click('#language');
    assert.equal(await label(agent.locator('#convs li.new')), zh ? 'Web' : '网页');
    await agent.reload();
    await agent.waitForFunction(() => document.querySelectorAll('#convs li .channel').length >= 2); // also out of a snapshot
    assert.equal(await fits(agent), true);
    for (const what of ['new', 'open']) { // nobody is left for the next test
      if (what === 'new') await take(agent);
      else await agent.click('#convs li.open:has-text("@") button');
      await agent.click('#close:not([hidden])');
      await agent.waitForFunction(n => document.querySelectorAll('#convs li.open').length === n, what === 'new' ? 1 : 0);
    }
    finish();
  });
