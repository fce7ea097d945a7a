// Visitors: a question and its answer, several tabs, reconnecting, two gateways, restarts of everything, a lost push.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { startSluice, until, sleep } from './lib/sluice.mjs';

let s;
before(async () => { s = await startSluice({ gateways: 2, config: { gateway: { heartbeat: '1s' } } }); });
after(async () => { await s.stop(); });

const entriesOf = client => client.frames.filter(f => f.t === 'ev' && f.topic === 'me').map(f => f.d);

test('a question is acknowledged, decided and answered', async () => {
  const v = s.visitor();
  const welcome = await v.connect();
  assert.equal(welcome.n, 0);
  assert.match(welcome.me.token, /^v1\./);
  const said = v.say('hello');
  assert.equal((await said.ack).n, 1);
  const res = await said.res;
  assert.equal(res.t, 'res');
  assert.equal(res.pos[1], 1);
  const answer = await v.entry(d => d.m.by === 'bot');
  assert.match(answer.m.text, /Hello/);
  assert.equal(answer.v, 2);
  assert.deepEqual(v.problems, []);
});

test('two tabs on two gateways see the same history in the same order', async () => {
  const a = s.visitor();
  await a.connect();
  const b = s.visitor({ token: a.token, gateway: 1 });
  assert.equal((await b.connect()).me.address, a.me.address);
  for (let i = 0; i < 5; i++) {
    await a.say('hello').res;
    await b.say('你好').res;
  }
  const count = () => Math.min(a.shown().length, b.shown().length);
  await until('both tabs show ten messages and an answer to the last', () => count() > 10 && a.shown().at(-1).entry?.m.by === 'bot');
  await until('both show the same length', () => a.shown().length === b.shown().length);
  assert.deepEqual(a.shown().map(x => x.n), b.shown().map(x => x.n));
  const ids = c => c.shown().map(x => x.id);
  assert.deepEqual(ids(a), ids(b));
  assert.deepEqual([...a.problems, ...b.problems], []);
});

test('the same number sent twice is one message, a later number is refused with the one expected', async () => {
  const v = s.visitor();
  await v.connect();
  const said = v.say('once');
  await said.ack;
  const again = v.next(f => f.t === 'ack' && f.id === said.id);
  v.send(said.frame);
  assert.equal((await again).n, 1);
  const err = v.next(f => f.t === 'err');
  v.send({ t: 'cmd', id: 'far', n: 7, topic: 'me', k: 'message.send', d: { text: 'too far' } });
  const { code, expect, retry } = await err;
  assert.deepEqual({ code, expect, retry }, { code: 'EGAP', expect: 2, retry: true });
  await v.say('two').res;
  assert.equal(entriesOf(v).concat(v.shown().filter(x => x.own)).filter(x => x.id === said.id || x.m?.id === said.id).length, 1);
});

test('reconnecting replays exactly what was missed and goes on numbering', async () => {
  const a = s.visitor();
  await a.connect();
  await a.say('one').res;
  await a.entry(d => d.m.by === 'bot');
  const b = s.visitor({ token: a.token, gateway: 1 });
  await b.connect();
  a.drop();
  await a.whenClosed;
  const before = a.shown().length;
  await b.say('while you were away').res;
  await until('b has its answer', () => b.frames.filter(f => f.t === 'ev' && f.d.m.by === 'bot').length >= 2);
  a.url = s.wsUrl(1);
  const welcome = await a.connect();
  assert.equal(welcome.session, a.session);
  assert.equal(welcome.n, 1);
  await until('a has caught up', () => a.shown().length === before + 2);
  assert.equal((await a.say('two').ack).n, 2);
  assert.deepEqual(a.problems, []);
});

test('a session is resumed only by its owner', async () => {
  const a = s.visitor(), b = s.visitor();
  await a.connect();
  await b.connect();
  const stolen = a.session;
  b.drop();
  await b.whenClosed;
  b.session = stolen;
  const welcome = await b.connect();
  assert.notEqual(welcome.session, stolen);
  b.problems.length = 0;
});

