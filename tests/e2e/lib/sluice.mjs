// A private Sluice for one test: redis-server, routers, gateways and bots as child processes on free ports, in a temporary
// folder that goes when the test ends. Every process can be killed, paused and started again.
//
//   const sluice = await startSluice({ gateways: 2, redis: { appendfsync: 'always' }, config: { rules: { merge_ms: 0 } } });
//   const visitor = sluice.visitor();
//   await visitor.connect();
//   ...
//   await sluice.stop();   // asserts that every process drained and exited with 0
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import Redis from 'ioredis';
import { Client } from './client.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const BIN = process.env.SLUICE_BIN ?? path.join(ROOT, 'build/test/cli/sluice');
const MODULE = path.join(path.dirname(BIN), '../bus/module/sluice_redis.so'); // the store's operations in C
export const PASSWORD = 'correct horse 8';
export const SECRET = 'an inbox secret for tests';
export const API_TOKEN = 'an api token for tests';

export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

// Waits until fn gives something true; says what it waited for when it does not.
export async function until(what, fn, ms = 10000, every = 20) {
  const end = Date.now() + ms;
  for (;;) {
    const got = await fn();
    if (got) return got;
    if (Date.now() > end) throw new Error(`waited ${ms} ms for: ${typeof what === 'function' ? what() : what}`);
    await sleep(every);
  }
}

export async function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

const merge = (base, extra) => {
  if (typeof base !== 'object' || typeof extra !== 'object' || Array.isArray(base) || Array.isArray(extra)) return extra;
  const out = { ...base };
  for (const [key, value] of Object.entries(extra)) out[key] = key in base ? merge(base[key], value) : value;
  return out;
};

let hash; // Argon2 is slow by design: once a test file
function passwordHash() {
  hash ??= spawnSync(BIN, ['config', 'hash-password'], { input: PASSWORD + '\n', encoding: 'utf8' });
  if (hash.status !== 0) throw new Error(`hash-password: ${hash.error ?? hash.stderr}`);
  return hash.stdout.trim();
}

const FAQ = {
  threshold: 50,
  not_found: 'I do not know that. 我不知道。',
  handoff: { words: ['lawyer'], text: 'I am handing you over to a person. 为您转接人工。' },
  faq: [
    { id: 'hello', ask: ['hello', '你好'], answer: 'Hello! 您好！' },
    { id: 'hours', ask: ['What are your opening hours?', '营业时间'], answer: 'We are open from 9 to 18. 我们九点到六点营业。' },
  ],
};

function defaults(dir) {
  const agent = { tenant: 'demo', password_hash: passwordHash(), queues: ['default'], capacity: 3 };
  return {
    store: { url: `unix:${dir}/redis.sock`, partitions: 16 },
    log: { level: 'info' },
    inboxes: { web: { channel: 'webchat', tenant: 'demo', secret: SECRET, rate: 0, bot: 'faq' } },
    agents: { anna: agent, ben: { ...agent } },
    tokens: { api: { tenant: 'demo', secret: API_TOKEN, rights: ['messages:write', 'conversations:read'] } },
    rules: { merge_ms: 0 },
    bot: { name: 'faq', faq: `${dir}/faq.yaml` },
  };
}

// One child process. `role` undefined: redis-server.
class Proc {
  constructor(owner, name, command, args, env) {
    Object.assign(this, { owner, name, command, args, env, output: '', exit: null });
  }

  start() {
    this.exit = null;
    this.child = spawn(this.command, this.args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...this.env } });
    this.done = new Promise(resolve => {
      this.child.on('exit', (code, signal) => {
        this.exit = { code, signal };
        resolve(this.exit);
      });
    });
    const keep = data => {
      this.output = (this.output + data).slice(-200000);
      if (process.env.SLUICE_TEST_LOG) process.stderr.write(`[${this.name}] ${data}`);
    };
    this.child.stdout.on('data', keep);
    this.child.stderr.on('data', keep);
    return this;
  }

  get pid() { return this.child.pid; }
  signal(name) { if (!this.exit) this.child.kill(name); }
  async kill() { this.signal('SIGKILL'); return this.done; }
  pause() { this.signal('SIGSTOP'); }
  resume() { this.signal('SIGCONT'); }
  hup() { this.signal('SIGHUP'); }
  // A polite end: resolves to {code, signal}.
  async term(ms = 20000) {
    this.signal('SIGTERM');
    let timer; // cleared: a file of tests must not wait for it at its end
    const late = new Promise(resolve => { timer = setTimeout(resolve, ms, null); });
    const exit = await Promise.race([this.done, late]);
    clearTimeout(timer);
    if (exit === null) {
      await this.kill();
      throw new Error(`${this.name} did not end within ${ms} ms of TERM:\n${this.output.slice(-4000)}`);
    }
    return exit;
  }
  async restart() { if (!this.exit) await this.kill(); this.start(); }
}

class Sluice {
  constructor() {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-e2e-'));
    this.procs = [];
    this.clients = [];
    this.onExit = () => { for (const p of this.procs) if (p.child && !p.exit) p.child.kill('SIGKILL'); };
    process.once('exit', this.onExit);
  }

  add(name, command, args, env) {
    const proc = new Proc(this, name, command, args, env);
    this.procs.push(proc);
    return proc;
  }

  writeConfig(name, config) {
    const file = path.join(this.dir, `${name}.yaml`);
    fs.writeFileSync(file, JSON.stringify(config, null, 1));
    return file;
  }

  role(name, role, extra = {}) {
    const file = this.writeConfig(name, merge(this.config, extra));
    return this.add(name, BIN, [role, '--config', file], this.env);
  }

