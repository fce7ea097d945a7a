// tests/bench/run.mjs - interleaved rounds on one Redis, ratios at the end. Options: --rounds 3 --seconds 5 --only path,latency,memory,storm --aof always,no
// --functions: a Redis without our module   --in-flight 50,256,1000: the sweep of path
// Needs: build/release (deploy/up builds it), tests/node_modules, gcc; for memory also nginx with libnginx-mod-nchan.
import { spawn, spawnSync, execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync, readFileSync, rmSync, existsSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');
const option = (name, fallback) => { const i = process.argv.indexOf('--' + name); return i < 0 ? fallback : process.argv[i + 1]; };
const rounds = +option('rounds', 3), seconds = +option('seconds', 5);
const only = new Set(option('only', 'path,latency,memory,storm').split(','));
const sluice = process.env.SLUICE_BIN || path.join(root, 'build/release/cli/sluice');
const redisModule = path.join(path.dirname(sluice), '../bus/module/sluice_redis.so'); // the same Redis for both sides
const inFlight = option('in-flight', '50,256,1000').split(',').map(Number);
const functions = process.argv.includes('--functions'); // without the module: the store's operations as Functions in Lua
const dir = mkdtempSync(path.join(tmpdir(), 'sluice-bench-'));
const children = new Set();
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

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
    setTimeout(() => child.kill('SIGKILL'), 12000).unref();
  });
}
const freePort = () => new Promise((resolve) => { const s = createServer(); s.listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => resolve(port)); }); });
async function untilOpen(port, what, child) {
  for (let i = 0; i < 200; i++) {
    const ok = await new Promise((resolve) => { const c = connect(port, '127.0.0.1', () => { c.destroy(); resolve(true); }); c.on('error', () => resolve(false)); });
    if (ok) return;
    await sleep(50);
  }
  throw new Error(`${what} did not open port ${port}:\n${child.output}`);
}
function load(args) {
  const r = spawnSync(path.join(dir, 'load'), args.map(String), { encoding: 'utf8', maxBuffer: 1 << 24 });
  if (r.status !== 0 || !r.stdout.trim()) throw new Error(`load ${args.join(' ')}: ${r.stderr || r.signal}`);
  if (r.stderr) console.error(r.stderr.trim());
  return JSON.parse(r.stdout);
}
function loadAsync(args) {
  return new Promise((resolve, reject) => {
    const c = spawn(path.join(dir, 'load'), args.map(String));
    let out = '', err = '';
    c.stdout.on('data', (d) => { out += d; });
    c.stderr.on('data', (d) => { err += d; });
    c.on('exit', (code) => (code === 0 ? resolve(JSON.parse(out)) : reject(new Error(err))));
  });
}

// ---- the three systems ----

async function redis(aof) {
  const port = await freePort(), socket = path.join(dir, `redis-${port}.sock`), data = mkdtempSync(path.join(dir, 'redis-'));
  const child = start('redis-server', 'redis-server', ['--port', port, '--bind', '127.0.0.1', '--unixsocket', socket, '--save', '', '--dir', data,
    '--appendonly', aof === 'always' ? 'yes' : 'no', '--appendfsync', 'always', '--maxmemory-policy', 'noeviction',
    ...(functions ? [] : ['--loadmodule', redisModule])].map(String));
  await untilOpen(port, 'redis-server', child);
  return { child, port, socket };
}
async function startNode(store) {
  const port = await freePort();
  const env = { ...process.env, NODE_PATH: path.join(root, 'tests/node_modules') };
  const peer = (file, ...args) => start(file, process.execPath, [path.join(here, 'peers', file), ...args.map(String)], { env });
  const router = peer('router.cjs', store.port), bot = peer('bot.cjs', store.port);
  await sleep(400);
  const gateway = peer('gw_ws.cjs', port, store.port);
  await untilOpen(port, 'Node gateway', gateway);
  return { ports: [port], mode: 'raw', children: [gateway, router, bot], pids: { gateway: gateway.pid, router: router.pid, bot: bot.pid, redis: store.child.pid } };
}
async function startSluice(store, gateways = 1) {
  const processes = [], ports = [], faq = path.join(dir, 'faq.yaml');
  writeFileSync(faq, readFileSync(path.join(here, 'faq.yaml')));
  const config = (name, port) => { // a file for each: one that is written again is empty for a moment, and who starts then has another store
    const file = path.join(dir, `sluice-${name}-${port}.yaml`);
    writeFileSync(file, readFileSync(path.join(here, 'sluice.yaml'), 'utf8').replaceAll('@SOCKET@', store.socket).replaceAll('@PORT@', port).replaceAll('@FAQ@', faq)
      .replaceAll('@AOF@', store.aof === 'always' ? 'true' : 'false'));
    return file;
  };
  const role = (name, port) => { const c = start('sluice ' + name, sluice, [name, '--config', config(name, port)]); processes.push(c); return c; };
  const router = role('router', 1), bot = role('bot', 1), pids = { redis: store.child.pid, router: router.pid, bot: bot.pid };
  for (let i = 0; i < gateways; i++) {
    const port = await freePort(), gateway = role('gateway', port);
    await untilOpen(port, 'sluice gateway', gateway);
    ports.push(port);
    pids['gateway' + (i || '')] = gateway.pid;
  }
  for (let i = 0; i < 100; i++) { // the store is there
    const ready = await fetch(`http://127.0.0.1:${ports[0]}/readyz`).then((r) => r.ok, () => false);
    if (ready) break;
    await sleep(100);
  }
  await sleep(1500);
  return { ports, mode: 'sluice', children: processes.reverse(), pids };
}
const stop = async (system) => { for (const c of system.children) await end(c); };
const processArgs = (pids) => Object.entries(pids).flatMap(([name, pid]) => ['-P', `${name}=${pid}`]);