test('the session open elsewhere is closed with 4409', async () => {
  const a = s.visitor();
  await a.connect();
  const b = s.visitor({ token: a.token });
  b.session = a.session;
  await b.connect();
  assert.equal((await a.whenClosed).code, 4409);
});

test('a lost last push is found within a heartbeat', async () => {
  const v = s.visitor();
  await v.connect();
  const said = v.say('hello');
  await said.res;
  const { m } = await v.entry(d => d.m.by === 'bot');
  // An entry that nobody was told of: written as the commit does, without its publish.
  const key = `conv:{${m.conversation.split('.')[0]}}:${m.conversation}`, log = key.replace(/^conv/, 'log');
  const [n, visible] = (await s.redisClient.hmget(key, 'n', 'v')).map(Number);
  const entry = { n: n + 1, v: visible + 1, at: Date.now(), ce: 1, m: { id: 'quiet', by: 'bot', kind: 'text', text: 'psst' } };
  await s.redisClient.multi().rpush(log, JSON.stringify(entry)).hset(key, 'n', n + 1, 'v', visible + 1).exec();
  await v.entry(d => d.m.id === 'quiet', 3000);
  assert.deepEqual(v.problems, []);
});

test('a socket that answers pings stays open, one that does not is closed with 4440', async () => {
  const alive = s.visitor(), dead = s.visitor();
  await alive.connect();
  await dead.connect();
  dead.ws._socket.pause(); // reads nothing, so it answers nothing, and does not see the close either
  const before = await s.metric('sluice_ws_closed_total', 'SILENT');
  await until('the silent one is closed', async () => await s.metric('sluice_ws_closed_total', 'SILENT') === before + 1, 6000, 100);
  await sleep(1500);
  assert.equal(alive.closed, null);
  await alive.say('hello').ack;
  dead.ws._socket.resume();
  assert.equal((await dead.whenClosed).code, 4440);
});

test('nothing is lost or doubled when every process is killed in turn', async () => {
  const v = s.visitor({ reconnect: true });
  await v.connect();
  const sent = [];
  const say = async text => { const c = v.say(text); sent.push(c); await sleep(30); };
  for (let i = 0; i < 5; i++) await say(`before ${i}`);
  await s.gateways[0].restart();
  for (let i = 0; i < 5; i++) await say(`gateway ${i}`);
  await s.routers[0].restart();
  for (let i = 0; i < 5; i++) await say(`router ${i}`);
  await s.bots[0].restart();
  for (let i = 0; i < 5; i++) await say(`bot ${i}`);
  await s.redis.restart();
  for (let i = 0; i < 5; i++) await say(`redis ${i}`);
  await s.readyGateway(s.gateways[0], 30000);
  // Nudge: send again what has no ack, as the protocol asks.
  await until('every command is acknowledged', () => {
    for (const c of v.topic('me').pending) v.send(c);
    return sent.every(c => v.acked.has(c.id));
  }, 30000, 300);
  await until('every message is shown', () => sent.every(c => v.shown().some(x => x.id === c.id)), 30000);
  const own = v.shown().filter(x => sent.some(c => c.id === x.id)).map(x => x.id);
  assert.deepEqual(own, sent.map(c => c.id), 'once each, in the order they were sent');
  assert.deepEqual(v.problems, []);
});

test('without the store a frame is answered with EAGAIN, never with an ack', async () => {
  const v = s.visitor();
  await v.connect();
  await v.say('hello').ack;
  await s.redis.kill();
  await until('the gateway has noticed', async () => (await s.get('/readyz')).status === 503, 15000);
  const said = v.say('nobody is there');
  await assert.rejects(said.ack, { code: 'EAGAIN' });
  s.redis.start();
  await s.readyGateway(s.gateways[0]);
  await until('the same again is taken', () => { v.send(said.frame); return v.acked.has(said.id); }, 15000, 200);
});
