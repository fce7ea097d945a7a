// One private Redis and the roles of `sluice` as child processes in a temporary folder, each of which can be killed,
// paused and started again on the port it had.

import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import Redis from 'ioredis';
import { BIN, freePort, sleep } from '../e2e/lib/sluice.mjs';
import { OFFLINE_MS } from './clients.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
export { sleep };

export async function until(what, deadlineMs, test, everyMs = 100) {
    const end = Date.now() + deadlineMs;
    for (let last; ;) {
        try {
            last = await test();
            if (last === true) return;
        } catch (error) {
            last = error.message;
        }
        if (Date.now() > end) throw new Error(`${what}: not after ${Math.round(deadlineMs / 1000)} s (${last})`);
        await sleep(everyMs);
    }
}

// ---- one process ----

class Process {
    constructor(world, name, kind, command, args, env = {}) {
        Object.assign(this, { world, name, kind, command, args, env });
        this.deaths = 0;          // that nobody ordered
        this.isPaused = this.isWanted = false;
    }

    start() {
        this.isWanted = true;
        this.isPaused = false;
        const log = fs.openSync(path.join(this.world.dir, `${this.name}.log`), 'a');
        const child = spawn(this.command, this.args, { cwd: this.world.dir, stdio: ['ignore', log, log],
                                                       env: { ...process.env, ...this.env } });
        fs.closeSync(log);
        this.child = child;
        this.exited = new Promise(resolve => {
            child.on('error', () => resolve());
            child.on('exit', (code, signal) => {
                if (this.child === child) this.child = null;
                if (this.isWanted && !child.wasKilled) this.onDeath(code, signal);
                resolve();
            });
        });
    }

    // It ended by itself (poison does that): whoever supervises starts it again.
    onDeath(code, signal) {
        this.deaths++;
        this.world.deaths.push({ name: this.name, code, signal, at: Date.now() });
        this.restartTimer = setTimeout(() => { if (this.isWanted && !this.child) this.start(); }, 300);
    }

    get isRunning() { return this.child !== null && this.child !== undefined; }

    signal(name) {
        if (this.child) this.child.kill(name);
    }

    async kill() {
        if (!this.child) return;
        this.child.wasKilled = true;
        this.isPaused = false;
        const { exited } = this;
        this.signal('SIGKILL');
        await exited;
    }

    pause() {
        this.isPaused = true;
        this.signal('SIGSTOP');
    }

    resume() {
        this.isPaused = false;
        this.signal('SIGCONT');
    }

    async end() {
        this.isWanted = false;
        clearTimeout(this.restartTimer);
        await this.kill();
    }
}

// ---- the whole ----

const TENANT = 'demo', INBOX = 'web', BOT = 'faq', PASSWORD = 'only for tests';
export const QUEUES = ['default', 'billing'];

export class World {
    constructor(options) {
        this.options = { partitions: 40, routers: 2, gateways: 2, bots: 2, agents: 8, capacity: 4, ...options };
        this.bin = BIN;
        this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-fault-'));
        this.processes = [];
        this.deaths = [];
        this.tenant = TENANT;
        this.inbox = INBOX;
        this.bot = BOT;
        this.url = path.join(this.dir, 'redis.sock');
        this.onExit = () => this.killNow();
        process.on('exit', this.onExit);
    }

    of(kind) { return this.processes.filter(p => p.kind === kind); }
    get tags() { return [...Array(this.options.partitions).keys()].map(String).concat(`desk:${TENANT}`); }
    get gatewayPorts() { return this.of('gateway').map(p => p.port); }

    async start() {
        this.writeFiles();
        this.addRedis();
        await this.redisReady();
        await this.createStore();
        if (this.options.lossyPercent > 0) this.addLossyWay();
        for (let i = 0; i < this.options.routers; i++) await this.addRole('router', i);
        for (let i = 0; i < this.options.gateways; i++) await this.addRole('gateway', i);
        for (let i = 0; i < this.options.bots; i++) await this.addRole('bot', i);
        this.addOddBot();
        for (const p of this.processes) if (!p.isRunning) p.start();
        await this.allReady();
    }

