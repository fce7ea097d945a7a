// Delivery lanes as an operator meets them: shared evenly by gateways, looked at with `sluice lane`, missed by /readyz when they stand,
// and explained to agents while they wait.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { BIN, SECRET, sleep, startSluice, until } from './lib/sluice.mjs';
import { start as startSmsc } from '../fakes/smsc.mjs';

const auth = { authorization: `Bearer ${SECRET}` };
const loop = { channel: 'loopback', tenant: 'demo', secret: SECRET };
const lane = (s, ...args) => spawnSync(BIN, ['lane', ...args, '--set', `store.url=unix:${s.dir}/redis.sock`], { encoding: 'utf8', timeout: 20000 });

async function history(s, inbox, address) {
  const key = await until(`${address} has a conversation`, async () => (await s.redisClient.keys(`addr:*demo/${inbox}/${address}`))[0]);
  const conv = JSON.parse(await s.redisClient.hget(key, 's')).c;
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
}
const outcomes = entries => entries.filter(e => e.m.data?.code === 'delivery').map(e => e.m.data);

test('gateways share the lanes evenly, and a message that is under way is not disturbed by that', async () => {
  const inboxes = { a: loop, b: loop, c: loop, d: loop };
  const s = await startSluice({ config: { inboxes }, gateways: 2 });
  const owners = async () => {
    const runs = await Promise.all(Object.keys(inboxes).map(name => s.redisClient.hmget(`meta:{send:${name}}`, 'run', 'until')));
    const counts = new Map();
    for (const [run, until_] of runs) if (run && Number(until_) > Date.now()) counts.set(run, (counts.get(run) ?? 0) + 1);
    return [...counts.values()].sort().join(' ');
  };
  await until(async () => `two each: ${await owners()}`, async () => await owners() === '2 2', 15000);
  let serial = 0, isWriting = true, live = 0;
  const asked = [];
  const writing = (async () => {
    while (isWriting) {
      const inbox = 'abcd'[serial % 4], address = `c${serial}`;
      const answer = await s.post(`/loopback/${inbox}`, { address, id: `m-${++serial}`, kind: 'text', text: 'hello' }, auth, live);
      assert.equal(answer.status, 202);
      asked.push([inbox, address]);
      await sleep(20);
    }
  })();
  // A clean stop, so that nothing is unknown: what moves here moves because lanes are shared.
  assert.equal((await s.gateways[1].term()).code, 0);
  await until(async () => `one has all: ${await owners()}`, async () => await owners() === '4', 15000);
  assert.equal(await s.redisClient.zcard('sluice:gateways'), 1); // who stops says so
  s.gateways[1].start();
  await s.readyGateway(s.gateways[1]);
  await until(async () => `two each again: ${await owners()}`, async () => await owners() === '2 2', 15000);
  await sleep(500);
  isWriting = false;
  await writing;
  assert.ok(asked.length > 20, `${asked.length} customers`);
  for (const [inbox, address] of asked) {
    const told = await until(`${inbox}/${address}: the outcome`, async () => (list => list.length > 0 && list)(outcomes(await history(s, inbox, address))), 15000);
    assert.deepEqual(told.filter(d => d.state !== 'waiting').map(d => d.state), ['sent'], `${inbox}/${address}`);
  }
  const listed = lane(s, 'list');
  assert.equal(listed.status, 0, listed.stderr);
  for (const name of 'abcd') assert.match(listed.stdout, new RegExp(`^${name} +[0-9A-Z]{26} +\\d+ +0 +0 +0 +\\d+ +closed +-$`, 'm'));
  await s.stop();
});

test('a provider that is away: agents read that the message waits, `sluice lane` says what to do, and it is sent when it is back', async () => {
  let smsc = await startSmsc({ system_id: 'sluice', password: 'secret' });
  const port = smsc.ports.smpp;
  const s = await startSluice({ config: { inboxes: { sms: { channel: 'smpp', tenant: 'demo', host: '127.0.0.1', port, system_id: 'sluice', password: 'secret', reconnect_max: '1s' } } } });
  await until('a bind', async () => await s.metric('sluice_smpp_bound') === 1);
  await smsc.customer({ from: '8613800138000', text: '人工' });
  const agent = await s.agent('anna');
  await agent.connect();
  const offer = await agent.entry(d => d.t === 'offered'), topic = `conv:${offer.c}`;
  await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  await until('the notices are out', async () => outcomes(await history(s, 'sms', '+8613800138000')).filter(d => d.state === 'sent').length >= 2);
  await smsc.stop();
  await agent.say('are you there?', { topic }).res;
  const said = await until('her words', async () => (await history(s, 'sms', '+8613800138000')).find(e => e.m.text === 'are you there?'));
  const waits = await agent.entry(d => d.m?.data?.code === 'delivery' && d.m.data.of === said.n, 30000, topic);
  assert.deepEqual([waits.m.data.state, waits.m.data.why.code], ['waiting', 'not_connected']);
  const shown = lane(s, 'show', 'sms');
  assert.equal(shown.status, 0, shown.stderr);
  assert.match(shown.stdout, /^sms\n +owner +[0-9A-Z]{26}$/m);
  assert.match(shown.stdout, /^ +unsent +1$/m);
  assert.match(shown.stdout, /^ +to do +its adapter takes nothing: /m);
  smsc = await startSmsc({ system_id: 'sluice', password: 'secret', smpp_port: port });
  await agent.entry(d => d.m?.data?.code === 'delivery' && d.m.data.of === said.n && d.m.data.state === 'sent', 20000, topic);
  assert.match(lane(s, 'show', 'sms').stdout, /^ +unsent +0$/m);
  for (const [args, code] of [[['show', 'other'], 65], [['show', 'a}b'], 64], [['show'], 64], [['list', 'sms'], 64], [['nonsense'], 64]]) assert.equal(lane(s, ...args).status, code, args.join(' '));
  await s.stop();
  await smsc.stop();
});

test('/readyz says which lane does not move', async () => {
  const s = await startSluice({ config: { inboxes: { loop } } });
  const ready = async () => { const answer = await fetch(`${s.url()}/readyz`); return [answer.status, (await answer.json()).why]; };
  await until('the lane has an owner', async () => await s.metric('sluice_lane_held', 'inbox="loop"') === 1);
  assert.deepEqual(await ready(), [200, '']);
  // Somebody else holds the lane and does nothing.
  await s.redisClient.hset('meta:{send:loop}', 'run', 'somebody', 'until', String(Date.now() + 3600000));
  await until('the lane is lost', async () => await s.metric('sluice_lane_held', 'inbox="loop"') === 0, 20000);
  assert.equal((await s.post('/loopback/loop', { address: 'c1', id: 'm-1', kind: 'text', text: 'hello' }, auth)).status, 202);
  const [status, why] = await until(async () => `not ready: ${await ready()}`, async () => (r => r[0] === 503 && r)(await ready()), 20000);
  assert.equal(status, 503);
  assert.match(why, /delivery lane of inbox loop has an event that nobody processed for \d+ ms/);
  assert.match(lane(s, 'show', 'loop').stdout, /^ +unread +[1-9]\d*$/m);
  await s.redisClient.hset('meta:{send:loop}', 'until', '0');
  await until('the outcome', async () => outcomes(await history(s, 'loop', 'c1')).some(d => d.state === 'sent'));
  await until('ready again', async () => (await ready())[0] === 200);
  await s.stop();
});
