// A bot for Sluice in JavaScript (ioredis). docs/write-a-bot.md explains every line.
import Redis from 'ioredis';

const store = new Redis(process.env.SLUICE_STORE ?? 'redis://127.0.0.1:6379');
const tasks = 'bot:' + (process.env.SLUICE_BOT ?? 'echo'), me = process.env.SLUICE_WORKER ?? 'node-1';
await store.xgroup('CREATE', tasks, 'workers', '0', 'MKSTREAM').catch(() => {});      // it is there already
for (;;) {
  const [, left] = await store.xautoclaim(tasks, 'workers', me, 10000, '0', 'COUNT', 16);   // by dead workers
  const read = await store.xreadgroup('GROUP', 'workers', me, 'COUNT', 16, 'BLOCK', 1000, 'STREAMS', tasks, '>');
  for (const [entry, fields] of [...left, ...(read?.[0][1] ?? [])]) {
    const task = {};
    for (let i = 0; i < fields.length; i += 2) task[fields[i]] = fields[i + 1];
    if (Date.now() < Number(task.due)) {                     // else the turn has gone on without us
      const answer = ['t', 'answer', 'c', task.c, 'ce', task.ce, 'tn', task.tn, 'x', 'You said: ' + task.x];
      await store.xadd(task.rt, '*', ...answer);
    }
    await store.xack(tasks, 'workers', entry);
  }
}
