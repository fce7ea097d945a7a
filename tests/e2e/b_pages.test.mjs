// The two built-in pages in a real browser, at 360 and 1280 px: a visitor and an agent talk, and the policy blocks nothing of ours.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { chromium } from 'playwright-core';
import { startSluice, PASSWORD } from './lib/sluice.mjs';

const BROWSER = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(p => fs.existsSync(p));
const skip = BROWSER ? false : 'no chromium here: deploy/install brings it';
let s, browser;
before(async () => {
  if (skip) return;
  s = await startSluice();
  browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
});
after(async () => { await browser?.close(); await s?.stop(); });

async function page(width, where) {
  const p = await browser.newPage({ viewport: { width, height: 740 }, locale: 'zh-CN' });
  p.complaints = [];
  p.on('console', m => { if (m.type() === 'error') p.complaints.push(m.text()); });
  p.on('pageerror', e => p.complaints.push(e.message));
  await p.goto(s.url() + where);
  return p;
}
const isNarrow = p => p.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

for (const width of [360, 1280])
  test(`a visitor asks, gets a person, both answer, ${width} px`, { skip, timeout: 60000 }, async () => {
    const visitor = await page(width, '/'), agent = await page(width, '/agent');
    await visitor.fill('#text', 'hello');
    await visitor.press('#text', 'Enter');
    await visitor.waitForSelector('#list li.bot');
    assert.match(await visitor.textContent('#list li.bot'), /Hello/);
    await agent.fill('#tenant', 'demo');
    await agent.fill('#name', width === 360 ? 'anna' : 'ben');
    await agent.fill('#password', PASSWORD);
    await agent.click('#enter');
    await agent.waitForSelector('#desk:not([hidden])');
    await visitor.click('#human');
    await agent.waitForSelector('#convs button[data-conv]');
    await agent.waitForTimeout(300);
    await agent.click('#accept');
    await visitor.waitForSelector('text=客服已接入');
    await agent.fill('#text', '您好，我是真人');
    await agent.click('#send');
    await visitor.waitForSelector('#list li.agent');
    assert.match(await visitor.textContent('#list li.agent'), /我是真人/);
    await visitor.fill('#text', '谢谢');
    await visitor.press('#text', 'Enter');
    await agent.waitForSelector('#list li.visitor:has-text("谢谢")');
    await visitor.reload();
    await visitor.waitForSelector('#list li.visitor:has-text("谢谢")');
    await agent.click('#close');
    await visitor.click('button[data-score="5"]');
    await visitor.waitForSelector('text=感谢您的评价');
    await visitor.click('#language');
    assert.equal(await visitor.textContent('#send'), 'Send');
    assert.deepEqual([await isNarrow(visitor), await isNarrow(agent)], [true, true], 'nothing sticks out sideways');
    assert.deepEqual([...visitor.complaints, ...agent.complaints], []);
    await visitor.close();
    await agent.close();
  });
