// Mail when things break: a mailbox at Dovecot whose reader is killed at the worst moments, a real Postfix that has to wait.
import { test, after } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import nodemailer from 'nodemailer';
import { freePort, sleep, startSluice, until } from './lib/sluice.mjs';
import { dovecot, missing, postfix } from './lib/mail_servers.mjs';

const media = { dir: fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-mail-')) };
after(() => fs.rmSync(media.dir, { recursive: true, force: true }));

const inbox = extra => ({ channel: 'email', tenant: 'demo', secret: 'a mail secret for tests', address: 'support@sluice.example', bot: 'faq', ...extra });
const conversations = async s => (await s.redisClient.keys('addr:*demo/mail/*')).map(k => k.slice(k.lastIndexOf('/') + 1)).sort();
async function messages(s, who) {
  const [key] = await s.redisClient.keys(`addr:*demo/mail/${who}`);
  if (!key) return [];
  const conv = JSON.parse(await s.redisClient.hget(key, 's')).c;
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e)).filter(e => e.m.by === 'visitor').map(e => e.m.text);
}
const cursor = async s => Object.values(await s.redisClient.hgetall('box:{send:mail}:imap-cursor')).find(v => /^\d+ \d+$/.test(v)); // UIDVALIDITY, UID
const letter = (who, n) => `From: ${who}@example.cn\r\nTo: support@sluice.example\r\nSubject: ${n}\r\nMessage-ID: <${who}-${n}@example.cn>\r\nDate: ${new Date().toUTCString()}\r\n\r\nmail ${n}\r\n`;

test('a mailbox: nothing is lost or doubled when its reader is killed between fetch, append and cursor', { skip: missing('dovecot') }, async () => {
  const box = await dovecot();
  box.put(letter('old', 0)); // there before us: not ours to answer
  const s = await startSluice({
    bots: 0,
    config: { media, inboxes: { mail: inbox({ imap_url: `imap://127.0.0.1:${box.port}`, user: box.user, password: box.password, imap_poll: '2s', imap_keyword: 'Sluice' }) } },
  });
  const [gateway] = s.gateways;
  try {
    await until(() => `the first look\n${gateway.output.slice(-2000)}\n${box.log()}`, async () => await cursor(s));
    for (const n of [1, 2, 3]) box.put(letter('anna', n));
    await until('three mails', async () => (await messages(s, 'anna@example.cn')).length === 3, 15000);
    await until('the mails carry our keyword', () => box.mails().filter(f => /,.*[a-z]/.test(f)).length === 3, 5000);

    for (const point of ['mail.imap_fetched', 'mail.before_append', 'mail.after_append', 'mail.imap_before_cursor']) {
      await gateway.kill();
      gateway.env = { ...gateway.env, SLUICE_KILL: `${point}:2` };
      gateway.start();
      const who = point.replace(/[._]/g, '-');
      for (const n of [1, 2, 3, 4]) box.put(letter(who, n));
      await until(`the gateway passes ${point} twice`, () => gateway.exit, 20000);
      assert.equal(gateway.exit.signal, 'SIGKILL');
      delete gateway.env.SLUICE_KILL;
      gateway.start();
      await until(() => `four mails after a kill at ${point}\n${gateway.output.slice(-1500)}`, async () => (await messages(s, `${who}@example.cn`)).length >= 4, 30000);
      await sleep(300);
      assert.deepEqual((await messages(s, `${who}@example.cn`)).sort(), ['mail 1', 'mail 2', 'mail 3', 'mail 4'], point);
    }

    // the mailbox is made anew: all mails have other numbers, and each is known
    const before = await cursor(s);
    await box.renumber();
    await until(() => `another UIDVALIDITY\n${gateway.output.slice(-1500)}\n${box.log()}`, async () => (await cursor(s)).split(' ')[0] !== before.split(' ')[0], 30000);
    await sleep(500);
    assert.deepEqual((await messages(s, 'anna@example.cn')).sort(), ['mail 1', 'mail 2', 'mail 3']);
    box.put(letter('last', 1));
    await until(() => `the next mail\n${gateway.output.slice(-2500)}\n${box.log()}\n${box.mails()}`, async () => (await messages(s, 'last@example.cn')).length === 1, 15000);
    await s.readyGateway(gateway);
  } finally {
    await s.stop();
    await box.stop();
  }
});

test('Postfix waits while the gateway or the store is away, and then delivers each mail once', { skip: missing('postfix') }, async () => {
  const lmtp = await freePort();
  const s = await startSluice({ bots: 0, config: { media, inboxes: { mail: inbox({ lmtp_listen: `127.0.0.1:${lmtp}` }) } } });
  const mx = await postfix(lmtp);
  const client = nodemailer.createTransport({ host: '127.0.0.1', port: mx.port, secure: false, ignoreTLS: true });
  const send = (who, n) => client.sendMail({ from: `${who}@example.cn`, to: 'support@sluice.example', subject: `${n}`, text: `mail ${n}`, messageId: `<${who}-${n}@example.cn>` });
  const [gateway] = s.gateways;
  try {
    await send('up', 1);
    await until(() => `a mail through Postfix\n${mx.log()}`, async () => (await messages(s, 'up@example.cn')).length === 1, 15000);

    await gateway.term();
    await send('gone', 1);
    await until(() => `Postfix keeps it\n${mx.log()}`, () => /gone@example\.cn/.test(mx.queue()) && /status=deferred/.test(mx.log()), 10000);
    gateway.start();
    await s.readyGateway(gateway);
    mx.flush();
    await until(() => `the mail after the gateway is back\n${mx.log()}`, async () => (await messages(s, 'gone@example.cn')).length === 1, 20000);

    await s.redis.kill();
    await send('store', 1);
    await until(() => `451 while the store is away\n${mx.log()}`, () => /store@example\.cn/.test(mx.queue()) && /said: 451|451 4\.3/.test(mx.log()), 15000);
    s.redis.start();
    await until('the store', async () => (await s.redisClient.ping()) === 'PONG');
    await until(() => `the mail after the store is back\n${mx.log()}`, async () => { mx.flush(); await sleep(500); return (await messages(s, 'store@example.cn')).length >= 1; }, 30000);
    await until('an empty queue', () => /is empty/.test(mx.queue()), 15000);
    for (const who of ['up', 'gone', 'store']) assert.deepEqual(await messages(s, `${who}@example.cn`), ['mail 1']);
    assert.deepEqual(await conversations(s), ['gone@example.cn', 'store@example.cn', 'up@example.cn']);
  } finally {
    await mx.stop();
    await s.stop();
  }
});
