// Bots: the two of docs/write-a-bot.md in their own languages, a killed worker, late and second answers, handing over.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { startSluice, until, sleep } from './lib/sluice.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const PYTHON = process.env.SLUICE_PYTHON ?? '/usr/bin/python3';        // Debian's: python3-redis belongs to it
const EXAMPLES = path.join(ROOT, 'examples/bots');

const inbox = bot => ({ channel: 'webchat', tenant: 'demo', secret: 'an inbox secret for tests', rate: 0, bot });
let s;
before(async () => {
  s = await startSluice({
    bots: 0,
    config: {
      inboxes: { py: inbox('py'), js: inbox('js'), slow: inbox('slow'), mute: inbox('mute'), late: inbox('late') },
      rules: { bot_answer_ms: 60000 },
    },
  });
});
after(async () => { await s.stop(); });

const answersOf = v => v.frames.filter(f => f.t === 'ev' && f.topic === 'me' && f.d.m.by === 'bot').map(f => f.d.m.text);
const isCode = code => d => d.m.by === 'system' && d.m.data?.code === code;

async function visitor(inboxName) {
  const v = s.visitor({ inbox: inboxName });
  await v.connect();
  return v;
}

async function example(name, command, args, env) {
  const proc = s.add(name, command, args, env).start();
  try {
    const v = await visitor(name);
    await v.say('hello you').res;
    const answer = await v.entry(d => d.m.by === 'bot', 15000);
    assert.equal(answer.m.text, 'You said: hello you');
    await v.say('and again').res;
    await v.entry(d => d.m.text === 'You said: and again');
    const pending = await s.redisClient.xpending(`bot:${name}`, 'workers');
    await until('the tasks are acknowledged', async () => (await s.redisClient.xpending(`bot:${name}`, 'workers'))[0] === 0);
    assert.ok(pending);
    assert.deepEqual(v.problems, []);
  } catch (error) {
    error.message += `\n${name}: ${proc.output.slice(-2000)}`;
    throw error;
  } finally {
    await proc.kill();
  }
}

test('the bot in Python answers', async () => {
  await example('py', PYTHON, [path.join(EXAMPLES, 'bot.py')], { SLUICE_STORE: `unix://${s.dir}/redis.sock`, SLUICE_BOT: 'py' });
});

test('the bot in JavaScript answers', async () => {
  // Found as a user finds it: beside the packages of tests/.
  const run = `import(${JSON.stringify(path.join(s.dir, 'bot.mjs'))})`;
  const fs = await import('node:fs');
  fs.copyFileSync(path.join(EXAMPLES, 'bot.mjs'), path.join(s.dir, 'bot.mjs'));
  fs.symlinkSync(path.join(ROOT, 'tests/node_modules'), path.join(s.dir, 'node_modules'));
  await example('js', process.execPath, ['-e', run], { SLUICE_STORE: `${s.dir}/redis.sock`, SLUICE_BOT: 'js' });
});

test('the task of a killed worker is taken over and answered once', async () => {
  const slow = s.role('slow1', 'bot', { bot: { name: 'slow', delay: '60s' } }).start();
  const v = await visitor('slow');
  await v.say('hello').res;
  await until('the slow worker holds the task', async () => {
    const groups = await s.redisClient.xpending('bot:slow', 'workers').catch(() => [0]);
    return groups[0] === 1;
  });
  await slow.kill();
  assert.deepEqual(answersOf(v), []);
  const other = s.addBot({ bot: { name: 'slow', claim_after: '1s' } }).start();
  await v.entry(d => d.m.by === 'bot', 15000);
  await sleep(300);
  assert.equal(answersOf(v).length, 1);
  assert.match(other.output, /tasks taken over/);
});

// A bot of the test's own: one task in hand, answered by hand.
async function taskOf(name) {
  await s.redisClient.xgroup('CREATE', `bot:${name}`, 'workers', '0', 'MKSTREAM').catch(() => {});
  const reader = s.redisClient.duplicate();
  const read = await reader.xreadgroup('GROUP', 'workers', 'test', 'COUNT', 1, 'BLOCK', 5000, 'STREAMS', `bot:${name}`, '>');
  reader.disconnect();
  const [, fields] = read[0][1][0];
  const task = {};
  for (let i = 0; i < fields.length; i += 2) task[fields[i]] = fields[i + 1];
  return task;
}
const give = (task, text, more = {}) => s.redisClient.xadd(task.rt, '*', ...Object.entries(
  { t: 'answer', c: task.c, ce: task.ce, tn: task.tn, x: text, ...more }).flat());

async function refusalsOf(conv) {
  const tag = conv.split('.')[0];
  const found = [];
  for (const [, fields] of await s.redisClient.xrange(`out:{${tag}}`, '-', '+'))
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== 'f') continue;
      const at = fields[i + 1].indexOf('{');
      const fact = at >= 0 ? JSON.parse(fields[i + 1].slice(at)) : {};
      const event = fact.t === 'refusal' ? fact : fact.e;
      if (event?.t === 'refusal' && event.c === conv) found.push(event.r);
    }
  return found;
}

test('a second answer of a turn, and one for an old turn, are refused and recorded', async () => {
  const v = await visitor('mute');
  await v.say('what is the first question?').res;
  const first = await taskOf('mute');
  assert.equal(first.x, 'what is the first question?');
  assert.ok(Number(first.due) > Date.now());
  await give(first, 'one');
  await give(first, 'one again');
  await v.entry(d => d.m.text === 'one');
  await v.say('what is the second question?').res;
  const second = await taskOf('mute');
  await give(first, 'late answer to the first');
  await give(second, 'two');
  await v.entry(d => d.m.text === 'two');
  await sleep(200);
  assert.deepEqual(answersOf(v), ['one', 'two']);
  assert.deepEqual(await refusalsOf(first.c), ['answered', 'stale_turn']);
  assert.deepEqual(v.problems, []);
});

test('an answer made before the conversation went to a person is never shown', async () => {
  const v = await visitor('late');
  await v.say('a question for the slow one?').res;
  const task = await taskOf('late');
  await v.say('转人工').res;
  await v.entry(isCode('queued'));
  await give(task, 'too late');
  await until('the refusal is recorded', async () => (await refusalsOf(task.c)).length === 1);
  assert.deepEqual(await refusalsOf(task.c), ['stale']);
  assert.deepEqual(answersOf(v), []);
});

test('the FAQ bot hands over at a word of its list, and when it was unsure twice', async () => {
  s.addBot().start();
  const one = await visitor('web');
  await one.say('I will call my lawyer.').res;
  await one.entry(isCode('queued'));
  assert.equal(answersOf(one).length, 1);
  const two = await visitor('web');
  await two.say('qwertz uiop asdf?').res;
  await two.entry(d => d.m.by === 'bot');
  assert.ok(!two.frames.some(f => f.t === 'ev' && isCode('queued')(f.d)));
  await two.say('yxcv bnmq wert?').res;
  await two.entry(isCode('queued'));
  assert.equal(answersOf(two).length, 2);
});

test('a worker that ends leaves no name behind', async () => {
  const bot = s.role('tidy', 'bot', { bot: { name: 'tidy', consumer: 'tidy-1' } }).start();
  await until('the worker reads', async () => {
    const names = await s.redisClient.xinfo('CONSUMERS', 'bot:tidy', 'workers').catch(() => []);
    return names.length === 1;
  });
  assert.deepEqual(await bot.term(), { code: 0, signal: null });
  assert.deepEqual(await s.redisClient.xinfo('CONSUMERS', 'bot:tidy', 'workers'), []);
});