    write(name, text) { fs.writeFileSync(path.join(this.dir, name), text); }

    writeFiles() {
        const module = path.join(path.dirname(fs.realpathSync(this.bin)), '../bus/module/sluice_redis.so');
        this.write('redis.conf', ['port 0', `unixsocket ${this.url}`, `dir ${this.dir}`, 'appendonly yes', 'appendfsync always',
                                  'save ""', 'maxmemory-policy noeviction', 'loglevel notice',
                                  ...(this.options.functions || !fs.existsSync(module) ? [] : [`loadmodule ${module}`]), ''].join('\n'));
        this.write('faq.yaml', faqFile());
        const hash = spawnSync(this.bin, ['config', 'hash-password'], { input: `${PASSWORD}\n`, encoding: 'utf8' });
        if (hash.status !== 0) throw new Error(`${this.bin} config hash-password: ${hash.error ?? hash.stderr}`);
        this.passwordHash = hash.stdout.trim();
    }

    agentNames() { return [...Array(this.options.agents).keys()].map(i => `agent${i}`); }

    config(extra, url = this.url) {
        const { partitions, capacity, rules = {} } = this.options;
        const lines = ['store:', `  url: unix:${url}`, `  partitions: ${partitions}`, 'log:', '  level: info',
                       'inboxes:', `  ${INBOX}:`, '    channel: webchat', `    tenant: ${TENANT}`, '    secret: fault-suite-secret-0123456789',
                       `    bot: ${BOT}`, '    rate: 50', '    burst: 100', 'agents:'];
        for (const name of this.agentNames())
            lines.push(`  ${name}:`, `    tenant: ${TENANT}`, `    name: ${name}`, `    password_hash: "${this.passwordHash}"`,
                       `    queues: [${QUEUES.join(', ')}]`, `    capacity: ${capacity}`);
        lines.push('router:', '  lease: 1500ms', '  survey: 250ms');
        const set = { bot_answer_ms: 8000, offline_ms: OFFLINE_MS, accept_ms: 15000, presence_ms: 15000, place_ms: 2000, queue_repeat_ms: 20000, ...rules };
        lines.push('rules:', '  language: en', ...Object.entries(set).map(([k, v]) => `  ${k}: ${v}`));
        return lines.concat(extra, '').join('\n');
    }

    addRedis() {
        const p = new Process(this, 'redis', 'redis', 'redis-server', [path.join(this.dir, 'redis.conf')]);
        this.processes.push(p);
        p.start();
        this.redis = new Redis({ path: this.url, retryStrategy: n => Math.min(20 * n, 200), maxRetriesPerRequest: null,
                                 enableReadyCheck: true });
        this.redis.on('error', () => {});
    }

    async redisReady() {
        await until('redis', 10000, async () => await this.redis.ping() === 'PONG', 50);
    }

    // Readers that hold everything, so that the logs are whole at the end.
    async createStore() {
        const pipeline = this.redis.pipeline();
        for (const tag of this.tags)
            pipeline.hset(`tails:{${tag}}`, 'in:archive', 'must 0-0', 'out:archive', 'must 0-0');
        await pipeline.exec();
    }

    env(kind) {
        const { mutant } = this.options;
        return { SLUICE_FAULTS: kind === 'router' ? 'step.poison' : '', ...(mutant ? { SLUICE_MUTANT: mutant } : {}) };
    }

    // The first gateway's way to the store swallows some pushes.
    addLossyWay() {
        this.lossyUrl = path.join(this.dir, 'lossy.sock');
        const args = [path.join(HERE, 'lossy.mjs'), this.url, this.lossyUrl, String(this.options.lossyPercent), String(this.options.seed ?? 1)];
        const p = new Process(this, 'lossy', 'way', process.execPath, args);
        this.processes.push(p);
        p.start();
    }

