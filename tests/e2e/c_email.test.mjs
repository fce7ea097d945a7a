// Mail with servers and clients that nobody here wrote: nodemailer and swaks deliver over LMTP, smtp-server takes what is submitted,
// mailparser reads it.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import nodemailer from 'nodemailer';
import { simpleParser } from 'mailparser';
import { SMTPServer } from 'smtp-server';
import { BIN, freePort, sleep, startSluice, until } from './lib/sluice.mjs';

const ADDRESS = 'support@sluice.example';
const inbox = extra => ({
  channel: 'email', tenant: 'demo', secret: 'a mail secret for tests', address: ADDRESS, from_name: '客服 Support',
  authserv_id: 'mx.sluice.example', bot: 'faq', ...extra,
});

// A submission server that keeps what it takes; `onMail` may refuse or stay silent.
async function mailbox() {
  const box = { mails: [], port: await freePort(), behave: null };
  box.server = new SMTPServer({
    authOptional: true, disabledCommands: ['AUTH', 'STARTTLS'], logger: false,
    onRcptTo(address, session, done) { done(box.behave?.rcpt?.(address.address) ?? null); },
    onData(stream, session, done) {
      const chunks = [];
      stream.on('data', c => chunks.push(c));
      stream.on('end', async () => {
        const raw = Buffer.concat(chunks);
        box.mails.push({ raw, from: session.envelope.mailFrom.address, to: session.envelope.rcptTo.map(r => r.address), parsed: await simpleParser(raw) });
        const say = box.behave?.data?.(box.mails.at(-1), session);
        if (say !== 'silent') done(say ?? null);
      });
    },
  });
  box.server.on('error', () => {});
  await new Promise(resolve => box.server.listen(box.port, '127.0.0.1', resolve));
  return box;
}

const mailer = port => nodemailer.createTransport({ host: '127.0.0.1', port, lmtp: true, secure: false, ignoreTLS: true });
let serial = 0;
async function give(port, mail, to = [ADDRESS]) {
  const from = mail.from ?? 'zhang@example.cn';
  const info = await mailer(port).sendMail({
    from, to: ADDRESS, subject: 'hi', text: 'hello', messageId: `<m${++serial}.${process.pid}@example.cn>`,
    envelope: { from: mail.sender ?? 'zhang@example.cn', to }, ...mail,
  });
  return info;
}

async function history(s, conv) {
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
}
async function conversation(s, who) {
  const key = await until(`a conversation of ${who}`, async () => (await s.redisClient.keys(`addr:*demo/mail/${who}`))[0]);
  return JSON.parse(await s.redisClient.hget(key, 's')).c;
}
const visitors = entries => entries.filter(e => e.m.by === 'visitor');
const outcomes = entries => entries.filter(e => e.m.data?.code === 'delivery').map(e => e.m.data.state);

let s, box, lmtp;
const media = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-mail-'));
before(async () => {
  box = await mailbox();
  lmtp = await freePort();
  s = await startSluice({ config: { media: { dir: media }, inboxes: { mail: inbox({ lmtp_listen: `127.0.0.1:${lmtp}`, smtp_url: `smtp://127.0.0.1:${box.port}` }) } } });
});
after(async () => {
  await s.stop();
  await new Promise(resolve => box.server.close(resolve));
  fs.rmSync(media, { recursive: true, force: true });
});