// ---- the measurements ----

const sum = (o) => Object.values(o).reduce((a, b) => a + b, 0);
const parts = (o) => Object.entries(o).map(([k, v]) => `${k} ${v.toFixed(1)}`).join('  ');
const ratio = (a, b) => (a / b).toFixed(2);

// Each side is taken at its own saturation: the number of messages in flight (one a visitor) with its highest rate, by medians.
function best(rows, m) {
  const list = Object.entries(rows).map(([n, r]) => ({ n, rate: m(r, (x) => x.rate), cpu: m(r, (x) => sum(x.cpu_us_a_message)) }));
  return list.reduce((a, b) => (b.rate > a.rate ? b : a));
}

async function fullPath(aof) {
  const rows = { node: {}, sluice: {} }, single = { node: [], sluice: [] };
  for (let round = 1; round <= rounds; round++) {
    for (const peer of round % 2 ? ['node', 'sluice'] : ['sluice', 'node']) {
      const store = { ...(await redis(aof)), aof };
      const system = await (peer === 'node' ? startNode(store) : startSluice(store));
      const base = ['-m', system.mode, '-u', system.mode === 'sluice' ? '/ws' : '/', '-p', system.ports.join(','), ...processArgs(system.pids)];
      for (const n of only.has('path') ? inFlight : []) {
        const r = load([...base, '-c', n, '-d', seconds, '-w', 2]);
        (rows[peer][n] ??= []).push(r);
        if (r.lost > 0) console.error(system.children.map((c) => c.output.slice(-1000)).join('\n'));
        console.log(`  ${aof} round ${round} ${peer.padEnd(6)} ${String(n).padStart(4)} in flight: ${r.rate}/s  p50 ${r.p50} ms  p99 ${r.p99} ms  CPU ${sum(r.cpu_us_a_message).toFixed(1)} us a message: ${parts(r.cpu_us_a_message)}  lost ${r.lost}`);
      }
      if (only.has('latency')) {
        const r = load([...base, '-c', 1, '-d', Math.max(2, seconds - 2), '-w', 1]);
        single[peer].push(r);
        console.log(`  ${aof} round ${round} ${peer.padEnd(6)} one in flight: p50 ${r.p50} ms  p99 ${r.p99} ms`);
      }
      await stop(system);
      await end(store.child);
    }
  }
  const m = (list, f) => median(list.map(f));
  if (only.has('path')) {
    const words = (what, ours, theirs) => console.log(`${aof}, ${what}: CPU a message ${ours.cpu.toFixed(1)} / ${theirs.cpu.toFixed(1)} us = ${ratio(ours.cpu, theirs.cpu)} (goal <= 0.45)   rate ${ours.rate} / ${theirs.rate} a second = ${ratio(ours.rate, theirs.rate)} (goal >= 2)`);
    const at = (p, n) => best({ [n]: rows[p][n] }, m);
    for (const n of inFlight) words(`${n} in flight`, at('sluice', n), at('node', n));
    const ours = best(rows.sluice, m), theirs = best(rows.node, m);
    words(`each at its best (ours ${ours.n}, Node ${theirs.n} in flight)`, ours, theirs);
  }
  if (only.has('latency'))
    console.log(`${aof}: p50 with one in flight ${m(single.sluice, (r) => r.p50)} / ${m(single.node, (r) => r.p50)} ms = ${ratio(m(single.sluice, (r) => r.p50), m(single.node, (r) => r.p50))} (goal <= 1.3)`);
}

