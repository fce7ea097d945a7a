// The whole on every channel, over the simulated providers: a customer, the bot, an agent at her page in a real browser, who sees what
// became of each of her messages, and what could not be sent with the reason.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';
import * as play from '../fakes/play.mjs';
import { startSluice, freePort, until, PASSWORD } from './lib/sluice.mjs';

const BROWSER = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(p => fs.existsSync(p));
const skip = BROWSER ? false : 'no chromium here: deploy/install brings it';
const common = { tenant: 'demo', bot: 'faq' };
let s, p, browser, page;
const complaints = [];

before(async () => {
  if (skip) return;
  const lmtp = `127.0.0.1:${await freePort()}`, port = await freePort();
  p = await play.start({ gateway: `http://127.0.0.1:${port}`, lmtp, retry_ms: 500 });
  const { wechat, sms, email } = p.channels, oa = wechat.products.oa;
  s = await startSluice({ gateways: 0, config: {
    agents: { anna: { queues: ['default'], capacity: 5 } }, rules: { queues: ['default'], language: 'zh' },
    inboxes: {
      wechat: { ...common, channel: 'wechat', appid: oa.id, secret: oa.secret, token: oa.token, aes_key: oa.aes_key, api_url: wechat.url },
      sms: { ...common, channel: 'smpp', host: '127.0.0.1', port: sms.ports.smpp, system_id: 'sluice', password: 'secret', source: '10690001', reconnect_max: '1s' },
      email: { ...common, channel: 'email', address: 'service@sluice.test', secret: 'a token secret for tests', lmtp_listen: lmtp, smtp_url: `smtp://127.0.0.1:${email.ports.smtp}` },
    } } });
  const gateway = await s.addGateway({ gateway: { listen: `127.0.0.1:${port}` }, media: { dir: path.join(s.dir, 'media'), public_url: `http://127.0.0.1:${port}` } });
  gateway.port = port;
  gateway.start();
  await s.readyGateway(gateway);
  browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'] });
  page = await (await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'zh-CN' })).newPage();
  page.setDefaultTimeout(15000);
  page.on('console', m => { if (m.type() === 'error') complaints.push(m.text()); });
  page.on('pageerror', e => complaints.push(e.stack));
  await page.goto(`${s.url()}/agent`);
  await page.fill('#tenant', 'demo');
  await page.fill('#name', 'anna');
  await page.fill('#password', PASSWORD);
  await page.click('#enter');
  await page.waitForSelector('#desk:not([hidden])');
});
after(async () => { await browser?.close(); await s?.stop(); await p?.stop(); });

const phone = channel => p.channels[channel].phone(play.CUSTOMERS[channel]).filter(e => e.by === 'service').map(e => e.text);
async function write(channel, text) {
  const { answer } = await p.channels[channel].customer({ from: play.CUSTOMERS[channel], text });
  assert.equal(answer, 'accepted');
}
const shows = (channel, words) => until(() => `${channel} shows "${words}": ${JSON.stringify(phone(channel))}`, () => phone(channel).some(text => text.includes(words)));

for (const channel of ['wechat', 'sms', 'email'])
  test(`${channel}: question, bot, person, her answer and what became of it, rating`, { skip, timeout: 60000 }, async () => {
    await write(channel, 'hello');
    await shows(channel, 'Hello! 您好！');
    await write(channel, '转人工');
    await shows(channel, '转接人工');
    await page.click('#convs li.new button');
    await page.click('#accept:enabled');
    await page.waitForSelector('#text:enabled');
    const words = `Answer for ${channel}, 您好`;
    await page.fill('#text', words);
    await page.press('#text', 'Enter');
    await shows(channel, words);
    // The agent's page marks her message: sent, and delivered where the provider says so.
    const item = page.locator('#list li', { hasText: words });
    await until(() => 'what became of her message', async () => (await item.innerText()).includes(channel === 'sms' ? '✓✓ 已送达' : '✓ 已发出'));
    if (process.env.SLUICE_SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SLUICE_SCREENSHOTS, `agent-${channel}.png`) });
    await write(channel, '谢谢');
    await page.getByText('谢谢').last().waitFor();
    await page.click('#close');
    await shows(channel, '评分');
    await write(channel, '5');
    await shows(channel, '感谢您的评价');
    assert.deepEqual(complaints.splice(0), []);
    assert.deepEqual(p.channels[channel].complaints, []);
  });