test('a mail is answered by the bot, in its thread, and a reply comes back to the same conversation', async () => {
  await give(lmtp, { from: '张三 <zhang@example.cn>', subject: '订单问题', text: '你好', messageId: '<first@example.cn>' });
  const answer = await until('the answer', () => box.mails.find(m => m.to[0] === 'zhang@example.cn'));
  const mail = answer.parsed;
  assert.equal(mail.subject, 'Re: 订单问题');
  assert.equal(mail.inReplyTo, '<first@example.cn>');
  assert.deepEqual([mail.references].flat(), ['<first@example.cn>']);
  assert.match(mail.text, /Hello! 您好！/);
  assert.match(mail.html, /Hello! 您好！/);
  assert.deepEqual(mail.from.value, [{ address: ADDRESS, name: '客服 Support' }]);
  assert.equal(mail.headers.get('auto-submitted'), 'auto-replied');
  assert.match(answer.from, /^support\+b[0-9a-z_-]+\.[a-z2-7]{12}@sluice\.example$/);
  assert.match(mail.messageId, /^<sluice\.\d+-[0-9a-z]{26}\.[0-9a-z_-]+\.[a-z2-7]{12}@sluice\.example>$/);
  assert.ok(!/[^\r]\n|\r[^\n]/.test(answer.raw.toString('latin1')));
  const conv = await conversation(s, 'zhang@example.cn');
  await until('the outcome', async () => outcomes(await history(s, conv)).includes('sent'));

  // the customer answers, quoting, from another address: the token in Reply-To proves the thread
  const reply = mail.replyTo.value[0].address;
  assert.match(reply, /^support\+c\d+-[0-9a-z]{26}\.[a-z2-7]{12}@sluice\.example$/);
  await give(lmtp, {
    from: 'li@example.org', to: reply, subject: 'Re: 订单问题', text: '还有一个问题\n\n在 2024年1月1日，客服 <support@sluice.example> 写道：\n> Hello!\n',
  }, [reply.toUpperCase()]);
  const second = await until('the second mail', async () => visitors(await history(s, conv))[1]);
  assert.equal(second.m.text, '还有一个问题');
  assert.equal(second.m.data.email.thread, 'address');
  assert.equal(second.m.data.email.stranger, true);
  assert.equal(second.m.data.email.verified, false);
  assert.ok(second.m.data.email.full);
  assert.equal((await s.redisClient.keys('addr:*demo/mail/li@example.org')).length >= 0, true);
});

test('a delivery report settles the send', async () => {
  await give(lmtp, { from: 'gone@example.cn', text: '你好' });
  const answer = await until('the answer', () => box.mails.find(m => m.to[0] === 'gone@example.cn'));
  const conv = await conversation(s, 'gone@example.cn');
  await until('sent', async () => outcomes(await history(s, conv)).includes('sent'));
  const raw = action => [
    'From: MAILER-DAEMON@mx.example.cn', `To: ${answer.from}`, 'Subject: report', `Message-ID: <dsn-${action}@mx.example.cn>`, 'MIME-Version: 1.0',
    'Content-Type: multipart/report; report-type=delivery-status; boundary=b', '', '--b', '', 'sorry', '--b', 'Content-Type: message/delivery-status', '',
    'Reporting-MTA: dns; mx.example.cn', '', 'Final-Recipient: rfc822; gone@example.cn', `Action: ${action}`, 'Status: 5.1.1',
    'Diagnostic-Code: smtp; 550 5.1.1 no such user', '', '--b--', ''].join('\r\n');
  await give(lmtp, { sender: '', raw: raw('delayed') }, [answer.from]);
  await give(lmtp, { sender: '', raw: raw('failed') }, [answer.from]);
  await until('failed', async () => outcomes(await history(s, conv)).includes('failed'));
  const entries = await history(s, conv);
  assert.deepEqual(outcomes(entries), ['sent', 'failed']); // the delay decided nothing
  assert.match(JSON.stringify(entries.find(e => e.m.data?.state === 'failed').m.data), /no such user/);
  assert.equal(visitors(entries).length, 1); // a report is no message
});

test('an automatic mail is shown and not answered', async () => {
  await give(lmtp, { from: 'robot@example.cn', text: '你好', headers: { 'Auto-Submitted': 'auto-replied' } });
  const conv = await conversation(s, 'robot@example.cn');
  const [entry] = await until('the mail', async () => { const v = visitors(await history(s, conv)); return v.length > 0 && v; });
  assert.equal(entry.m.data.auto, true);
  assert.equal(entry.m.data.email.auto, 'auto-submitted');
  await sleep(1500);
  assert.equal(box.mails.filter(m => m.to[0] === 'robot@example.cn').length, 0);
});

test('attachments go to the media store, and the same mail twice is one message', async () => {
  const mail = {
    from: 'file@example.cn', subject: '发票', text: '见附件', html: '<p>见附件</p>', messageId: '<file@example.cn>', date: new Date(0),
    attachments: [{ filename: '发票.pdf', content: '%PDF-1.4', contentType: 'application/pdf' }],
  };
  const raw = (await nodemailer.createTransport({ streamTransport: true, buffer: true, newline: 'windows' }).sendMail({ to: ADDRESS, ...mail })).message;
  await give(lmtp, { raw });
  await give(lmtp, { raw });
  await give(lmtp, { raw }, [ADDRESS, 'support+x@sluice.example']);
  const conv = await conversation(s, 'file@example.cn');
  const entries = await until('the mail', async () => { const v = visitors(await history(s, conv)); return v.length > 0 && v; });
  const [file] = entries[0].m.data.attachments;
  assert.equal(file.name, '发票.pdf');
  assert.equal(file.size, 8);
  assert.equal(file.type, 'application/pdf');
  await sleep(300);
  assert.equal(visitors(await history(s, conv)).length, 1);
});

