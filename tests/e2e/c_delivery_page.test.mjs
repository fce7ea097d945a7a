// The agent's page shows what became of each message on its way: sent, and in red with the reason what failed or is unknown.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { chromium } from 'playwright-core';
import { PASSWORD, SECRET, startSluice, until } from './lib/sluice.mjs';

const BROWSER = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(p => fs.existsSync(p));
const skip = BROWSER ? false : 'no chromium here: deploy/install brings it';

test('ticks and red marks on the agent\'s page, in both languages', { skip, timeout: 60000 }, async () => {
  const s = await startSluice({ config: { inboxes: { loop: { channel: 'loopback', tenant: 'demo', secret: SECRET } } } });
  const browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
  const page = await (await browser.newContext({ viewport: { width: 1000, height: 700 }, locale: 'zh-CN' })).newPage();
  const faults = [];
  page.on('pageerror', e => faults.push(e.stack));
  await page.goto(s.url() + '/agent');
  await page.fill('#name', 'anna');
  await page.fill('#password', PASSWORD);
  await page.click('#enter');
  await page.waitForSelector('#desk:not([hidden])');
  const write = (id, text) => s.post('/loopback/loop', { address: 'c9', id, kind: 'text', text }, { authorization: `Bearer ${SECRET}` });
  await write('a', '你好');
  await write('b', '人工');
  await page.click('#convs button');
  await page.click('#accept');
  await page.fill('#text', '您好，我在。');
  await page.press('#text', 'Enter');
  const mine = page.locator('#list li.agent', { hasText: '您好，我在。' });
  await mine.locator('small', { hasText: '✓ 已发出' }).waitFor();

  // What a provider says later, straight into the lane's log: the same events that an adapter's receipts become.
  const conv = JSON.parse(await s.redisClient.hget((await s.redisClient.keys('addr:*demo/loop/c9'))[0], 's')).c;
  const sends = async () => Object.fromEntries(await Promise.all((await s.redisClient.keys(`send:{send:loop}:${conv}/*`))
    .map(async k => [Number(k.split('/').pop()), JSON.parse(await s.redisClient.hget(k, 's'))])));
  const number = Math.max(...Object.keys(await until('sends', async () => { const all = await sends(); return Object.keys(all).length > 2 && all; })).map(Number));
  const receipt = async (n, reason, extra = []) => s.redisClient.xadd('in:{send:loop}', '*', 't', 'receipt', 'ri', (await sends())[n].remote, 'r', reason, ...extra);
  await receipt(number, 'delivered');
  await mine.locator('small', { hasText: '✓✓ 已送达' }).waitFor();
  await receipt(number, 'read');
  await mine.locator('small', { hasText: '✓✓ 已读' }).waitFor();
  await page.fill('#text', '第二条');
  await page.press('#text', 'Enter');
  const second = page.locator('#list li.agent', { hasText: '第二条' });
  await second.locator('small', { hasText: '✓ 已发出' }).waitFor();
  const last = Math.max(...Object.keys(await sends()).map(Number));
  // A lane that stands tells the conversation so, and the page says what it waits for.
  await s.redisClient.xadd(`in:{${conv.split('.')[0]}}`, '*', 't', 'outcome', 'c', conv, 'n', String(last), 'r', 'waiting', 'cd', 'not_connected');
  await second.locator('small', { hasText: '… 等待发送: 渠道未连接' }).waitFor();
  if (process.env.SLUICE_SHOTS) await page.screenshot({ path: `${process.env.SLUICE_SHOTS}/waiting.png` });
  await receipt(last, 'failed', ['x', 'handset switched off', 'cd', 'EXPIRED']);
  await second.locator('small', { hasText: '✗ 未送达: handset switched off' }).waitFor();
  assert.ok((await second.getAttribute('class')).includes('lost'));
  if (process.env.SLUICE_SHOTS) await page.screenshot({ path: `${process.env.SLUICE_SHOTS}/delivery.png` });
  await page.click('#language');
  await page.locator('#list li.agent small', { hasText: '✗ not delivered: handset switched off' }).waitFor();
  assert.equal(await page.locator('#list li', { hasText: 'delivery' }).count(), 0); // outcomes are no lines of their own
  await page.reload(); // and from a snapshot
  await page.waitForSelector('#desk:not([hidden])');
  await page.click('#convs button');
  await page.locator('#list li.agent small', { hasText: '✗ not delivered: handset switched off' }).waitFor();
  await page.locator('#list li.agent small', { hasText: '✓✓ read' }).waitFor();
  assert.deepEqual(faults, []);
  await browser.close();
  await s.stop();
});
