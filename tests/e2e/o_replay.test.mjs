// `sluice record` and `sluice replay`: the logs of a real talk, run again, give the very bytes of the fact logs.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { BIN, startSluice } from './lib/sluice.mjs';

const run = (args, options = {}) => spawnSync(BIN, args, { encoding: 'utf8', maxBuffer: 64 << 20, ...options });

async function talk(s) {
  const agent = await s.agent('anna');
  await agent.connect();
  const visitor = s.visitor();
  await visitor.connect();
  await visitor.say('hello 你好').ack;
  await visitor.entry(d => d.m.by === 'bot');
  await visitor.say('a person, please: 人工').ack;
  const offer = await agent.entry(d => d.t === 'offered');
  const topic = `conv:${offer.c}`;
  const { snap } = await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  await agent.say('"quoted" \\ and \u0001 控制', { topic }).res;
  await agent.cmd('conv.close', { control: snap.state.epoch }, { topic }).res;
  await visitor.entry(d => d.m.data?.code === 'rate');
  return offer.c.split('.')[0];
}

test('a recorded talk, replayed twice, is the same bytes as the fact log', async () => {
  const s = await startSluice();
  const tag = await talk(s), config = path.join(s.dir, 'gateway1.yaml');
  for (const k of [tag, 'desk:demo']) {
    const recorded = run(['record', '--config', config, k]);
    assert.equal(recorded.status, 0, recorded.stderr);
    const file = path.join(s.dir, 'talk.jsonl');
    fs.writeFileSync(file, recorded.stdout);
    const first = run(['replay', file]), second = run(['replay', file]);
    assert.equal(first.status, 0, first.stderr);
    assert.equal(first.stdout, second.stdout);
    // What was recorded is as long as the fact log then was; it may have grown since.
    const batches = recorded.stdout.split('\n').filter(line => line.startsWith('{"batch"')).length;
    const out = await s.redisClient.xrange(`out:{${k}}`, '-', '+', 'COUNT', batches);
    const facts = out.flatMap(([, fields]) => fields.filter((_, i) => i % 2 === 1 && fields[i - 1] === 'f'));
    assert.ok(facts.length >= (k === tag ? 10 : 3), `${facts.length} facts`);
    assert.equal(first.stdout, facts.map(f => `${f}\n`).join(''));
  }
  await s.redisClient.xtrim(`in:{${tag}}`, 'MAXLEN', 1);
  const trimmed = run(['record', '--config', config, tag]);
  assert.equal(trimmed.status, 65);
  assert.match(trimmed.stderr, /was trimmed/);
  await s.stop();
});