test('what cannot be parsed is put aside, and the next mail is taken', async () => {
  const deep = 'From: deep@example.cn\r\n' + Array.from({ length: 40 }, (_, i) => `Content-Type: multipart/mixed; boundary="b${i}"\r\n\r\n--b${i}\r\n`).join('') + '\r\ndeep\r\n';
  const info = await give(lmtp, { raw: deep });
  assert.match(info.response, /^250/);
  await until('the quarantine', async () => Object.keys(await s.redisClient.hgetall('box:{send:mail}:quarantine')).length > 0);
  const [, why] = Object.entries(await s.redisClient.hgetall('box:{send:mail}:quarantine')).find(([name]) => /^f[0-9a-f]{64}$/.test(name));
  assert.match(why, /nested deeper than 20/);
  assert.equal(await s.metric('sluice_email_total', 'what="quarantined"'), 1);
});

test('a mail of no bytes is put aside, too: its server must not bring it again for ever', async () => {
  const talk = await new Promise((resolve, reject) => {
    let said = '';
    const peer = net.connect(lmtp, '127.0.0.1', () => peer.write(`LHLO x\r\nMAIL FROM:<a@b.cn>\r\nRCPT TO:<${ADDRESS}>\r\nDATA\r\n.\r\nQUIT\r\n`));
    peer.on('data', d => { said += d; }).on('error', reject).on('close', () => resolve(said));
  });
  assert.match(talk, /354 .*\r\n250 2\.0\.0 .*\r\n221 /);
});

test('an operator lists, shows and drops what was put aside', async () => {
  const run = (...args) => spawnSync(BIN, ['quarantine', ...args, '--set', `store.url=unix:${s.dir}/redis.sock`], { encoding: 'utf8', timeout: 20000 });
  const raw = 'From: twice@example.cn\r\nSubject: secret words\r\n' + Array.from({ length: 40 }, (_, i) => `Content-Type: multipart/mixed; boundary="c${i}"\r\n\r\n--c${i}\r\n`).join('') + '\r\ndeep\r\n';
  const ids = async () => Object.keys(await s.redisClient.hgetall('box:{send:mail}:quarantine')).filter(f => f[0] === 'f').map(f => f.slice(1));
  const before = await ids();
  await give(lmtp, { raw });
  const id = await until('the second mail', async () => (await ids()).find(i => !before.includes(i)));
  const name = `mail/${id}`, listed = run('list');
  assert.equal(listed.status, 0, listed.stderr);
  const line = listed.stdout.split('\n').find(l => l.startsWith(name));
  assert.match(line, /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +\d+ .*nested deeper than 20/);
  assert.match(listed.stdout, new RegExp(`^${before.length + 1} mails? in quarantine$`, 'm'));
  const shown = run('show', name);
  assert.match(shown.stdout, /inbox +mail\n +reason .*nested deeper than 20.*\n +size +\d+ bytes/);
  assert.ok(!(listed.stdout + shown.stdout).includes('secret words'));
  // The mail itself: to a pipe, from the folder of this configuration and no other.
  const size = Number(shown.stdout.match(/size +(\d+)/)[1]);
  const bytes = run('show', '--raw', name, '--set', `media.dir=${media}`);
  assert.equal(bytes.status, 0, bytes.stderr);
  assert.match(bytes.stdout, /Subject: secret words/);
  assert.equal(Buffer.byteLength(bytes.stdout), size);
  assert.equal(run('show', '--raw', name).status, 69);
  assert.match(run('show', '--raw', name, '--set', `media.dir=${media}/nowhere`).stderr, /cannot be read/);
  assert.ok(!fs.existsSync(`${media}/nowhere`));
  assert.equal(run('show', '--raw', name, name).status, 64);
  // Dropped: it alone, and once.
  assert.equal(run('drop', name).status, 0);
  assert.deepEqual(await ids(), before);
  for (const verb of ['drop', 'show']) assert.equal(run(verb, name).status, 65);
  for (const wrong of ['nonsense', `mail/${id.slice(1)}`, `a}b/${id}`]) assert.equal(run('drop', wrong).status, 64);
  assert.equal(run('retry', name).status, 64);
});

