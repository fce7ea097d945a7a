// Agents: login, an offer, taking it, answering, notes, transfer, closing, refusals, and a visitor on another gateway.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { startSluice, until, PASSWORD } from './lib/sluice.mjs';

let s;
before(async () => {
  s = await startSluice({
    gateways: 2,
    config: {
      agents: { anna: { queues: ['default', 'billing'] } },
      rules: { presence_ms: 3000, accept_ms: 20000 }, gateway: { alive: '500ms', heartbeat: '2s' },
    },
  });
});
after(async () => { await s.stop(); });

const offerTo = (agent, fits = () => true) => agent.entry(d => d.t === 'offered' && fits(d));

// A visitor who asked for a person, and the agent's offer.
async function waiting(agent) {
  const visitor = s.visitor({ gateway: 1 });
  await visitor.connect();
  await visitor.say('人工').ack;
  const { m } = await visitor.entry(d => d.m.data?.code === 'queued');
  const offer = await offerTo(agent, d => d.c === m.conversation);
  return { visitor, conv: offer.c, ticket: offer.tk, topic: `conv:${offer.c}` };
}

const controlOf = (agent, topic) => {
  const seen = agent.frames.filter(f => f.topic === topic && (f.t === 'ev' || f.t === 'ok'));
  const entries = seen.flatMap(f => (f.t === 'ok' ? f.snap?.entries ?? [] : [f.d]));
  return Math.max(...entries.map(e => e.ce));
};

async function taken(agent) {
  const w = await waiting(agent);
  const ok = await agent.sub(w.topic);
  assert.equal(ok.t, 'ok', JSON.stringify(ok));
  assert.equal(ok.snap.state.control, 'offered'); // she hears of it when the conversation has taken it
  const accept = agent.cmd('conv.accept', { ticket: w.ticket }, { topic: w.topic });
  await accept.ack;
  await accept.res;
  await w.visitor.entry(d => d.m.data?.code === 'agent_joined');
  return { ...w, control: controlOf(agent, w.topic) };
}

async function leave(...clients) { for (const c of clients) { c.close(); await c.whenClosed; } }

test('a wrong password, an unknown name and a wrong token are all refused alike', async () => {
  const wrong = await s.post('/v1/login', { tenant: 'demo', name: 'anna', password: 'not this' });
  const unknown = await s.post('/v1/login', { tenant: 'demo', name: 'nobody', password: PASSWORD });
  assert.equal(wrong.status, 401);
  assert.deepEqual(wrong, unknown);
  const agent = s.client({ role: 'agent', token: 'x'.repeat(43) });
  await assert.rejects(agent.connect(), { code: 4401 });
});

test('a visitor asks for a person, an agent on another gateway takes it, answers and closes', async () => {
  const agent = await s.agent('anna');
  const welcome = await agent.connect();
  assert.equal(welcome.me.agent, 'anna');
  const { visitor, topic, control } = await taken(agent);
  const reply = agent.cmd('message.send', { text: '您好，我是安娜', control }, { topic });
  assert.equal((await reply.res).ok, true);
  const shown = await visitor.entry(d => d.m.by === 'agent');
  assert.equal(shown.m.text, '您好，我是安娜');
  const note = agent.cmd('conv.note', { text: 'only for us' }, { topic });
  await note.res;
  await visitor.say('thank you').res;
  await agent.entry(d => d.m?.text === 'thank you', 10000, topic);
  const close = agent.cmd('conv.close', { control }, { topic });
  await close.ack;
  await visitor.entry(d => d.m.data?.code === 'rate' || d.m.data?.code === 'closed');
  const rate = visitor.cmd('message.rate', { score: 5 });
  await rate.ack;
  await visitor.entry(d => d.m.data?.code === 'rated');
  assert.equal(visitor.frames.some(f => JSON.stringify(f).includes('only for us')), false, 'a note is never shown to a visitor');
  assert.deepEqual([...agent.problems, ...visitor.problems], []);
  await leave(agent);
});

test('a stale control epoch is refused and never stands in the history', async () => {
  const agent = await s.agent('anna');
  await agent.connect();
  const { visitor, topic, control } = await taken(agent);
  const late = agent.cmd('message.send', { text: 'too late', control: control - 1 }, { topic });
  await late.ack;
  const res = await late.res;
  assert.equal(res.ok, false);
  assert.equal(typeof res.code, 'string');
  const close = agent.cmd('conv.close', { control }, { topic });
  await close.res;
  await visitor.entry(d => d.m.data?.code === 'closed' || d.m.data?.code === 'rate');
  assert.equal(visitor.frames.some(f => JSON.stringify(f).includes('too late')), false);
  await leave(agent);
});

