// tests/bench/smpp.mjs - submit_sm from the stream against Kannel with its spool store, the same message centre for both, interleaved rounds.
// Options: --rounds 3 --messages 10000 --customers 1000 --aof always,everysec --window 100 (of ours; Kannel's is 100) --peer none --seconds 4
// Ours: N SEND facts stand in in:{send:sms}; a gateway takes them over, commits, submits, settles. Its processor time is that of the gateway and of
// Redis, the appending of the facts included. Kannel's: N requests to smsbox' sendsms by wrk; bearerbox and smsbox count, wrk does not.
// --what ingest: Twilio-signed webhooks, checked and stored before they are answered 200, against the rate of Kannel's sendsms; wrk with 64
// connections plays both callers. Ours: gateway and Redis (a router stands by to take what is stored; it is not part of the answer).
// Needs: build/release, gcc; the Debian packages kannel and wrk (without them: said, and only our own figures are shown).
import { spawn, execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, mkdirSync, writeFileSync, readFileSync, rmSync, existsSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const option = (name, fallback) => { const i = process.argv.indexOf('--' + name); return i < 0 ? fallback : process.argv[i + 1]; };
const rounds = +option('rounds', 3), messages = +option('messages', 10000), customers = +option('customers', 1000);
const connections = +option('connections', 64);
const window = +option('window', 100), only = option('peer', '');
const what = option('what', 'submit'), seconds = +option('seconds', 4);
const aofs = option('aof', 'always,everysec').split(',');
const sluice = process.env.SLUICE_BIN || path.join(root, 'build/release/cli/sluice');
const module = path.join(root, 'build/release/bus/module/sluice_redis.so');
const KANNEL = ['/usr/sbin/bearerbox', '/usr/sbin/smsbox'];
const TEXT = 'hello world test message';
const dir = mkdtempSync(path.join(tmpdir(), 'sluice-smpp-bench-'));
const children = new Set();
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const freePort = () => new Promise((resolve) => { const s = createServer(); s.listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => resolve(port)); }); });

function start(name, command, args, options = {}) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options });
  child.output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (d) => { child.output = (child.output + d).slice(-20000); });
  child.on('exit', (code, signal) => { if (!child.isEnding) console.error(`${name} ended early (${code ?? signal}):\n${child.output}`); children.delete(child); });
  children.add(child);
  return child;
}
function end(child) {
  if (!child || child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  child.isEnding = true;
  return new Promise((resolve) => {
    child.once('exit', resolve);
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), 8000).unref();
  });
}
async function untilOpen(port, what, child) {
  for (let i = 0; i < 200; i++) {
    const ok = await new Promise((resolve) => { const c = connect(port, '127.0.0.1', () => { c.destroy(); resolve(true); }); c.on('error', () => resolve(false)); });
    if (ok) return;
    await sleep(50);
  }
  throw new Error(`${what} did not open port ${port}:\n${child.output}`);
}
// user + system, in microseconds, threads included
function cpu(pid) {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (+f[11] + +f[12]) * 10000;
}
async function sink() {
  const port = await freePort(), child = start('smscsink', path.join(dir, 'smscsink'), [String(port)]);
  await untilOpen(port, 'smscsink', child);
  const last = () => JSON.parse((child.output.trim().split('\n').pop().match(/^\{.*\}$/) || ['{"submits":0}'])[0]);
  return { port, child, last };
}
async function untilSubmits(s, count, seconds, who) {
  const until = Date.now() + seconds * 1000;
  for (;;) {
    const seen = s.last();
    if (seen.submits >= count) return seen;
    if (Date.now() > until) throw new Error(`${who}: only ${seen.submits} of ${count} messages within ${seconds} s`);
    await sleep(50);
  }
}

// ---- ours ----