  async addGateway(extra = {}) {
    const port = await freePort();
    const name = `gateway${this.gateways.length + 1}`;
    const proc = this.role(name, 'gateway', merge({ gateway: { listen: `127.0.0.1:${port}` } }, extra));
    proc.port = port;
    this.gateways.push(proc);
    return proc;
  }

  addRouter(extra) { const p = this.role(`router${this.routers.length + 1}`, 'router', extra); this.routers.push(p); return p; }
  addBot(extra) { const p = this.role(`bot${this.bots.length + 1}`, 'bot', extra); this.bots.push(p); return p; }

  async readyGateway(proc, ms = 20000) {
    await until(() => `${proc.name} ready\n${proc.output.slice(-3000)}`, async () => {
      if (proc.exit) throw new Error(`${proc.name} ended: ${JSON.stringify(proc.exit)}\n${proc.output.slice(-4000)}`);
      try {
        return (await fetch(`http://127.0.0.1:${proc.port}/readyz`)).status === 200;
      } catch {
        return false;
      }
    }, ms);
  }

  // Every partition has an owner.
  async owned(ms = 20000) {
    await until('every partition has an owner', async () => {
      const keys = await this.redisClient.keys('meta:*');
      return keys.filter(k => !k.includes('desk') && !k.includes('{send:')).length >= this.config.store.partitions;
    }, ms);
  }

  url(i = 0) { return `http://127.0.0.1:${this.gateways[i].port}`; }
  wsUrl(i = 0) { return `ws://127.0.0.1:${this.gateways[i].port}/ws`; }

  client(options) {
    const c = new Client({ url: this.wsUrl(options.gateway ?? 0), ...options });
    this.clients.push(c);
    return c;
  }
  visitor(options = {}) { return this.client({ role: 'visitor', inbox: 'web', ...options }); }
  async login(name = 'anna', gateway = 0, password = PASSWORD) {
    const answer = await this.post('/v1/login', { tenant: 'demo', name, password }, {}, gateway);
    if (answer.status !== 200) throw new Error(`login: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body.token;
  }
  async agent(name = 'anna', options = {}) {
    return this.client({ role: 'agent', token: await this.login(name, options.gateway ?? 0), ...options });
  }

  async post(where, body, headers = {}, gateway = 0) {
    const answer = await fetch(this.url(gateway) + where, {
      method: 'POST', headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    const text = await answer.text();
    let parsed = text;
    try { parsed = JSON.parse(text); } catch { /* not JSON */ }
    return { status: answer.status, body: parsed };
  }
  async get(where, headers = {}, gateway = 0) {
    const answer = await fetch(this.url(gateway) + where, { headers });
    const text = await answer.text();
    let parsed = text;
    try { parsed = JSON.parse(text); } catch { /* not JSON */ }
    return { status: answer.status, body: parsed, headers: answer.headers };
  }
  // Sum of a metric over its labels, or of those that contain `label`.
  async metric(name, label = '', gateway = 0) {
    const text = await (await fetch(this.url(gateway) + '/metrics')).text();
    return text.split('\n').filter(l => (l.startsWith(name + ' ') || l.startsWith(name + '{')) && l.includes(label))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  // Ends everything. Roles must exit with 0 (a clean drain: every handle closed), unless they were killed by the test.
  async stop({ check = true } = {}) {
    for (const c of this.clients) c.close();
    const failures = [];
    for (const p of [...this.gateways, ...this.bots, ...this.routers]) {
      if (p.exit) continue;
      p.resume();
      try {
        const exit = await p.term();
        if (exit.code !== 0) failures.push(`${p.name}: ${JSON.stringify(exit)}\n${p.output.slice(-4000)}`);
      } catch (error) {
        failures.push(error.message);
      }
    }
    this.redisClient?.disconnect();
    await this.redis.kill();
    process.off('exit', this.onExit);
    fs.rmSync(this.dir, { recursive: true, force: true });
    if (check && failures.length > 0) throw new Error(`not a clean end: ${failures.join('\n')}`);
  }
}

export async function startSluice({ gateways = 1, routers = 1, bots = 1, redis = {}, config = {}, env = {}, wait = true } = {}) {
  const s = new Sluice();
  Object.assign(s, { gateways: [], routers: [], bots: [], env });
  s.config = merge(defaults(s.dir), config);
  fs.writeFileSync(path.join(s.dir, 'faq.yaml'), config.faqText ?? JSON.stringify(FAQ));
  delete s.config.faqText;
  const loadmodule = redis.loadmodule === undefined && fs.existsSync(MODULE) ? { loadmodule: MODULE } : {}; // loadmodule: null goes without
  const settings = { ...loadmodule, port: 0, unixsocket: `${s.dir}/redis.sock`, dir: s.dir, appendonly: 'yes', appendfsync: 'always', save: '""', ...redis };
  s.redis = s.add('redis', 'redis-server', Object.entries(settings).filter(([, v]) => v !== null).flatMap(([k, v]) => [`--${k}`, String(v)])).start();
  s.redisClient = new Redis({ path: `${s.dir}/redis.sock`, retryStrategy: n => Math.min(50 * n, 500), maxRetriesPerRequest: null });
  s.redisClient.on('error', () => {});
  try {
    await until('redis-server', async () => fs.existsSync(`${s.dir}/redis.sock`) && (await s.redisClient.ping()) === 'PONG');
    for (let i = 0; i < routers; i++) s.addRouter().start();
    for (let i = 0; i < gateways; i++) (await s.addGateway()).start();
    for (let i = 0; i < bots; i++) s.addBot().start();
    if (wait) for (const g of s.gateways) await s.readyGateway(g);
    if (wait && routers > 0) await s.owned();
  } catch (error) {
    await s.stop({ check: false });
    throw error;
  }
  return s;
}
