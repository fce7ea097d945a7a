// The delivery suite: customers write on every channel through simulated providers that lose, repeat, delay and refuse; gateways are killed
// at every marked point of a send (base/fault.h), at random, and with Redis. Then: heal, prove that all has ended, read, judge.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { check, figures } from './delivery_checker.mjs';
import { CHANNELS, DeliveryWorld, sleep } from './delivery_world.mjs';
import { randomFrom } from './random.mjs';
import { until } from './world.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const POINT_LIMIT_MS = 12000, ANSWER_LIMIT_MS = 4000, TERMINAL = new Set(['sent', 'delivered', 'read', 'failed', 'unknown']);
const POINT = /sl_(?:kill_point|fault)\("(\w+\.\w+)"\)/g, NOT_A_SEND = /^(step|bus)\./;
// Their other side is an IMAP server: tests/e2e has a real one and kills there.
const ELSEWHERE = /^mail\.imap_/;

// What providers do all the time; a burst adds to it.
const NOISE = { drop_before: 0.03, drop_after: 0.03, fail_5xx: 0.03, fail_429: 0.02, duplicate: 0.05, reorder: 0.05, wrong_case: 0.2, receipt_shuffle: 0.2, receipt_duplicate: 0.1, receipt_fail: 0.03, receipt_contrary: 0.05 };
const BURSTS = [{ drop_before: 0.5 }, { drop_after: 0.5 }, { fail_5xx: 0.6 }, { fail_429: 0.6 }, { latency_ms: 700 }, { receipt: 'early' }, { receipt: 'early', drop_after: 0.3 }, { duplicate: 0.6 }, { hang_after: 0.3 }];

// Every marked point of a send, as the sources have it.
export function markedPoints() {
    const found = new Set();
    for (const folder of ['base', 'bus', 'gateway', 'channels'])
        for (const name of fs.readdirSync(path.join(ROOT, folder), { recursive: true }))
            if (name.endsWith('.c')) for (const [, point] of fs.readFileSync(path.join(ROOT, folder, name), 'utf8').matchAll(POINT)) if (!NOT_A_SEND.test(point) && !ELSEWHERE.test(point)) found.add(point);
    return [...found].sort();
}

const DECK = ['gateway', 'ambush', 'redis', 'burst', 'burst', 'pause', 'trouble', 'aim'];

const arm = (process, point) => Object.assign(process.env, { SLUICE_FAULTS: point });

class Customer {
    constructor(scenario, channel, i) {
        const row = CHANNELS[channel];
        Object.assign(this, { scenario, channel, fake: scenario.world.fakes[channel], ask: row.ask, id: row.customer(i), asked: [], isStopped: false });
    }

    async run() {
        const { random } = this.scenario;
        for (let n = 1; !this.isStopped; n++) {
            const question = { text: `Question ${this.channel} ${this.id} ${n}`, acknowledged: false }, before = this.fake.phone(this.id).length;
            this.asked.push(question);
            question.pending = this.fake.customer({ ...this.ask, from: this.id, text: question.text })
                .then(({ answer }) => { question.acknowledged = answer === 'accepted'; }, error => { question.error = error.message; });
            await Promise.race([this.answered(before), sleep(ANSWER_LIMIT_MS)]);
            await sleep(random.integer(30, 250));
        }
    }

    async answered(before) {
        for (let seen = before, end = Date.now() + ANSWER_LIMIT_MS; Date.now() < end && !this.isStopped;) {
            const more = await this.fake.entries(this.id, seen, 500);
            if (more.some(e => e.by === 'service')) return;
            seen += more.length;
        }
    }
}

export class DeliveryScenario {
    constructor(options) {
        this.options = { seed: 1, faults: 30, customers: 6, everyMs: 450, drainSeconds: 60, points: true, say: () => {}, ...options };
        this.random = randomFrom(this.options.seed);
        this.world = new DeliveryWorld({ seed: this.options.seed, mutant: this.options.mutant, channels: this.options.channels, inbox: this.options.inbox });
        this.struck = {};
        this.points = [];
    }

    async start() {
        await this.world.start();
        const calm = Object.values(this.world.fakes);
        for (const fake of calm) fake.set(this.options.noise ?? NOISE);
        this.customers = this.world.channels.flatMap(channel => [...Array(this.options.customers).keys()].map(i => new Customer(this, channel, i)));
        this.asking = this.customers.map(c => c.run());
    }

    hit(name) { this.struck[name] = (this.struck[name] ?? 0) + 1; }

    // ---- kill -9 at every marked point: a gateway kills itself there, and starts again to do so at the next one ----