test('a server that says no, later, or nothing at all', async () => {
  const seen = address => box.mails.filter(m => m.to[0] === address);
  let later = 0;
  box.behave = {
    rcpt: address => address === 'no@example.cn' ? Object.assign(new Error('no such user'), { responseCode: 550 })
      : address === 'later@example.cn' && later++ === 0 ? Object.assign(new Error('greylisted'), { responseCode: 451 }) : null,
    data: (mail, session) => {
      if (mail.to[0] !== 'silent@example.cn' || seen('silent@example.cn').length > 1) return null;
      session.socket?.destroy();
      for (const c of box.server.connections) c._socket.destroy();
      return 'silent';
    },
  };
  for (const name of ['no', 'later', 'silent']) await give(lmtp, { from: `${name}@example.cn`, text: '你好' });
  const states = async who => outcomes(await history(s, await conversation(s, who)));
  await until('failed', async () => (await states('no@example.cn')).includes('failed'));
  await until('sent after a pause', async () => (await states('later@example.cn')).includes('sent'), 20000);
  assert.equal(seen('no@example.cn').length, 0);
  await until('the mail whose fate was unknown goes again', () => seen('silent@example.cn').length === 2, 60000);
  const [one, two] = seen('silent@example.cn');
  assert.equal(one.parsed.messageId, two.parsed.messageId); // the same mail, for whoever got the first
  box.behave = null;
});

test('swaks delivers over LMTP; strangers and HELO are refused', () => {
  const run = (...args) => spawnSync('swaks', ['--protocol', 'LMTP', '--server', `127.0.0.1:${lmtp}`, '--from', 'swaks@example.cn', ...args], { encoding: 'utf8' });
  const good = run('--to', `${ADDRESS},support+tag@sluice.example`);
  assert.equal(good.status, 0, good.stdout);
  assert.equal(good.stdout.match(/<- {2}250 2\.0\.0/g).length, 2); // one for each recipient
  const bad = run('--to', 'nobody@sluice.example');
  assert.notEqual(bad.status, 0);
  assert.match(bad.stdout, /550 5\.1\.1/);
  const smtp = spawnSync('swaks', ['--server', `127.0.0.1:${lmtp}`, '--to', ADDRESS, '--from', 'a@b.cn'], { encoding: 'utf8' });
  assert.match(smtp.stdout, /500 5\.5\.1/);
});

test('no store, no acknowledgement: 451, and after it is back exactly one message', async () => {
  s.redis.pause();
  const mail = { from: 'down@example.cn', text: '你好', messageId: '<down@example.cn>' };
  const first = give(lmtp, mail).then(info => info.response, error => error.message);
  await sleep(500);
  await s.redis.kill();
  assert.doesNotMatch(await first, /^250/);
  s.redis.start();
  await until('the mail is taken', async () => {
    try { return /^250/.test((await give(lmtp, mail)).response); } catch { await sleep(200); return false; }
  }, 30000);
  const conv = await conversation(s, 'down@example.cn');
  assert.equal(visitors(await history(s, conv)).length, 1);
});

test('automatic answers to one address are counted for the inbox, not for the process', async () => {
  const port = await freePort();
  const other = await startSluice({ config: { media: { dir: media }, inboxes: { mail: inbox({ lmtp_listen: `127.0.0.1:${port}`, smtp_url: `smtp://127.0.0.1:${box.port}`, auto_answers: 2 }) } } });
  const answers = () => box.mails.filter(m => m.to[0] === 'often@example.cn').length;
  const ask = async n => {
    await give(port, { from: 'often@example.cn', text: '你好', inReplyTo: '<often@example.cn>' });
    return until(`outcome ${n}`, async () => (list => list.length >= n && list)(outcomes(await history(other, await conversation(other, 'often@example.cn')))));
  };
  await ask(1);
  await ask(2);
  assert.equal(answers(), 2);
  assert.equal((await other.gateways[0].term()).code, 0);
  other.gateways[0].start();
  await other.readyGateway(other.gateways[0]);
  assert.deepEqual(await ask(3), ['sent', 'sent', 'failed']);
  assert.equal(answers(), 2);
  await other.stop();
});
