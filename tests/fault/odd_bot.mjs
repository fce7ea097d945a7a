// A bot worker with bad manners: answers twice, answers late, answers old turns, sometimes not at all. Nothing of it may show.
// usage: odd_bot.mjs SOCKET BOT SEED

import Redis from 'ioredis';
import { randomFrom } from './random.mjs';

const [socket, bot, seed] = process.argv.slice(2);
const options = { path: socket, retryStrategy: n => Math.min(20 * n, 200), maxRetriesPerRequest: null };
const reader = new Redis(options), writer = new Redis(options);
reader.on('error', () => {});
writer.on('error', () => {});
const random = randomFrom(Number(seed) * 7919 + process.pid), stream = `bot:${bot}`, before = [];

async function answer(task, text) {
    await writer.xadd(task.rt, '*', 't', 'answer', 'c', task.c, 'ce', task.ce, 'tn', task.tn, 'kd', 'text', 'x', text);
}

async function handle(id, task) {
    const manner = random.next();
    if (manner < 0.25) { // twice at once
        await Promise.all([answer(task, 'first of two'), answer(task, 'second of two')]);
    } else if (manner < 0.45) { // late
        setTimeout(() => answer(task, 'late').catch(() => {}), random.integer(200, 3000));
    } else if (manner < 0.6 && before.length > 0) { // an old turn again, then this one
        await answer(random.pick(before), 'an old turn again');
        await answer(task, 'after an old turn');
    } else {
        await answer(task, 'from the other worker');
    }
    before.push(task);
    if (before.length > 50) before.shift();
    await writer.xack(stream, 'workers', id);
}

async function read(after) {
    const got = await reader.xreadgroup('GROUP', 'workers', 'odd', 'COUNT', 16, ...(after === '>' ? ['BLOCK', 1000] : []),
                                        'STREAMS', stream, after);
    for (const [id, fields] of got?.[0]?.[1] ?? []) {
        const task = {};
        for (let i = 0; i + 1 < (fields?.length ?? 0); i += 2) task[fields[i]] = fields[i + 1];
        if (task.c && task.rt) await handle(id, task);
        else await writer.xack(stream, 'workers', id);
    }
    return got?.[0]?.[1]?.length ?? 0;
}

for (;;) {
    try {
        await writer.xgroup('CREATE', stream, 'workers', '0', 'MKSTREAM').catch(error => {
            if (!String(error.message).startsWith('BUSYGROUP')) throw error;
        });
        while (await read('0') > 0); // what an earlier life left
        for (;;) await read('>');
    } catch {
        await new Promise(resolve => { setTimeout(resolve, 100); });
    }
}