    async killAtPoints(points) {
        const [gateway, other] = this.world.of('gateway');
        await other.end();
        let isArmed = false;
        for (const [i, name] of points.entries()) {
            if (!isArmed) {
                arm(gateway, name);
                await gateway.kill();
                gateway.start();
            }
            const { deaths } = gateway, began = Date.now();
            while (gateway.deaths === deaths && Date.now() - began < POINT_LIMIT_MS) await sleep(10);
            const isMet = gateway.deaths > deaths;
            this.points.push({ name, isMet, ms: Date.now() - began });
            if (isMet) this.hit(`kill -9 at ${name}`);
            arm(gateway, points[i + 1] ?? '');      // it is started again with the next one
            isArmed = isMet;
        }
        if (!isArmed) { await gateway.kill(); gateway.start(); }
        other.start();
    }

    // ---- random faults ----

    async strikeAtRandom(count) {
        const deck = [];
        const { random, world } = this;
        for (let i = 0; i < count; i++) deck.push((this.options.deck ?? DECK)[i % (this.options.deck ?? DECK).length]);
        for (const what of random.shuffle(deck)) {
            await sleep(this.options.everyMs * (0.6 + 0.8 * random.next()));
            await this.strike(what, world, random);
        }
    }

    async strike(what, world, random) {
        const gateway = random.pick(world.of('gateway'));
        if (what === 'gateway') {
            this.hit('kill -9 gateway');
            await gateway.kill();
            gateway.start();
        } else if (what === 'redis') {
            this.hit('kill -9 redis');
            const [redis] = world.of('redis');
            await redis.kill();
            redis.start();
        } else if (what === 'ambush') {
            // What is on its way to the store waits there; who sent it dies meanwhile. When the store dies, too, it is lost on the way: what it
            // was about must not have begun.
            const isLost = random.integer(0, 1) === 1, [redis] = world.of('redis');
            this.hit(isLost ? 'kill -9 of all gateways, and of redis in its sleep' : 'kill -9 of all gateways while redis sleeps');
            for (let i = 0; i < 8; i++) { // in short breaths: so that it has answered a read, and not yet what follows from it
                redis.pause();
                await sleep(20);
                redis.resume();
                await sleep(random.integer(1, 4));
            }
            redis.pause();
            await sleep(random.integer(50, 400));
            await Promise.all(world.of('gateway').map(p => p.kill()));
            if (isLost) await redis.kill().then(() => redis.start());
            else redis.resume();
            for (const p of world.of('gateway')) p.start();
        } else if (what === 'pause') {
            this.hit('SIGSTOP gateway');
            gateway.pause();
            setTimeout(() => gateway.resume(), random.integer(300, 2500));
        } else if (what === 'aim') {
            this.hit('providers call another gateway');
            world.aim(random.integer(0, 1));
        } else if (what === 'trouble') {
            const channel = random.pick(world.channels.filter(name => CHANNELS[name].trouble.length > 0).concat(world.channels[0])), name = CHANNELS[channel].trouble[0];
            if (!name) return;
            this.hit(name);
            await world.fakes[channel].actions[name]({});
        } else {
            const fake = world.fakes[random.pick(world.channels)], burst = random.pick(BURSTS);
            this.hit(`burst of ${Object.keys(burst).join(' ')}`);
            const before = Object.fromEntries(Object.keys(burst).map(name => [name, fake.knobs[name]]));
            fake.set(burst);
            setTimeout(() => fake.set(before), random.integer(400, 1500));
        }
    }

    // ---- heal, drain, judge ----

    async heal() {
        for (const c of this.customers) c.isStopped = true;
        await sleep(1600);      // the last burst and pause are over
        for (const fake of Object.values(this.world.fakes)) {
            const { faults } = fake;
            fake.calm();
            fake.faults = faults;
        }
        for (const p of this.world.processes) {
            if (p.isPaused) p.resume();
            if (!p.isRunning && p.isWanted) p.start();
        }
        await Promise.all(this.asking);
    }

    async drain() {
        const end = Date.now() + this.options.drainSeconds * 1000, began = Date.now();
        let left = ['nothing was read yet'];
        for (let quiet = 0; Date.now() < end && quiet < 3;) {
            await sleep(250);
            try {
                left = await this.left();
            } catch (error) {
                left = [error.message];
            }
            quiet = left.length === 0 ? quiet + 1 : 0;
        }
        this.drainMs = Date.now() - began;
        return left;
    }

    async left() {
        const left = [];
        for (const c of this.customers) for (const q of c.asked) if (!q.acknowledged && !q.error && !await settled(q.pending)) left.push(`${c.channel}: "${q.text}" is not acknowledged`);
        const h = await this.collect(), stored = new Set(h.dead);
        for (const c of h.conversations) for (const e of c.entries) if (e.by === 'visitor') stored.add(e.text);
        for (const c of this.customers) for (const q of c.asked) if (q.acknowledged && !stored.has(q.text)) left.push(`${c.channel}: "${q.text}" is not in the history`);
        for (const [channel, sends] of Object.entries(h.sends)) for (const [name, s] of Object.entries(sends)) if (!TERMINAL.has(s.state)) left.push(`${channel} ${name}: ${s.state}`);
        for (const c of h.conversations) {
            if (c.state.control === 'bot' && !c.state.is_answered) left.push(`${c.channel} ${c.id}: no answer yet`);
            for (const e of c.entries) if (isOurs(e) && !c.entries.some(d => d.delivery?.of === e.n && TERMINAL.has(d.delivery.state))) left.push(`${c.channel} ${c.id}/${e.n}: no outcome yet`);
        }
        return left;
    }