async function redis(aof) {
  const port = await freePort(), socket = path.join(dir, `redis-${port}.sock`), data = mkdtempSync(path.join(dir, 'redis-'));
  const child = start('redis-server', 'redis-server', ['--port', port, '--bind', '127.0.0.1', '--unixsocket', socket, '--save', '', '--dir', data, '--appendonly', 'yes',
    '--appendfsync', aof, '--maxmemory-policy', 'noeviction', ...(existsSync(module) ? ['--loadmodule', module] : [])].map(String));
  await untilOpen(port, 'redis-server', child);
  return { child, port, socket, aof };
}
// The facts as a conversation's owner would have delivered them, by one pipelined client; resolves when all are acknowledged.
async function append(store, count) {
  const c = connect(store.socket), now = Date.now();
  let acknowledged = 0, sent = 0, batch = [];
  const done = new Promise((resolve, reject) => {
    c.on('data', (d) => {
      for (const b of d) if (b === 0x24) acknowledged++; // one '$' an id
      if (d.includes('-ERR') || d.includes('-MISCONF')) reject(new Error(d.toString()));
      if (acknowledged === count) resolve();
    });
    c.on('error', reject);
  });
  const bulk = (s) => `$${Buffer.byteLength(s)}\r\n${s}\r\n`;
  while (sent < count) {
    const i = sent++, customer = i % customers, number = `+8613${String(800000000 + customer)}`;
    const fields = ['t', 'send', 'c', `0.${String(customer).padStart(26, '0')}`, 'a', `bench/sms/${number}`, 'id', `m${i}`, 'n', String(Math.floor(i / customers) + 1), 'nm', 'bot',
      'kd', 'text', 'x', TEXT, 'ch', 'smpp', 'at', String(now), 'src', '0', 'fn', String(i + 1)];
    batch.push(`*${3 + fields.length}\r\n` + ['XADD', 'in:{send:sms}', '*', ...fields].map(bulk).join(''));
    if (batch.length === 500) { c.write(batch.join('')); batch = []; while (sent - acknowledged > 5000) await sleep(1); }
  }
  c.write(batch.join(''));
  await done;
  c.destroy();
}
async function ours(aof) {
  const store = await redis(aof), smsc = await sink(), port = await freePort(), file = path.join(dir, 'sluice.yaml');
  writeFileSync(file, readFileSync(path.join(here, 'smpp.yaml'), 'utf8').replaceAll('@SOCKET@', store.socket).replaceAll('@PORT@', port).replaceAll('@SMSC@', smsc.port).replaceAll('@WINDOW@', window));
  const setup = start('sluice gateway', sluice, ['gateway', '--config', file]); // makes the store, then goes
  await untilOpen(port, 'sluice gateway', setup);
  await sleep(1500);
  await end(setup);
  const redis0 = cpu(store.child.pid);
  await append(store, messages);
  const gateway = start('sluice gateway', sluice, ['gateway', '--config', file]);
  const seen = await untilSubmits(smsc, messages, 120, 'sluice');
  await sleep(300); // what is settled last
  const busy = { gateway: cpu(gateway.pid) / messages, redis: (cpu(store.child.pid) - redis0) / messages };
  await end(gateway);
  await sleep(150);
  const twice = smsc.last().submits - messages;
  await end(smsc.child);
  await end(store.child);
  return { rate: (messages - 1) * 1000 / (seen.last_ms - seen.first_ms), busy, twice };
}

// ---- Kannel ----

async function kannel() {
  const run = mkdtempSync(path.join(dir, 'kannel-')), smsc = await sink(), conf = path.join(run, 'kannel.conf');
  const [admin, smsbox, sendsms] = [await freePort(), await freePort(), await freePort()];
  mkdirSync(path.join(run, 'spool'));
  writeFileSync(conf, readFileSync(path.join(here, 'peers/kannel-store.conf'), 'utf8').replaceAll('@DIR@', run).replaceAll('@ADMIN@', admin).replaceAll('@SMSBOX@', smsbox)
    .replaceAll('@SENDSMS@', sendsms).replaceAll('@SMSC@', smsc.port));
  const bb = start('bearerbox', KANNEL[0], ['-v', '3', conf]);
  await untilOpen(smsbox, 'bearerbox', bb);
  const sb = start('smsbox', KANNEL[1], ['-v', '3', conf]);
  await untilOpen(sendsms, 'smsbox', sb);
  await sleep(1500); // bound to the message centre
  const bb0 = cpu(bb.pid), sb0 = cpu(sb.pid);
  const script = path.join(run, 'sendsms.lua');
  writeFileSync(script, `local n = 0
request = function() n = n + 1
  return wrk.format('GET', '/cgi-bin/sendsms?username=t&password=t&to=%2B8613' .. (800000000 + n % ${customers}) .. '&text=${TEXT.replaceAll(' ', '+')}') end`);
  const wrk = start('wrk', 'wrk', ['-t1', `-c${connections}`, `-d${seconds}s`, '-s', script, `http://127.0.0.1:${sendsms}`]);
  wrk.isEnding = true;
  await new Promise((resolve) => { wrk.once('exit', resolve); });
  const accepted = +(wrk.output.match(/(\d+) requests in/) || [0, 0])[1], bad = +(wrk.output.match(/Non-2xx or 3xx responses: (\d+)/) || [0, 0])[1];
  let seen = smsc.last(); // until its queue is empty
  for (let i = 0; i < 100; i++) {
    const before = seen.submits;
    await sleep(300);
    seen = smsc.last();
    if (seen.submits === before) break;
  }
  const busy = { bearerbox: (cpu(bb.pid) - bb0) / seen.submits, smsbox: (cpu(sb.pid) - sb0) / seen.submits };
  await end(sb);
  await end(bb);
  await end(smsc.child);
  return { rate: (seen.submits - 1) * 1000 / (seen.last_ms - seen.first_ms), busy, accepted: accepted - bad, submits: seen.submits, http: +(wrk.output.match(/Requests\/sec:\s+([\d.]+)/) || [0, 0])[1] };
}