test('a window that the platform has closed: the agent sees that it was not sent, and why', { skip, timeout: 60000 }, async () => {
  const from = 'oLate000000000000000000000001', fake = p.channels.wechat;
  assert.equal((await fake.customer({ from, text: '转人工' })).answer, 'accepted');
  await page.click('#convs li.new button');
  await page.click('#accept:enabled');
  await page.waitForSelector('#text:enabled');
  await fake.actions.expire_windows();
  await page.fill('#text', 'Are you still there?');
  await page.press('#text', 'Enter');
  const item = page.locator('#list li', { hasText: 'Are you still there?' });
  await until(() => 'a red mark with the reason', async () => /✗ 未送达: ?\S+/.test(await item.innerText()));
  if (process.env.SLUICE_SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SLUICE_SCREENSHOTS, 'agent-failed.png') });
  assert.ok(!fake.phone(from).some(e => e.text === 'Are you still there?'));
  assert.deepEqual(complaints.splice(0), []);
});

const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
test('the page of the four phones: a picture goes to each, and one comes back from the web chat', { skip, timeout: 60000 }, async () => {
  const phones = await (await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-US' })).newPage();
  phones.setDefaultTimeout(15000);
  phones.on('console', m => { if (m.type() === 'error') complaints.push(`phones: ${m.text()}`); });
  phones.on('pageerror', e => complaints.push(`phones: ${e.stack}`));
  await phones.goto(p.url);
  const web = phones.frameLocator('iframe');
  await web.locator('#human').click();
  for (const channel of ['wechat', 'sms', 'email']) {
    await phones.fill(`#text-${channel}`, '转人工');
    await phones.press(`#text-${channel}`, 'Enter');
  }
  for (let i = 0; i < 4; i++) {
    await page.locator('#convs li.new button').first().click();
    await page.click('#accept:enabled');
    await page.waitForSelector('#close:not([hidden])');
    await page.setInputFiles('#picker', [{ name: '说明.png', mimeType: 'image/png', buffer: PNG }]);
    await page.waitForSelector('#list li.agent[data-n] .media img');
  }
  const seen = where => where.evaluate(img => img.complete && img.naturalWidth === 1);
  await until('the picture in the web chat', () => seen(web.locator('.media img[alt="说明.png"]')));
  await until('the picture on WeChat', () => seen(phones.locator('.wechat li.service img')));
  await phones.locator('.email li.service', { hasText: '[说明.png]' }).waitFor();
  const link = phones.locator('.sms li.service a').last(); // a short message is text: the picture is a link in it
  assert.deepEqual(Buffer.from(await (await fetch(await link.getAttribute('href'))).arrayBuffer()), PNG);
  await web.locator('#picker').setInputFiles([{ name: 'web.png', mimeType: 'image/png', buffer: PNG }]);
  await until('her own picture', () => seen(web.locator('.media img[alt="web.png"]')));
  await page.click('#convs li.open:has-text("网页") button');
  await until("the visitor's picture at the desk", () => seen(page.locator('#list li.visitor .media img[alt="web.png"]')));
  if (process.env.SLUICE_SCREENSHOTS) await phones.screenshot({ path: path.join(process.env.SLUICE_SCREENSHOTS, 'phones.png') });
  for (let open = await page.locator('#convs li.open').count(); open > 0; open--) { // one is left of the test before
    await page.locator('#convs li.open button').first().click();
    await page.click('#close');
    await page.waitForFunction(n => document.querySelectorAll('#convs li.open').length === n, open - 1);
  }
  // The rating's choices are buttons, and no lines of text besides.
  await phones.locator('.wechat .options button').first().waitFor();
  assert.equal((await phones.locator('.wechat ol').innerText()).includes('[sluice-rate'), false);
  await phones.close();
  assert.deepEqual(complaints.splice(0), []);
});