    async addRole(kind, i) {
        const name = `${kind}${i}`, extra = [], url = kind === 'gateway' && i === 0 ? this.lossyUrl : undefined;
        let port;
        if (kind === 'gateway') extra.push('gateway:', `  listen: 127.0.0.1:${port = await freePort()}`, '  per_ip: 100000');
        if (kind === 'bot') extra.push('bot:', `  name: ${BOT}`, '  faq: faq.yaml', `  consumer: ${name}`, '  claim_after: 2s');
        this.write(`${name}.yaml`, this.config(extra, url));
        const p = new Process(this, name, kind, this.bin, [kind, '--config', path.join(this.dir, `${name}.yaml`)], this.env(kind));
        p.port = port;
        this.processes.push(p);
    }

    addProcess(name, kind, command, args) {
        this.processes.push(new Process(this, name, kind, command, args));
    }

    addOddBot() {
        this.addProcess('oddbot', 'bot', process.execPath, [path.join(HERE, 'odd_bot.mjs'), this.url, BOT, String(this.options.seed ?? 1)]);
    }

    async fetch(port, what, options = {}, timeoutMs = 1500) {
        const abort = new AbortController(), timer = setTimeout(() => abort.abort(), timeoutMs);
        try {
            return await fetch(`http://127.0.0.1:${port}${what}`, { signal: abort.signal, ...options });
        } finally {
            clearTimeout(timer);
        }
    }

    async allReady(deadlineMs = 20000) {
        for (const p of this.of('gateway'))
            await until(`${p.name} /readyz`, deadlineMs, async () => {
                const answer = await this.fetch(p.port, '/readyz');
                return answer.status === 200 || `status ${answer.status}: ${(await answer.text()).slice(0, 100)}`;
            });
        await until('rules in every partition', deadlineMs, async () => {
            const offsets = await this.redis.pipeline(this.tags.map(tag => ['hget', `meta:{${tag}}`, 'offset'])).exec();
            const missing = offsets.filter(([, offset]) => !offset || offset === '0-0').length;
            return missing === 0 || `${missing} partitions without rules`;
        });
    }

    async login(name) {
        const body = JSON.stringify({ tenant: TENANT, name, password: PASSWORD });
        const answer = await this.fetch(this.gatewayPorts[0], '/v1/login',
                                        { method: 'POST', headers: { 'content-type': 'application/json' }, body }, 15000);
        if (answer.status !== 200) throw new Error(`login of ${name}: ${answer.status} ${await answer.text()}`);
        return (await answer.json()).token;
    }

    killNow() {
        for (const p of this.processes) {
            p.isWanted = false;
            clearTimeout(p.restartTimer);
            if (p.child) p.child.kill('SIGKILL');
        }
    }

    async end({ isKept = false } = {}) {
        this.redis?.disconnect();
        await Promise.all(this.processes.map(p => p.end()));
        process.off('exit', this.onExit);
        if (!isKept) fs.rmSync(this.dir, { recursive: true, force: true });
    }

    get swallowedPushes() {
        const log = path.join(this.dir, 'lossy.log');
        return fs.existsSync(log) ? fs.statSync(log).size : 0;
    }

    // Lines of the processes' logs that an operator would look at.
    complaints(most = 20) {
        const lines = [];
        for (const p of this.processes) {
            const text = fs.readFileSync(path.join(this.dir, `${p.name}.log`), 'utf8');
            for (const line of text.split('\n')) if (/level=error|assert|ERROR|AddressSanitizer|runtime error/.test(line)) lines.push(`${p.name}: ${line}`);
        }
        return lines.slice(-most);
    }
}

function faqFile() {
    const entries = [['order', 'Where is my order, please?', '请问我的订单在哪里？'], ['return', 'How can I return an article?', '怎么退货？'],
                     ['open', 'When do you open tomorrow?', '请问你们几点开门营业？']];
    return ['threshold: 10', 'faq:', ...entries.flatMap(([id, en, zh]) => [
        `  - id: ${id}`, `    ask: ["${en}", "${zh}"]`, '    answer:', `      en: "The answer to ${id}."`, `      zh: "关于 ${id} 的回答。"`])]
        .join('\n') + '\n';
}