// ---- ingest: a signed webhook, verified and durable, then 200 ----

const SECRET = 'an auth token for the bench only', WEBHOOK = 'https://bench.example/sms_http/tw', SIGNED = Math.max(120000, seconds * 60000); // more than can be answered: a repeat would be dropped, and cost less
// Twilio's scheme: base64(HMAC-SHA1(token, url + sorted names and values)); each has a MessageSid of its own, 1000 senders take turns.
function signedRequests(file) {
  const lines = [];
  for (let i = 0; i < SIGNED; i++) {
    const fields = { AccountSid: 'AC00000000000000000000000000000000', Body: TEXT, From: `+8613${800000000 + i % customers}`, MessageSid: `SM${String(i).padStart(32, '0')}`, NumMedia: '0', NumSegments: '1', To: '+15005550006' };
    const base = WEBHOOK + Object.keys(fields).sort().map((k) => k + fields[k]).join('');
    lines.push(createHmac('sha1', SECRET).update(base).digest('base64') + '\t' + new URLSearchParams(fields).toString());
  }
  writeFileSync(file, lines.join('\n') + '\n');
}
async function ingest(aof) {
  const store = await redis(aof), port = await freePort(), file = path.join(dir, 'ingest.yaml'), requests = path.join(dir, 'requests.tsv'), script = path.join(dir, 'ingest.lua');
  writeFileSync(file, readFileSync(path.join(here, 'ingest.yaml'), 'utf8').replaceAll('@SOCKET@', store.socket).replaceAll('@PORT@', port));
  if (!existsSync(requests)) signedRequests(requests);
  writeFileSync(script, `local list, n = {}, 0
for line in io.lines('${requests}') do list[#list + 1] = line end
request = function() n = n % #list + 1
  local at = list[n]:find('\\t', 1, true)
  return wrk.format('POST', '/sms_http/tw', {['Content-Type'] = 'application/x-www-form-urlencoded', ['X-Twilio-Signature'] = list[n]:sub(1, at - 1)}, list[n]:sub(at + 1)) end
`);
  const gateway = start('sluice gateway', sluice, ['gateway', '--config', file]);
  await untilOpen(port, 'sluice gateway', gateway);
  for (let i = 0; i < 100 && !await fetch(`http://127.0.0.1:${port}/readyz`).then((r) => r.ok, () => false); i++) await sleep(100);
  await sleep(500);
  const g0 = cpu(gateway.pid), r0 = cpu(store.child.pid);
  const wrk = start('wrk', 'wrk', ['-t1', `-c${connections}`, `-d${seconds}s`, '-s', script, `http://127.0.0.1:${port}`]);
  wrk.isEnding = true;
  await new Promise((resolve) => { wrk.once('exit', resolve); });
  const done = +(wrk.output.match(/(\d+) requests in/) || [0, 0])[1], bad = +(wrk.output.match(/Non-2xx or 3xx responses: (\d+)/) || [0, 0])[1];
  const busy = { gateway: (cpu(gateway.pid) - g0) / done, redis: (cpu(store.child.pid) - r0) / done };
  let stored = 0; // what was answered must stand there
  const out = execFileSync('redis-cli', ['-s', store.socket, '--raw', 'EVAL', "local n = 0 for _, k in ipairs(redis.call('KEYS', 'in:*')) do n = n + redis.call('XLEN', k) end return n", '0'], { encoding: 'utf8' });
  stored = +out;
  await end(gateway);
  await end(store.child);
  return { rate: +(wrk.output.match(/Requests\/sec:\s+([\d.]+)/) || [0, 0])[1], busy, done, bad, stored };
}

