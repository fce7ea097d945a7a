// sluice_orphans: the routers find a conversation that has lost its holder's deadline (invariant I7), and only that.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { freePort, startSluice, until } from './lib/sluice.mjs';

test('a conversation whose deadline is gone is counted as an orphan; others are not', async () => {
  const listen = `127.0.0.1:${await freePort()}`;
  const s = await startSluice({ bots: 0, routers: 0, wait: false });
  s.addRouter({ metrics: { listen } }).start();
  await s.readyGateway(s.gateways[0]);
  await s.owned();
  const read = async name => {
    const text = await (await fetch(`http://${listen}/metrics`)).text();
    return Number(text.split('\n').find(line => line.startsWith(`${name} `))?.split(' ')[1] ?? NaN);
  };
  const visitors = [s.visitor(), s.visitor()];
  for (const v of visitors) {
    await v.connect();
    await v.say('hello').res;
  }
  const looks = await read('sluice_orphan_looks_total') || 0;
  await until('some rounds', async () => await read('sluice_orphan_looks_total') >= looks + 6, 20000);
  assert.equal(await read('sluice_orphans'), 0);
  const [conversation] = (await s.redisClient.keys('conv:*')).map(key => key.split(':')[2]);
  const timers = `timers:{${conversation.split('.')[0]}}`;
  const members = await s.redisClient.zrange(timers, 0, -1);
  await s.redisClient.zrem(timers, members.find(member => member.startsWith(`${conversation}|hold|`)));
  await until('it is found', async () => await read('sluice_orphans') === 1, 20000);
  await s.stop();
});
