// A bot worker whose every answer is another text, so that an answer can be followed to the customer's phone.
// usage: echo_bot.mjs SOCKET BOT

import Redis from 'ioredis';

const [socket, bot] = process.argv.slice(2);
const options = { path: socket, retryStrategy: n => Math.min(20 * n, 200), maxRetriesPerRequest: null };
const reader = new Redis(options), writer = new Redis(options), stream = `bot:${bot}`;
reader.on('error', () => {});
writer.on('error', () => {});

async function handle(id, fields) {
    const task = {};
    for (let i = 0; i + 1 < (fields?.length ?? 0); i += 2) task[fields[i]] = fields[i + 1];
    if (task.c && task.rt)
        await writer.xadd(task.rt, '*', 't', 'answer', 'c', task.c, 'ce', task.ce, 'tn', task.tn, 'kd', 'text', 'x', `Answer ${task.c}.${task.ce}.${task.tn}`);
    await writer.xack(stream, 'workers', id);
}

for (;;) {
    try {
        await writer.xgroup('CREATE', stream, 'workers', '0', 'MKSTREAM').catch(error => {
            if (!String(error.message).startsWith('BUSYGROUP')) throw error;
        });
        for (let after = '0'; ;) {      // first what an earlier life left
            const got = await reader.xreadgroup('GROUP', 'workers', 'echo', 'COUNT', 64, ...(after === '>' ? ['BLOCK', 500] : []), 'STREAMS', stream, after);
            const entries = got?.[0]?.[1] ?? [];
            for (const [id, fields] of entries) await handle(id, fields);
            if (entries.length === 0) after = '>';
        }
    } catch {
        await new Promise(resolve => { setTimeout(resolve, 100); });
    }
}