test('transfer gives the conversation to another line, and the first agent can no longer speak', async () => {
  const agent = await s.agent('anna');
  await agent.connect();
  const { visitor, topic, control } = await taken(agent);
  const transfer = agent.cmd('conv.transfer', { control, queue: 'billing', reason: 'money' }, { topic });
  await transfer.ack;
  await visitor.entry(d => d.m.data?.code === 'transferred' || d.m.data?.code === 'queued' || d.m.data?.code === 'requeued');
  const late = agent.cmd('message.send', { text: 'still me?', control }, { topic });
  await late.ack;
  assert.equal((await late.res).ok, false);
  await leave(agent);
});

test('another conversation, tenant or line is not hers to read or to speak in', async () => {
  const agent = await s.agent('ben');
  await agent.connect();
  const stranger = s.visitor();
  await stranger.connect();
  await stranger.say('hello').res;
  const { m } = await stranger.entry(d => d.m.by === 'bot');
  const answer = await agent.sub(`conv:${m.conversation}`);
  assert.equal(answer.t, 'err');
  assert.equal(answer.code, 'EDENIED');
  await assert.rejects(agent.say('hi', { topic: `conv:${m.conversation}` }).ack, { code: 'EDENIED' });
  await assert.rejects(stranger.cmd('conv.close', { control: 1 }).ack, { code: 'EDENIED' });
  assert.equal((await agent.sub('queue')).t, 'ok');
  await leave(agent);
});

test('an agent whose gateway is killed loses the conversation to the next one, with its place', async () => {
  const anna = await s.agent('anna', { gateway: 1 });
  await anna.connect();
  const { visitor, conv } = await (async () => {
    const w = await taken(anna);
    return w;
  })();
  await s.gateways[1].kill();
  const ben = await s.agent('ben');
  await ben.connect();
  const offer = await offerTo(ben, d => d.c === conv);
  assert.equal(offer.c, conv);
  s.gateways[1].start();
  await s.readyGateway(s.gateways[1]);
  visitor.url = s.wsUrl(1);
  await visitor.connect();
  const accept = ben.cmd('conv.accept', { ticket: offer.tk }, { topic: `conv:${conv}` });
  await accept.ack;
  await until('the visitor sees the new agent', () => visitor.frames.filter(f => f.d?.m?.data?.code === 'agent_joined').length >= 2);
  assert.deepEqual(visitor.problems, []);
  await leave(ben);
});

test('an agent who resumes on another gateway is there, though the old socket ends later', async () => {
  const old = await s.agent('anna', { gateway: 0 });
  await old.connect();
  const agent = s.client({ role: 'agent', token: old.token, gateway: 1 });
  agent.session = old.session;
  assert.equal((await agent.connect()).session, old.session);
  await leave(old); // its gateway tells the desk: offline
  const { visitor, topic, control } = await taken(agent);
  await agent.cmd('conv.close', { control }, { topic }).ack;
  await visitor.entry(d => d.m.data?.code === 'closed');
  await leave(agent);
});

test('resuming goes on numbering in each topic', async () => {
  const agent = await s.agent('anna');
  await agent.connect();
  const { topic, control } = await taken(agent);
  await agent.cmd('conv.note', { text: 'first' }, { topic }).ack;
  const session = agent.session;
  agent.drop();
  await agent.whenClosed;
  const welcome = await agent.connect();
  assert.equal(welcome.session, session);
  const ok = await agent.sub(topic, agent.topic(topic).pos);
  assert.equal(ok.t, 'ok', JSON.stringify(ok));
  assert.equal(ok.n, 2);
  await agent.cmd('conv.close', { control }, { topic }).ack;
  assert.deepEqual(agent.problems, []);
  await leave(agent);
});

test('a one-time token logs in once', async () => {
  const { createHash } = await import('node:crypto');
  const token = 'one-time-token-for-the-test';
  await s.redisClient.set(`once:${createHash('sha256').update(token).digest('hex')}`, JSON.stringify({ tenant: 'demo', agent: 'anna' }), 'PX', 60000);
  const first = await s.post('/v1/login', { once: token });
  assert.equal(first.status, 200);
  assert.equal(first.body.agent, 'anna');
  assert.equal((await s.post('/v1/login', { once: token })).status, 401);
});