    async collect() {
        const { redis } = this.world, world = this.world, conversations = [], sends = {}, dead = [], deadReceipts = [];
        for (const key of await redis.keys('conv:{*}:*')) {
            const [s] = await redis.hmget(key, 's'), state = s ? JSON.parse(s) : null, [, inbox, ...rest] = (state?.addr ?? '').split('/');
            if (!world.channels.includes(inbox)) continue;
            const raw = await redis.lrange(key.replace(/^conv:/, 'log:'), 0, -1);
            conversations.push({ id: key.slice(key.indexOf('}') + 2), channel: inbox, customer: (CHANNELS[inbox].phone ?? String)(rest.join('/')), state, entries: raw.map(line => entryOf(JSON.parse(line))) });
        }
        for (const name of world.channels) {
            sends[name] = {};
            const keys = await redis.keys(`send:{send:${name}}:*`), states = await redis.pipeline(keys.map(key => ['hget', key, 's'])).exec();
            keys.forEach((key, i) => { if (states[i][1]) sends[name][key.slice(key.indexOf('}') + 2)] = JSON.parse(states[i][1]); });
        }
        const early = Object.fromEntries(world.channels.map(name => [name, []]));
        for (const name of world.channels) for (const key of await redis.keys(`pid:{send:${name}}:*`)) early[name].push(key.slice(key.indexOf('}') + 2));
        for (const key of await redis.keys('dead:{*}'))
            for (const [, fields] of await redis.xrange(key, '-', '+')) {
                const at = fields.lastIndexOf('x'), remote = fields.lastIndexOf('ri');
                if (at >= 0) dead.push(fields[at + 1]);
                if (remote >= 0) deadReceipts.push(...fields[remote + 1].split(','));
            }
        return { conversations, sends, early, dead, deadReceipts, ...this.seen() };
    }

    // What the simulators wrote down.
    seen() {
        const accepted = {}, phones = {}, receipts = {}, policies = {};
        for (const [name, fake] of Object.entries(this.world.fakes)) {
            accepted[name] = fake.journal.filter(l => l.op === 'send' || l.op === 'passive');
            phones[name] = Object.fromEntries([...fake.phones].map(([id, list]) => [id, list.filter(e => e.by === 'service').map(e => e.text)]));
            const told = new Map();
            for (const l of fake.journal) if (l.op === 'receipt') told.set(`${l.id} ${l.word}`, { id: l.id, word: l.word === 'undelivered' ? 'failed' : l.word, acknowledged: l.acknowledged || told.get(`${l.id} ${l.word}`)?.acknowledged });
            receipts[name] = [...told.values()];
            policies[name] = this.options.policies?.[name] ?? CHANNELS[name].policy;
        }
        const customers = this.customers.map(c => ({ channel: c.channel, id: c.id, asked: c.asked.map(({ text, acknowledged }) => ({ text, acknowledged })) }));
        return { accepted, phones, receipts, policies, customers };
    }

    async judge() {
        await this.heal();
        const left = await this.drain();
        this.history = await this.collect();
        this.verdict = { ...check(this.history, isOurs), left };
        this.figures = figures(this.history, isOurs);
        return this.verdict;
    }

    get faults() {
        const all = { ...this.struck };
        for (const [name, fake] of Object.entries(this.world.fakes)) for (const [knob, n] of Object.entries(fake.faults)) all[`${name}: ${knob}`] = n;
        return all;
    }

    complaints() { return Object.entries(this.world.fakes).flatMap(([name, fake]) => fake.complaints.map(text => `${name}: ${text}`)); }

    async end(options) {
        for (const c of this.customers ?? []) c.isStopped = true;
        await this.world.end(options);
    }
}

const settled = promise => Promise.race([promise?.then(() => true, () => true), Promise.resolve(false)]);
const isOurs = e => e.by === 'bot' && e.text.startsWith('Answer ');

// An entry of the history; {"code":"delivery","of":n,"state":...} tells what became of another one.
function entryOf(line) {
    const m = line.m ?? line, data = typeof m.data === 'string' ? JSON.parse(m.data) : m.data;
    return { n: line.n ?? m.n, by: m.by, text: m.text ?? '', delivery: data?.code === 'delivery' ? { of: data.of, state: data.state } : undefined };
}

export { until };