const NCHAN_MODULE = '/usr/lib/nginx/modules/ngx_nchan_module.so';
async function memory() {
  const ours = [], theirs = [], count = 10000;
  for (let round = 1; round <= rounds; round++) {
    const store = { ...(await redis('no')), aof: 'no' }, system = await startSluice(store);
    const r = load(['-m', 'sluice', '-u', '/ws', '-p', system.ports[0], '-c', count, '-d', 0, ...processArgs({ gateway: system.pids.gateway, redis: store.child.pid })]);
    ours.push(sum(r.pss_bytes_a_connection));
    console.log(`  round ${round} sluice ${r.open} open: ${parts(r.pss_bytes_a_connection)} bytes a connection`);
    await stop(system);
    await end(store.child);
    if (!existsSync(NCHAN_MODULE)) continue;
    const port = await freePort(), conf = path.join(dir, 'nchan.conf');
    writeFileSync(conf, readFileSync(path.join(here, 'peers/nginx-nchan.conf'), 'utf8').replaceAll('__RUN__', dir).replaceAll('__PORT__', port));
    const nginx = start('nginx', 'nginx', ['-c', conf, '-p', dir]);
    await untilOpen(port, 'nginx', nginx);
    const worker = +execFileSync('pgrep', ['-P', String(nginx.pid)], { encoding: 'utf8' }).split('\n')[0];
    const n = load(['-m', 'raw', '-p', port, '-u', '/mem?id=%d', '-c', count, '-d', 0, '-P', `nchan=${worker}`]);
    theirs.push(sum(n.pss_bytes_a_connection));
    console.log(`  round ${round} nchan  ${n.open} open: ${parts(n.pss_bytes_a_connection)} bytes a connection`);
    await end(nginx);
  }
  if (theirs.length === 0) console.log('memory: Nchan is not installed (packages nginx, libnginx-mod-nchan); no ratio');
  else console.log(`memory: ${median(ours).toFixed(0)} / ${median(theirs).toFixed(0)} bytes of PSS an idle connection = ${ratio(median(ours), median(theirs))} (goal <= 0.40; Redis' share of the subscription included)`);
}

async function storm(aof) {
  const store = { ...(await redis(aof)), aof }, system = await startSluice(store, 2);
  const [a, b] = system.ports;
  // one load process holds under 20,000 sockets: the idle ones and the storm in one, the established conversations in the other
  const idle = loadAsync(['-m', 'sluice', '-u', '/ws', '-p', `${a},${b}`, '-c', 15000, '-a', 0, '-k', 256, '-R', 5000, '-d', 12, '-w', 8, ...processArgs(system.pids)]);
  await sleep(1000);
  const active = await loadAsync(['-m', 'sluice', '-u', '/ws', '-p', `${a},${b}`, '-c', 200, '-r', 300, '-d', 30, '-w', 1]);
  const rest = await idle;
  console.log(`storm (${aof}): ${rest.open} idle visitors on two gateways, 5000 reconnect at once; meanwhile ${active.messages} messages at ${active.rate}/s: p50 ${active.p50} ms, p99 ${active.p99} ms (promised: 500 ms), lost ${active.lost}; open at the end ${rest.open_at_end} of 15000`);
  await stop(system);
  await end(store.child);
}

async function main() {
  execFileSync('gcc', ['-O2', '-D_GNU_SOURCE', '-o', path.join(dir, 'load'), path.join(here, 'load.c')]);
  if (!existsSync(sluice)) throw new Error(`${sluice} is not built: run tools/build release first`);
  for (const aof of option('aof', 'always,no').split(',')) if (only.has('path') || only.has('latency')) await fullPath(aof);
  if (only.has('memory')) await memory();
  if (only.has('storm')) await storm('always');
}
const cleanup = () => { for (const c of children) { c.isEnding = true; c.kill('SIGKILL'); } rmSync(dir, { recursive: true, force: true }); };
process.on('SIGINT', () => { cleanup(); process.exit(130); });
main().then(() => { cleanup(); }, (e) => { console.error(e.message); cleanup(); process.exit(1); });
