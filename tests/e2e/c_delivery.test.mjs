// Delivery lanes over the loopback channel: an answer leaves through its lane, its outcome comes back into the history, and
// another gateway goes on when the lane's owner dies.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { BIN, SECRET, startSluice, until } from './lib/sluice.mjs';

const auth = { authorization: `Bearer ${SECRET}` };
const config = { inboxes: { loop: { channel: 'loopback', tenant: 'demo', secret: SECRET } } };
const run = (args, options = {}) => spawnSync(BIN, args, { encoding: 'utf8', maxBuffer: 64 << 20, ...options });

let serial = 0;
async function write(s, address, text, gateway = 0) {
  const answer = await s.post('/loopback/loop', { address, id: `m-${++serial}`, kind: 'text', text }, auth, gateway);
  assert.equal(answer.status, 202);
}
async function conversation(s, address) {
  const key = await until('the address has a conversation', async () => (await s.redisClient.keys(`addr:*demo/loop/${address}`))[0]);
  return JSON.parse(await s.redisClient.hget(key, 's')).c;
}
async function history(s, conv) {
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
}
const outcomes = entries => entries.filter(e => e.m.data?.code === 'delivery').map(e => [e.m.data.of, e.m.data.state]);

test('an answer is sent through the lane, and the history says so', async () => {
  const s = await startSluice({ config });
  await write(s, 'c1', 'hello');
  const conv = await conversation(s, 'c1');
  const entries = await until('the outcome', async () => {
    const all = await history(s, conv);
    return outcomes(all).length > 0 && all;
  });
  const answer = entries.find(e => e.m.by === 'bot');
  assert.deepEqual(outcomes(entries), [[answer.n, 'sent']]);
  assert.equal(entries.find(e => e.m.data?.code === 'delivery').v, 0); // the customer does not see it
  assert.equal(await s.metric('sluice_lane_queued'), 0);

  const agent = await s.agent('anna');
  await agent.connect();
  await write(s, 'c1', '人工');
  const offer = await agent.entry(d => d.t === 'offered');
  const topic = `conv:${offer.c}`;
  const { snap } = await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  await agent.say('I am here.', { topic }).res;
  const said = await until('her words', async () => (await history(s, conv)).find(e => e.m.text === 'I am here.'));
  const delivery = await agent.entry(d => d.m?.data?.code === 'delivery' && d.m.data.of === said.n, 10000, topic);
  assert.equal(delivery.m.data.state, 'sent');
  await agent.cmd('conv.close', { control: snap.state.epoch }, { topic }).res;
  await write(s, 'c1', '５'); // the rating, on a channel that shows texts alone
  await until('the rating', async () => (await history(s, conv)).some(e => e.m.data?.code === 'rated' && e.m.data.score === 5));

  const file = path.join(s.dir, 'lane.jsonl'), yaml = path.join(s.dir, 'gateway1.yaml');
  await until('everything was sent', async () => (await history(s, conv)).filter(e => e.v > 0 && e.m.by !== 'visitor').length
    === outcomes(await history(s, conv)).length);
  const recorded = run(['record', '--config', yaml, 'send:loop']);
  assert.equal(recorded.status, 0, recorded.stderr);
  fs.writeFileSync(file, recorded.stdout);
  const replayed = run(['replay', file]);
  assert.equal(replayed.status, 0, replayed.stderr);
  const out = await s.redisClient.xrange('out:{send:loop}', '-', '+');
  const facts = out.flatMap(([, fields]) => fields.filter((_, i) => i % 2 === 1 && fields[i - 1] === 'f'));
  assert.equal(replayed.stdout, facts.map(f => `${f}\n`).join(''));
  await s.stop();
});

test('another gateway takes the lane over within five seconds, and a clean stop hands it over at once', async () => {
  const s = await startSluice({ config, gateways: 2 });
  await until('the lane has an owner', async () => await s.redisClient.hget('meta:{send:loop}', 'run'));
  const before = await s.redisClient.hget('meta:{send:loop}', 'run');
  const holder = s.gateways.findIndex(g => g.output.includes('"is":"held"') || g.output.includes('is=held'));
  assert.ok(holder >= 0, 'a gateway says that it holds the lane');
  await s.gateways[holder].kill();
  const killed = Date.now();
  await write(s, 'c2', 'hello', 1 - holder);
  const conv = await conversation(s, 'c2');
  await until('the outcome', async () => outcomes(await history(s, conv)).length === 1);
  assert.ok(Date.now() - killed < 5000, `${Date.now() - killed} ms`);
  assert.notEqual(await s.redisClient.hget('meta:{send:loop}', 'run'), before);

  s.gateways[holder].start();
  await s.readyGateway(s.gateways[holder]);
  assert.equal((await s.gateways[1 - holder].term()).code, 0);
  const stopped = Date.now();
  await write(s, 'c2', 'hello', holder);
  await until('the second outcome', async () => outcomes(await history(s, conv)).length === 2);
  assert.ok(Date.now() - stopped < 2500, `${Date.now() - stopped} ms`);
  await s.stop();
});
