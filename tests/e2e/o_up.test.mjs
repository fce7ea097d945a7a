// `sluice up`: the story, addresses and login link, children that die, several on one folder, a clean end; and `sluice dead`.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { BIN, freePort, startSluice, until } from './lib/sluice.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

// Every process whose command line names the folder.
function processesOf(dir) {
  return fs.readdirSync('/proc').filter(name => /^\d+$/.test(name) && Number(name) !== process.pid).filter(pid => {
    try {
      return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(dir);
    } catch {
      return false;
    }
  }).map(Number);
}

function tempDir() {
  return fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-up-'));
}

async function startUp(args) {
  const up = spawn(BIN, ['up', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  up.text = '';
  up.stdout.on('data', data => { up.text += data; });
  up.stderr.on('data', data => { up.text += data; });
  up.done = new Promise(resolve => up.on('exit', (code, signal) => resolve({ code, signal })));
  try {
    await until(() => `up is running:\n${up.text}`, () => up.text.includes('Ctrl-C ends it') || up.exitCode !== null, 30000);
  } catch (error) {
    up.kill('SIGKILL');
    throw error;
  }
  return up;
}

test('up --once plays the whole story and leaves nothing behind', async () => {
  const tmp = tempDir();
  const ran = spawnSync(BIN, ['up', '--once'], { encoding: 'utf8', timeout: 60000, env: { ...process.env, TMPDIR: tmp } });
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  for (const words of ['怎么退货', '7 天内可无理由退货', 'refund within 1 to 3', '转人工', 'An agent has joined', '★★★★★', 'every step happened'])
    assert.ok(ran.stdout.includes(words), `the transcript has no "${words}":\n${ran.stdout}`);
  assert.deepEqual(processesOf(tmp), []);
  assert.deepEqual(fs.readdirSync(tmp), []);
  fs.rmdirSync(tmp);
});

test('up --once --sim plays it on four channels', async () => {
  const tmp = tempDir(), began = Date.now();
  const ran = spawnSync(BIN, ['up', '--once', '--config', path.join(ROOT, 'deploy/demo.yaml'), '--set', `bot.faq=${ROOT}/deploy/faq.yaml`, '--sim', path.join(ROOT, 'tests/fakes/play.mjs')],
    { encoding: 'utf8', timeout: 60000, env: { ...process.env, TMPDIR: tmp } });
  assert.equal(ran.status, 0, ran.stdout + ran.stderr);
  const parts = ran.stdout.split(/^== /m).slice(1);
  assert.deepEqual(parts.map(p => p.split('\n')[0]), ['web chat', 'wechat', 'sms', 'email']);
  for (const part of parts) {
    for (const words of ['7 天内可无理由退货', 'refund within 1 to 3', '转人工', '我帮您登记了', '★★★★★', '感谢您的评价'])
      assert.ok(part.includes(words), `the transcript has no "${words}":\n${part}`);
    if (!part.startsWith('web chat')) assert.match(part, /the agent sees message \d+: (sent|delivered)/);
  }
  assert.match(ran.stdout, /complete on 4 channels: every step happened/);
  assert.ok(Date.now() - began < 60000);
  assert.deepEqual(processesOf(tmp), []);
  assert.deepEqual(fs.readdirSync(tmp), []);
  fs.rmdirSync(tmp);
});

test('up prints addresses, restarts a child that dies, and ends everything at TERM', async () => {
  const dir = tempDir(), port = await freePort();
  const up = await startUp(['--dir', dir, '--port', String(port)]);
  try {
    const token = up.text.match(/agent#once=(\S+)/)[1];
    const login = once => fetch(`http://127.0.0.1:${port}/v1/login`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ once }) });
    assert.equal((await login(token)).status, 200);
    assert.equal((await login(token)).status, 401);        // it worked once
    const password = up.text.match(/demo \/ lin \(password (\S+)\)/)[1];
    const withPassword = await fetch(`http://127.0.0.1:${port}/v1/login`, {
      method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ tenant: 'demo', name: 'lin', password }) });
    assert.equal(withPassword.status, 200);

    const second = spawnSync(BIN, ['up', '--dir', dir, '--port', '0'], { encoding: 'utf8', timeout: 30000 });
    assert.equal(second.status, 69);
    assert.match(second.stderr, /in use by another/);

    const gateway = () => processesOf(dir).find(pid => fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[1] === 'gateway');
    const first = gateway();
    process.kill(first, 'SIGKILL');
    await until('another gateway', async () => {
      const now = gateway();
      if (now === undefined || now === first) return false;
      return (await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => ({}))).status === 200;
    }, 20000);
  } finally {
    up.kill('SIGTERM');
  }
  assert.deepEqual(await up.done, { code: 0, signal: null });
  assert.deepEqual(processesOf(dir), []);
  const ends = ['gateway', 'bot', 'router'].map(name => up.text.lastIndexOf(`role=${name} msg="ended cleanly"`));
  assert.ok(ends.every((at, i) => at > (i === 0 ? 0 : ends[i - 1])), `the order of the end:\n${up.text.slice(-2000)}`);
  fs.rmSync(dir, { recursive: true });
});

