// What is stored: the proof that everything drained, and the final reads for the checker. Forms: bus/functions.md,
// proto/keys.h, proto/event.h, bus/commit.c (batch record), router/conversation_state.c and desk_state.c.

import { compareIds } from './checker.mjs';

const INTEGERS = new Set(['n', 'ce', 'tn', 'tk', 'gen', 'pr', 'cap', 'w', 'due', 'at', 'fn']);
const IN_LOG = '1000000000000000';
const CHUNK = 2000;

export function eventOf(fields) {
    const e = {};
    for (let i = 0; i + 1 < fields.length; i += 2) {
        const [name, value] = [fields[i], fields[i + 1]];
        e[name] = INTEGERS.has(name) ? Number(value) : name === 'd' ? parsed(value) : value;
    }
    return e;
}

function parsed(text) {
    try {
        return JSON.parse(text);
    } catch {
        return text;
    }
}

const pairsOf = flat => {
    const out = {};
    for (let i = 0; i + 1 < flat.length; i += 2) out[flat[i]] = flat[i + 1];
    return out;
};

async function readStream(redis, key) {
    const entries = [];
    for (let from = '-'; ;) {
        const part = await redis.xrange(key, from, '+', 'COUNT', CHUNK);
        entries.push(...part);
        if (part.length < CHUNK) return entries;
        from = `(${part[part.length - 1][0]}`;
    }
}

async function lastId(redis, key) {
    const last = await redis.xrevrange(key, '+', '-', 'COUNT', 1);
    return last.length ? last[0][0] : '0-0';
}

async function keysLike(redis, pattern) {
    const keys = [];
    for (let cursor = '0'; ;) {
        const [next, some] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', 2000);
        keys.push(...some);
        cursor = next;
        if (cursor === '0') return keys;
    }
}

// ---- drained? ----

const destinationTag = destination => /^in:\{(.*)\}$/.exec(destination)?.[1] ?? destination;
const marksKey = destination => `from:{${destinationTag(destination)}}`;

async function partitionLeft(redis, tag, last, left) {
    const [offset, numbers, due] = (await redis.pipeline([['hget', `meta:{${tag}}`, 'offset'], ['hgetall', `num:{${tag}}`],
        ['zrangebyscore', `timers:{${tag}}`, '-inf', '+inf', 'WITHSCORES']]).exec()).map(([, v]) => v);
    if (compareIds(offset ?? '0-0', last) < 0) left.push(`{${tag}}: offset ${offset}, the command log ends at ${last}`);
    const destinations = Object.keys(numbers);
    const marks = await redis.pipeline(destinations.map(d => ['hget', marksKey(d), tag])).exec();
    destinations.forEach((d, i) => {
        const mark = Number((marks[i][1] ?? '0 0').split(' ')[0]);
        if (mark !== Number(numbers[d])) left.push(`{${tag}}: ${numbers[d]} facts for ${d}, ${mark} are there`);
    });
    const now = Date.now();
    for (let i = 0; i < due.length; i += 2) {
        if (due[i + 1] === IN_LOG || Number(due[i + 1]) <= now + 20) left.push(`{${tag}}: timer ${due[i]} is due`);
        else if (due[i].includes('|merge|') || due[i].includes('|more|')) left.push(`{${tag}}: timer ${due[i]} is armed`);
    }
}

async function conversationsLeft(redis, tags, left) {
    const keys = (await Promise.all(tags.map(tag => keysLike(redis, `conv:{${tag}}:*`)))).flat();
    const states = await redis.pipeline(keys.map(key => ['hget', key, 's'])).exec();
    states.forEach(([, s], i) => {
        const state = s ? JSON.parse(s) : {};
        if (state.control === 'bot' && !state.is_answered) left.push(`${keys[i]}: turn ${state.turn} has no answer`);
        if (state.control === 'offered') left.push(`${keys[i]}: offered to ${state.agent}, who has not accepted`);
    });
}

async function botsLeft(redis, stream, left) {
    const groups = await redis.xinfo('GROUPS', stream).catch(() => []);
    const end = await lastId(redis, stream);
    for (const flat of groups) {
        const g = pairsOf(flat);
        if (Number(g.pending) > 0) left.push(`${stream}: ${g.pending} tasks pending`);
        if (compareIds(g['last-delivered-id'], end) < 0) left.push(`${stream}: tasks not taken yet`);
    }
}