// ---- the comparison ----

const sum = (o) => Object.values(o).reduce((a, b) => a + b, 0);
const parts = (o) => Object.entries(o).map(([k, v]) => `${k} ${v.toFixed(1)}`).join('  ');
const show = (r) => `${r.rate.toFixed(0)} submit_sm a second  CPU ${sum(r.busy).toFixed(1)} us a message: ${parts(r.busy)}`;

async function main() {
  if (!existsSync(sluice)) throw new Error(`${sluice} is not built: run tools/build release first`);
  execFileSync('gcc', ['-O2', '-D_GNU_SOURCE', '-pthread', '-o', path.join(dir, 'smscsink'), path.join(here, 'peers/smscsink.c')]);
  const missing = [...KANNEL.filter((f) => !existsSync(f)), ...(['/usr/bin/wrk', '/usr/local/bin/wrk'].some((f) => existsSync(f)) ? [] : ['wrk'])];
  if (missing.length > 0) console.log(`smpp: Kannel is left out, there is no ${missing.join(', ')} (packages kannel, wrk): our own figures only`);
  const rows = { kannel: [], ...Object.fromEntries(aofs.map((a) => [a, []])) };
  for (let round = 1; round <= rounds; round++) {
    const turns = [...aofs, ...(missing.length > 0 || only === 'none' ? [] : ['kannel'])];
    if (round % 2 === 0) turns.reverse();
    for (const turn of turns) {
      const r = await (turn === 'kannel' ? kannel() : what === 'ingest' ? ingest(turn) : ours(turn));
      rows[turn].push(r);
      if (turn === 'kannel') console.log(`  round ${round} Kannel           ${show(r)}  (sendsms ${r.http.toFixed(0)} requests a second; ${r.accepted} accepted, ${r.submits} submitted)`);
      else if (what === 'ingest') console.log(`  round ${round} ours ${turn.padEnd(9)}   ${r.rate.toFixed(0)} webhooks a second  CPU ${sum(r.busy).toFixed(1)} us each: ${parts(r.busy)}  (${r.done} answered, ${r.bad} not with 200, ${r.stored} stored)`);
      else console.log(`  round ${round} ours ${turn.padEnd(9)}   ${show(r)}${r.twice ? `  ${r.twice} TWICE` : ''}`);
    }
  }
  for (const aof of aofs) {
    const mine = { rate: median(rows[aof].map((r) => r.rate)), cpu: median(rows[aof].map((r) => sum(r.busy))) };
    if (rows.kannel.length === 0) { console.log(`smpp ${aof}: ${mine.rate.toFixed(0)} a second, ${mine.cpu.toFixed(1)} us a message; no peer, no ratio`); continue; }
    const theirs = { rate: median(rows.kannel.map((r) => (what === 'ingest' ? r.http : r.rate))), cpu: median(rows.kannel.map((r) => sum(r.busy))) };
    const [least, most] = what === 'ingest' ? [1, 0.6] : [1.5, 0.5];
    console.log(`${what === 'ingest' ? 'ingest' : 'smpp'} ${aof}: rate ${mine.rate.toFixed(0)} / ${theirs.rate.toFixed(0)} = ${(mine.rate / theirs.rate).toFixed(2)} (goal >= ${least})   CPU a message ${mine.cpu.toFixed(1)} / ${theirs.cpu.toFixed(1)} us = ${(mine.cpu / theirs.cpu).toFixed(2)} (goal <= ${most})`);
  }
}
const cleanup = () => { for (const c of children) { c.isEnding = true; c.kill('SIGKILL'); } rmSync(dir, { recursive: true, force: true }); };
process.on('SIGINT', () => { cleanup(); process.exit(130); });
main().then(() => { cleanup(); }, (e) => { console.error(e.message); cleanup(); process.exit(1); });