test('when up is killed with -9, nothing keeps running', async () => {
  const dir = tempDir();
  const up = await startUp(['--dir', dir, '--port', '0']);
  assert.ok(processesOf(dir).length >= 5);
  up.kill('SIGKILL');
  await up.done;
  await until(() => `nothing is left of ${processesOf(dir)}`, () => processesOf(dir).length === 0, 15000);
  const again = await startUp(['--dir', dir, '--port', '0']);      // and the folder can be used again
  again.kill('SIGTERM');
  assert.deepEqual(await again.done, { code: 0, signal: null });
  fs.rmSync(dir, { recursive: true });
});

test('wrong usage and wrong configuration are told apart by their exit codes', () => {
  const run = args => spawnSync(BIN, args, { encoding: 'utf8', timeout: 20000 });
  assert.equal(run([]).status, 64);
  assert.equal(run(['no-such-command']).status, 64);
  assert.equal(run(['gateway', '--no-such-option']).status, 64);
  assert.equal(run(['gateway', '--config', '/nowhere.yaml']).status, 78);
  assert.equal(run(['bot', '--check-config']).status, 78);
  assert.match(run(['router', '--set', 'no.such=1', '--check-config']).stderr, /NO__SUCH: no such key/);
  assert.equal(run(['router', '--set', 'listen=127.0.0.1:1', '--check-config']).status, 64);
  assert.equal(run(['router', '--set', 'rules.accept_ms=1', '--check-config']).status, 78);
  // --check-config finds what would stop the role at its start, and names the key
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-check-'));
  const check = (role, yaml) => {
    fs.writeFileSync(`${dir}/c.yaml`, yaml);
    const r = run([role, '--config', `${dir}/c.yaml`, '--check-config']);
    return r.status === 0 ? 'right' : r.status === 78 ? r.stderr : `exit ${r.status}`;
  };
  const web = more => `inboxes: {web: {channel: webchat, tenant: demo, secret: 0123456789abcdef${more}}}\n`;
  assert.equal(check('gateway', web('')), 'right');
  assert.match(check('gateway', web(', api_url: "http://x"')), /inboxes\.web\.api_url/);
  assert.match(check('gateway', 'inboxes: {web: {channel: pigeon, tenant: demo}}\n'), /inboxes\.web\.channel: there is no adapter "pigeon"/);
  assert.match(check('gateway', 'inboxes: {web: {channel: webchat, tenant: demo}}\n'), /inboxes\.web\.secret/);
  assert.match(check('gateway', 'gateway: {listen: nonsense}\n'), /gateway\.listen/);
  assert.match(check('gateway', 'gateway: {tls_cert: /nowhere, tls_key: /nowhere}\n'), /gateway\.tls_cert: \/nowhere cannot be read/);
  assert.match(check('gateway', 'agents: {lin: {tenant: demo, password_hash: hunter2}}\n'), /agents\.lin\.password_hash/);
  assert.doesNotMatch(check('gateway', 'agents: {lin: {tenant: demo, password_hash: hunter2}}\n'), /hunter2/);
  assert.match(check('gateway', 'tokens: {t: {tenant: demo, secret: 0123456789abcdef, rights: [everything]}}\n'), /tokens\.t\.rights/);
  const mail = 'inboxes: {m: {channel: email, tenant: demo, secret: 0123456789abcdef, address: a@b.cn, smtp_url: "smtp://localhost"}}\n';
  assert.match(check('gateway', mail), /inboxes\.m: channel email needs a media store: give media\.dir/);
  assert.equal(check('gateway', `${mail}media: {dir: ${dir}/media}\n`), 'right');
  for (const role of ['gateway', 'router']) assert.match(check(role, 'store: {url: "http://x"}\n'), /store's url/);
  fs.rmSync(dir, { recursive: true });
  const printed = run(['gateway', '--set', 'store.password=hunter22', '--print-config']);
  assert.equal(printed.status, 0);
  assert.ok(!printed.stdout.includes('hunter22'));
  assert.match(run(['--version']).stdout, /^sluice \d+\.\d+\.\d+/);
});

test('dead letters are listed, shown, retried and dropped', async () => {
  const s = await startSluice({ bots: 0 });
  try {
    const dead = (...args) => spawnSync(BIN, ['dead', ...args, '--set', `store.url=unix:${s.dir}/redis.sock`], { encoding: 'utf8', timeout: 20000 });
    assert.match(dead('list').stdout, /no dead letters/);
    const visitor = s.visitor();
    await visitor.connect();
    await visitor.say('hello').res;
    const addr = `demo/web/${visitor.me.address}`;
    // Where the visitor's messages go: the partition with her address entry.
    const key = (await s.redisClient.keys('addr:*')).find(k => k.endsWith(addr));
    const tag = key.match(/\{(.*?)\}/)[1];
    const letter = ['e', '1700000000000-0', 'r', 'tried three times', 't', 'message', 'a', addr, 'id', 'again-1', 'kd', 'text', 'x', 'secret words', 'ch', 'webchat', 'at', '1790000000000'];
    const one = await s.redisClient.xadd(`dead:{${tag}}`, '*', ...letter);
    const two = await s.redisClient.xadd(`dead:{${tag}}`, '*', ...letter);
    const listed = dead('list').stdout;
    assert.match(listed, /tried three times/);
    assert.match(listed, /2 dead letters/);
    assert.ok(!listed.includes('secret words'));
    assert.ok(!dead('show', `${tag}/${one}`).stdout.includes('secret words'));
    assert.match(dead('show', '--text', `${tag}/${one}`).stdout, /secret words/);
    assert.equal(dead('retry', `${tag}/${one}`).status, 0);
    await visitor.entry(d => d.m.id === 'again-1');
    assert.equal(dead('retry', `${tag}/${one}`).status, 65);       // it is not there any more
    assert.equal(dead('drop', `${tag}/${two}`).status, 0);
    assert.match(dead('list').stdout, /no dead letters/);
    assert.equal(dead('drop', 'nonsense').status, 64);
  } finally {
    await s.stop();
  }
});

test('a role reloads on HUP, keeps what it had when the new one is wrong, and shows its metrics', async () => {
  const port = await freePort();
  const s = await startSluice({ bots: 0 });
  try {
    const bot = s.role('bot', 'bot', { metrics: { listen: `127.0.0.1:${port}` } }).start();
    s.bots.push(bot);
    await until('the bot serves metrics', async () => (await fetch(`http://127.0.0.1:${port}/livez`).catch(() => ({}))).status === 200);
    const ask = async question => {
      const v = s.visitor();
      await v.connect();
      await v.say(question).res;
      return (await v.entry(d => d.m.by === 'bot')).m.text;
    };
    assert.equal(await ask('hello'), 'Hello! 您好！');
    const faq = path.join(s.dir, 'faq.yaml');
    fs.writeFileSync(faq, 'faq: [{ask: hello, answer: Good day}]');
    bot.hup();
    await until('the questions are read again', () => bot.output.includes('questions read again'));
    assert.equal(await ask('hello'), 'Good day');
    fs.writeFileSync(faq, 'faq: [');
    bot.hup();
    await until('the wrong file is refused', () => bot.output.includes('nothing was changed'));
    assert.equal(await ask('hello'), 'Good day');
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    assert.match(metrics, /^sluice_bot_tasks_total\{outcome="answered"\} 3$/m);
    assert.match(metrics, /^sluice_bot_in_flight_max 512$/m);
    assert.equal((await fetch(`http://127.0.0.1:${port}/other`)).status, 404);
  } finally {
    await s.stop();
  }
});