// What still stands between here and "nothing moves any more"; an empty list is the proof.
export async function whatIsLeft(world, clients) {
    const left = [], { redis, tags } = world;
    for (const c of clients) if (c.unanswered > 0) left.push(`${c.name}: ${c.unanswered} commands without an ack`);
    for (const tag of tags) await partitionLeft(redis, tag, await lastId(redis, `in:{${tag}}`), left);
    await botsLeft(redis, `bot:${world.bot}`, left);
    await conversationsLeft(redis, tags.filter(tag => !tag.startsWith('desk:')), left);
    return left;
}

// ---- final reads ----

const timerOf = (member, score) => {
    const last = member.lastIndexOf('|'), first = member.lastIndexOf('|', last - 1);
    return { object: member.slice(0, first), name: member.slice(first + 1, last), gen: Number(member.slice(last + 1)), due: Number(score) };
};

function outOf([id, fields]) {
    const batch = { id, b: null, f: [], raw: [] };
    for (let i = 0; i + 1 < fields.length; i += 2) {
        if (fields[i] === 'b') batch.b = JSON.parse(fields[i + 1]);
        else {
            batch.f.push(JSON.parse(fields[i + 1]));
            batch.raw.push(fields[i + 1]);
        }
    }
    return batch;
}

function deadOf([, fields]) {
    const { e: entry, r } = pairsOf(fields.slice(0, 4));
    return { entry, r, ev: eventOf(fields.slice(4)) };
}

async function readDesk(redis, tag) {
    const waiting = [], slots = [];
    for (const key of await keysLike(redis, `queue:{${tag}}:*`)) {
        const state = JSON.parse(await redis.hget(key, 's') ?? '{}');
        for (const line of state.waiting ?? []) {
            const [conversation, ticket] = line.split(' ');
            waiting.push({ conversation, ticket: Number(ticket) });
        }
    }
    for (const key of await keysLike(redis, `agent:{${tag}}:*`)) {
        const state = JSON.parse(await redis.hget(key, 's') ?? '{}');
        for (const line of state.held ?? []) {
            const [conversation, ticket] = line.split(' ');
            slots.push({ agent: key.slice(key.indexOf('}') + 2), conversation, ticket: Number(ticket) });
        }
    }
    return { waiting, slots };
}

async function readConversations(redis, tag) {
    const states = {}, logs = {};
    for (const key of await keysLike(redis, `conv:{${tag}}:*`)) {
        const id = key.slice(key.indexOf('}') + 2);
        const [s, base] = await redis.hmget(key, 's', 'b');
        if (!s) continue;
        states[id] = JSON.parse(s);
        logs[id] = { base: Number(base ?? 0), entries: (await redis.lrange(`log:{${tag}}:${id}`, 0, -1)).map(e => JSON.parse(e)) };
    }
    return { states: { conv: states }, logs };
}

async function readPartition(redis, tag) {
    const input = await readStream(redis, `in:{${tag}}`);
    const meta = await redis.hgetall(`meta:{${tag}}`);
    const from = await redis.hgetall(`from:{${tag}}`);
    const timers = await redis.zrange(`timers:{${tag}}`, 0, -1, 'WITHSCORES');
    const numbers = await redis.hgetall(`num:{${tag}}`);
    const p = {
        in: input.map(([id, fields]) => ({ id, e: eventOf(fields) })), inRaw: input,
        out: (await readStream(redis, `out:{${tag}}`)).map(outOf),
        offset: meta.offset ?? '0-0', epoch: Number(meta.epoch ?? 0), gen: meta.gen,
        num: Object.fromEntries(Object.entries(numbers).map(([k, v]) => [k, Number(v)])), forks: Number(from.forks ?? 0),
        timers: [], dead: (await readStream(redis, `dead:{${tag}}`)).map(deadOf), states: {}, logs: {},
    };
    for (let i = 0; i < timers.length; i += 2) p.timers.push(timerOf(timers[i], timers[i + 1]));
    if (tag.startsWith('desk:')) p.desk = await readDesk(redis, tag);
    else Object.assign(p, await readConversations(redis, tag));
    return p;
}

export async function readEverything(world) {
    const partitions = {}, bots = {};
    for (const tag of world.tags) partitions[tag] = await readPartition(world.redis, tag);
    const stream = `bot:${world.bot}`;
    bots[stream] = (await readStream(world.redis, stream)).map(([id, fields]) => ({ id, e: eventOf(fields) }));
    return { partitions, bots };
}
