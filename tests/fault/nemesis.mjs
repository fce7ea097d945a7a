// Faults: kill -9 and SIGSTOP of gateway, router, bot worker and Redis, from a deck that a seed has shuffled.

import { sleep } from './world.mjs';

// Mostly short pauses, some beyond every deadline (a command's is 5 s, a lease here 1.5 s).
function pauseMs(random, i) {
    if (i % 10 === 9) return random.integer(5500, 10000);
    if (i % 3 === 2) return random.integer(1500, 4000);
    return random.integer(100, 1000);
}

// "ambush": several faults timed so that what is on its way to the store is cut in the middle.
const MIX = [['router', 'kill', 16], ['router', 'stop', 14], ['router', 'ambush', 2], ['gateway', 'kill', 13], ['gateway', 'stop', 10],
             ['gateway', 'ambush', 2], ['redis', 'kill', 11], ['redis', 'stop', 6], ['bot', 'kill', 16], ['bot', 'stop', 10]];

// `count` faults in the proportions of a mix ([kind, how, weight, range of ms?]), in random order.
export function deckOf(random, count, mix = MIX) {
    const total = mix.reduce((n, [, , weight]) => n + weight, 0), deck = [];
    for (const [kind, how, weight, range] of mix) {
        const many = Math.max(1, Math.round(count * weight / total));
        for (let i = 0; i < many; i++) {
            const ms = range ? random.integer(...range) : how === 'kill' ? random.integer(50, 600) : limited(kind, pauseMs(random, i));
            deck.push({ kind, how, ms });
        }
    }
    while (deck.length < count) deck.push({ kind: 'router', how: 'kill', ms: random.integer(50, 600) });
    return random.shuffle(deck);
}

// Redis asleep stops everybody: one long sleep a run is enough.
const limited = (kind, ms) => (kind === 'redis' ? Math.min(ms, 6500) : ms);

export class Nemesis {
    constructor(world, random, deck, { everyMs = 700, note = () => {} } = {}) {
        Object.assign(this, { world, random, deck, everyMs, note });
        this.done = {};
        this.total = 0;
        this.pending = new Set();
        this.isStopped = false;
    }

    async run() {
        for (const fault of this.deck) {
            if (this.isStopped) break;
            await sleep(this.everyMs * (0.6 + 0.8 * this.random.next()));
            if (this.isStopped) break;
            this.strike(fault);
        }
        await Promise.all(this.pending);
    }

    strike(fault) {
        const targets = this.world.of(fault.kind).filter(p => p.isRunning && !p.isPaused && !p.isStruck);
        if (targets.length === 0) {
            this.deck.push(fault); // its turn comes later
            return;
        }
        if (fault.how === 'ambush') targets.push(this.world.of('redis')[0]);
        const struck = fault.how === 'ambush' ? targets : [this.random.pick(targets)];
        if (fault.how === 'ambush' && struck.some(p => p.isStruck || !p.isRunning || p.isPaused)) {
            this.deck.push(fault);
            return;
        }
        for (const p of struck) p.isStruck = true;
        const key = `${{ kill: 'kill -9', stop: 'SIGSTOP', ambush: 'ambush' }[fault.how]} ${fault.kind}`;
        this.done[key] = (this.done[key] ?? 0) + 1;
        this.total++;
        this.note(`${key} ${struck.map(p => p.name)} ${fault.ms} ms`);
        const acting = this.act(struck, fault).catch(() => {}).finally(() => {
            for (const p of struck) p.isStruck = false;
            this.pending.delete(acting);
        });
        this.pending.add(acting);
    }

    // A backlog builds up before sleeping routers; as they take it, Redis falls asleep, they are killed, and Redis wakes: it
    // executes what had reached it and never gets the rest.
    async ambushRouters(routers, redis, wait) {
        for (const p of routers) p.pause();
        await sleep(900);
        for (const p of routers) p.resume();
        await sleep(5 + wait % 60);
        redis.pause();
        await sleep(150);
        await Promise.all(routers.map(p => p.kill()));
        redis.resume();
        await this.restart(routers, 100);
    }

    // Redis dies with commands on their way; the gateways, who wait for its return to repeat them, die too.
    async ambushGateways(gateways, redis, wait) {
        await redis.kill();
        await sleep(100 + wait % 300);
        await Promise.all(gateways.map(p => p.kill()));
        await this.restart([redis, ...gateways], 50);
    }

    async restart(processes, wait) {
        await sleep(wait);
        for (const p of processes) if (p.isWanted && !p.isRunning) p.start();
    }

    async act(struck, fault) {
        const p = struck[0];
        if (fault.how === 'ambush') {
            const redis = struck[struck.length - 1], others = struck.slice(0, -1);
            await (fault.kind === 'router' ? this.ambushRouters(others, redis, fault.ms) : this.ambushGateways(others, redis, fault.ms));
        } else if (fault.how === 'kill') {
            await p.kill();
            await this.restart(struck, fault.ms);
        } else {
            p.pause();
            await sleep(fault.ms);
            p.resume();
        }
    }

    async heal() {
        this.isStopped = true;
        await Promise.all(this.pending);
        for (const p of this.world.processes) {
            if (p.isPaused) p.resume();
            if (!p.isRunning) p.start();
        }
    }
}

// ---- a zombie's late writes: a lease epoch that is over, facts that overtook others; each must be refused ----

export class Zombie {
    constructor(world, random) {
        Object.assign(this, { world, random, isStopped: false, sent: 0 });
        this.wrong = [];
    }

    async run() {
        while (!this.isStopped) {
            await sleep(200);
            await Promise.race([this.write().catch(() => {}), sleep(3000)]);
        }
    }

    async write() {
        const tag = this.random.pick(this.world.tags), { redis } = this.world;
        const [epoch, offset, now] = await redis.hmget(`meta:{${tag}}`, 'epoch', 'offset', 'now');
        if (!epoch || !offset || !now) return;
        const old = String(Number(epoch) - 1), key = name => `${name}:{${tag}}`;
        const keys = ['meta', 'in', 'out', 'timers', 'num', 'relay', 'dead'].map(key);
        await this.expect(`commit_1 on {${tag}} under lease epoch ${old} of ${epoch}`, redis.fcall('commit_1', 7, ...keys, old, 'A-ZOMBIE',
            offset, offset, now, 1000, tag, 0, ...Array(8).fill(0)));
        await this.expect(`deliver_1 of number 3 after 0`, redis.fcall('deliver_1', 2, 'probe:{zombie}', 'from:{zombie}', 'zombie', 1, 3, 0,
            1, 2, 't', 'late'), 'GAP', 'I4');
        await this.expect(`renew_1 on {${tag}} under lease epoch ${old} of ${epoch}`, redis.fcall('renew_1', 1, keys[0], old, 'A-ZOMBIE', 1000));
    }

    async expect(what, call, expected = 'FENCED', invariant = 'I5') {
        let got = 'accepted';
        try {
            await call;
        } catch (error) {
            if (!error.message.startsWith(expected)) return; // it did not arrive
            got = expected;
        }
        this.sent++;
        if (got !== expected) this.wrong.push({ what, expected, got, invariant });
    }
}
