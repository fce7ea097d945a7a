// One run: a world, its load, its nemesis, then heal, prove drained, freeze, read everything, judge.

import { Agent, SilentReader, Visitor } from './clients.mjs';
import { check } from './checker.mjs';
import { readEverything, whatIsLeft } from './collect.mjs';
import { Gauges } from './gauges.mjs';
import { Nemesis, Zombie, deckOf } from './nemesis.mjs';
import { randomFrom } from './random.mjs';
import { replayAll } from './replay.mjs';
import { QUEUES, World, sleep, until } from './world.mjs';

const POISON = '\x07poison';
const OWED_MAX = 60;
const SHOWN_WITHIN_S = 30;      // I11

// proto/keys.c: FNV-1a, 64 bits, modulo the number of partitions.
export function partitionOfAddress(addr, partitions) {
    let hash = 0xcbf29ce484222325n;
    for (const byte of Buffer.from(addr)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
    return Number(hash % BigInt(partitions));
}

export class Scenario {
    constructor(options) {
        this.options = { seed: 1, visitors: 200, rate: 240, faults: 66, seconds: 55, drainSeconds: 60, poison: true, lossyPercent: 3, mix: undefined,
                         mutant: null, say: () => {}, ...options };
        this.random = randomFrom(this.options.seed);
        this.world = new World({ ...this.options, ...this.options.world });
        this.gauges = new Gauges(this.world);
        this.zombie = new Zombie(this.world, this.random.fork());
        this.poison = [];
        this.faults = {};
        this.faultCount = 0;
        this.loadMs = 0;
        this.log = [];
    }

    say(text) { this.options.say(text); }

    note(text) { this.log.push(`${((Date.now() - this.startedAt) / 1000).toFixed(1)} s ${text}`); }

    // ---- start ----

    async start() {
        this.startedAt = Date.now();
        await this.world.start();
        const ports = () => this.world.gatewayPorts;
        this.agents = [];
        for (const name of this.world.agentNames())
            this.agents.push(new Agent({ name, id: name, ports, random: this.random.fork(), queues: QUEUES, token: await this.world.login(name) }));
        this.visitors = [...Array(this.options.visitors).keys()].map(i => new Visitor({
            name: `v${i}`, ports, random: this.random.fork(), inbox: this.world.inbox, tenant: this.world.tenant,
            wantsHuman: i % 8 === 3 ? 0.08 : 0, filler: i === 0 || this.options.filler ? ` ${'Where is my order, please? '.repeat(500)}` : '' }));
        this.clients = [...this.agents, ...this.visitors];
        await this.connectAll();
        if (this.options.poison) await this.visitEveryTenth(ports);
        this.watching = setInterval(() => this.clients.forEach(c => c.watch(Date.now())), 300);
        this.working = setInterval(() => this.agents.forEach(a => a.work(Date.now())), 50);
        this.silent = new SilentReader({ ports, random: this.random.fork(),
            hello: () => ({ t: 'hello', role: 'visitor', inbox: this.world.inbox, token: this.visitors[0].token }) });
        this.silent.connect();
        this.gauging = this.gauges.run();
        this.haunting = this.zombie.run();
    }

    async connectAll() {
        for (const c of this.clients) if (!c.socket) c.connect();
        await until('every client welcomed', 20000, () => {
            const missing = this.clients.filter(c => !c.isOpen).length;
            return missing === 0 || `${missing} are not`;
        });
    }

    // Addresses are the gateway's choice: more visitors, until every tenth partition has one.
    async visitEveryTenth(ports) {
        const { partitions } = this.world.options, tenths = [...Array(partitions).keys()].filter(k => k % 10 === 0);
        for (let i = 0; i < 2000; i++) {
            const met = new Set(this.visitors.slice(1).map(v => partitionOfAddress(v.addr, partitions)));
            if (tenths.every(k => met.has(k))) return;
            const v = new Visitor({ name: `v${this.visitors.length}`, ports, random: this.random.fork(), inbox: this.world.inbox, tenant: this.world.tenant });
            this.visitors.push(v);
            this.clients.push(v);
            await this.connectAll();
        }
    }

    // One visitor of every tenth partition begins with a message that kills who steps it.
    async poisonPartitions() {
        const taken = new Map();
        for (const v of this.visitors.slice(1)) {
            const k = partitionOfAddress(v.addr, this.world.options.partitions);
            if (k % 10 === 0 && !taken.has(k)) taken.set(k, v);
        }
        for (const [k, v] of taken) this.poison.push({ id: v.say(POISON).id, tag: String(k) });
        await until('poison in the dead letters', 60000, async () => {
            const counts = await this.world.redis.pipeline(this.poison.map(p => ['xlen', `dead:{${p.tag}}`])).exec();
            const missing = counts.filter(([, n]) => n === 0).length;
            return missing === 0 || `${missing} of ${this.poison.length} are not there`;
        }, 200);
        await this.world.allReady();
    }

    // ---- load ----

    beginLoad() {
        const share = this.options.rate / this.visitors.length, order = this.visitors;
        let last = Date.now();
        for (const a of this.agents) a.canEnd = true;
        for (const v of order) {
            v.owed = this.random.next();
            v.isTalking = true;
        }
        this.loading = setInterval(() => {
            const now = Date.now(), more = share * (now - last) / 1000;
            last = now;
            for (const v of order) {
                v.owed = Math.min(v.owed + more, OWED_MAX);
                if (v.owed < 1 || !v.canSend) continue;
                v.owed--;
                v.speak();
                if (this.random.chance(0.001)) v.command('me', 'conv.end', {}, 'end');
            }
        }, 20);
        this.loadBegan = Date.now();
    }

    endLoad() {
        clearInterval(this.loading);
        this.loadMs += Date.now() - this.loadBegan;
        for (const v of this.visitors) v.isTalking = false;
        for (const a of this.agents) a.canEnd = false;
    }

    async strike() {
        const { faults, seconds, mix } = this.options;
        const deck = deckOf(this.random, faults, mix);
        this.nemesis = new Nemesis(this.world, this.random.fork(), deck, { everyMs: seconds * 1000 / faults, note: text => this.note(text) });
        this.beginLoad();
        const began = Date.now();
        const telling = setInterval(() => this.say(`   ${Math.round((Date.now() - began) / 1000)} s: ${this.acked} acknowledged, ` +
            `${this.faultCount + this.nemesis.total} faults`), 10000);
        await this.nemesis.run();
        const left = seconds * 1000 - (Date.now() - began);
        if (left > 0) await sleep(left);
        clearInterval(telling);
        this.endLoad();
        await this.nemesis.heal();
        for (const [key, n] of Object.entries(this.nemesis.done)) this.faults[key] = (this.faults[key] ?? 0) + n;
        this.faultCount += this.nemesis.total;
    }

    get acked() {
        return this.visitors.reduce((n, v) => n + v.sends.reduce((k, s) => k + (s.acked ? 1 : 0), 0), 0);
    }

    // ---- drain ----

    async drain() {
        const began = Date.now(), end = began + this.options.drainSeconds * 1000;
        for (let left, calm = 0; ;) {
            left = await whatIsLeft(this.world, this.clients).catch(error => [error.message]);
            calm = left.length === 0 ? calm + 1 : 0;
            if (calm >= 2) {
                this.drainMs = Date.now() - began;
                return { ok: true, what: [] };
            }
            if (Date.now() > end) return { ok: false, what: left };
            await sleep(300);
        }
    }

    // Sockets of agents that are behind what they follow: her own log, and the conversations she has open.
    async agentsBehind() {
        const { redis, tenant } = this.world, wanted = [];
        for (const a of this.agents) {
            wanted.push([a, 'me', `agent:{desk:${tenant}}:${a.id}`]);
            for (const name of a.followed.keys()) wanted.push([a, name, `conv:{${name.slice(5).split('.')[0]}}:${name.slice(5)}`]);
        }
        const ends = await redis.pipeline(wanted.map(([, , key]) => ['hget', key, 'n'])).exec();
        return wanted.filter(([a, name], i) => (a.topic(name).position?.[1] ?? 0) < Number(ends[i][1] ?? 0)).length;
    }

    async visitorEnds() {
        const { redis, options: { partitions } } = this.world;
        const tagOf = v => partitionOfAddress(v.addr, partitions);
        const addrs = await redis.pipeline(this.visitors.map(v => ['hget', `addr:{${tagOf(v)}}:${v.addr}`, 's'])).exec();
        const convs = addrs.map(([, s]) => (s ? JSON.parse(s).c : null));
        const ends = await redis.pipeline(this.visitors.map((v, i) => ['hget', `conv:{${tagOf(v)}}:${convs[i]}`, 'v'])).exec();
        return ends.map(([, v]) => Number(v ?? 0));
    }

    // I11: every open socket shows the end of its conversation, 30 s after the last thing that happened.
    async waitShown() {
        const began = Date.now();
        for (;;) {
            const ends = await this.visitorEnds();
            const behind = this.visitors.filter((v, i) => v.isOpen && (v.topic('me').position?.[1] ?? 0) < ends[i]).length;
            const agentsBehind = await this.agentsBehind();
            const closed = this.clients.filter(c => !c.isOpen).length;
            const waited_s = (Date.now() - began) / 1000;
            for (const c of this.clients) c.waited_s = Math.round(waited_s);
            if ((behind === 0 && agentsBehind === 0 && closed === 0) || waited_s > SHOWN_WITHIN_S) return;
            await sleep(500);
        }
    }

    // Everything stands still while it is read; what was on its way at that moment is let through first.
    async freeze() {
        const movers = ['router', 'gateway', 'bot'].flatMap(kind => this.world.of(kind));
        let left = [];
        for (let i = 0; i < 12; i++) {
            for (const p of movers) p.pause();
            await sleep(50);
            left = await whatIsLeft(this.world, this.clients);
            if (left.length === 0 || i === 11) break;
            this.thaw();
            await sleep(400 + 100 * i);
        }
        return left;
    }

    thaw() {
        for (const p of this.world.processes) if (p.isPaused) p.resume();
    }

    // ---- the whole of one round ----

    async round() {
        await this.strike();
        const drained = await this.drain();
        if (drained.ok) await this.waitShown();
        const left = await this.freeze();
        if (drained.ok && left.length > 0) Object.assign(drained, { ok: false, what: left });
        const stored = await readEverything(this.world);
        this.history = { ...stored, clients: this.clients.map(c => c.record()), poison: this.poison, gauges: this.gauges.record(),
                         probes: this.zombie.wrong, drained, replay: await replayAll(this.world, stored.partitions) };
        this.verdict = check(this.history);
        return this.verdict;
    }

    async end({ isKept } = {}) {
        clearInterval(this.loading);
        clearInterval(this.watching);
        clearInterval(this.working);
        this.silent?.stop();
        for (const c of this.clients ?? []) c.stop();
        this.gauges.isStopped = this.zombie.isStopped = true;
        this.thaw();
        await Promise.race([Promise.all([this.gauging, this.haunting]), sleep(3500)]);
        await this.world.end({ isKept });
    }

    // What the run met: a judge who saw nothing finds nothing.
    met() {
        const met = { 'turns answered': 0, 'stale or second answers refused': 0, 'conversations given to agents': 0, 'agents who left': 0,
                      'transfers': 0, 'closed by agents': 0, 'timers due': 0, 'pushes swallowed': this.world.swallowedPushes };
        const kinds = { assign: 'conversations given to agents', gone: 'agents who left' };
        for (const { in: input, out } of Object.values(this.history?.partitions ?? {})) {
            for (const { e } of input) if (e.t === 'timer') met['timers due']++;
            for (const { f } of out) {
                for (const { h, d, e } of f) {
                    if (h?.startsWith('conv:') && e.m?.by === 'bot') met['turns answered']++;
                    if (d !== undefined && kinds[e.t]) met[kinds[e.t]]++;
                    if (d === undefined && e.t === 'refusal' && e.nm === 'answer') met['stale or second answers refused']++;
                    if (d === undefined && e.t === 'queued' && e.r === 'transfer') met.transfers++;
                    if (d === undefined && e.t === 'closed' && e.r === 'agent') met['closed by agents']++;
                }
            }
        }
        return met;
    }

    // ---- figures for the verdict page ----

    figures() {
        const sends = this.visitors.flatMap(v => v.sends), acks = sends.map(s => s.ackMs).filter(x => x !== undefined).sort((a, b) => a - b);
        const sum = key => this.clients.reduce((n, c) => n + c.counts[key], 0);
        const at = p => acks[Math.min(acks.length - 1, Math.floor(acks.length * p))];
        const dead = Object.values(this.history?.partitions ?? {}).reduce((n, p) => n + p.dead.length, 0);
        return { acked: this.acked, rate: this.acked / (this.loadMs / 1000), ack50: at(0.5), ack99: at(0.99), connects: sum('connects'),
                 resends: sum('resends'), duplicates: sum('duplicates'), busy: sum('busy'), goBacks: sum('goBacks'), dead,
                 agentSends: this.agents.reduce((n, a) => n + a.sends.length, 0), deaths: this.world.deaths.length,
                 silent: this.silent?.connects ?? 0 };
    }
}
