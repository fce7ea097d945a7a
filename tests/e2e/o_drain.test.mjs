// Ending: TERM under load with many sockets open; nothing that was acknowledged is lost, every process ends clean and in time.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import https from 'node:https';
import { startSluice, until, sleep } from './lib/sluice.mjs';

const SOCKETS = Number(process.env.SLUICE_TEST_SOCKETS ?? 1000);

test(`TERM with ${SOCKETS} sockets open and commands in flight: bye, 1012, exit 0 in time, nothing lost`, async () => {
  const s = await startSluice({ gateways: 2, config: { gateway: { drain: '6s' } } });
  const idle = [];
  for (let i = 0; i < SOCKETS; i += 50) {
    const some = Array.from({ length: Math.min(50, SOCKETS - i) }, () => s.visitor());
    await Promise.all(some.map(v => v.connect()));
    idle.push(...some);
  }
  const talkers = Array.from({ length: 10 }, () => s.visitor({ reconnect: true }));
  await Promise.all(talkers.map(v => v.connect()));
  const sent = new Map(talkers.map(v => [v, []]));
  let isTalking = true;
  const talking = Promise.all(talkers.map(async v => {
    while (isTalking) {
      const c = v.say('hello');
      c.res.catch(() => {});
      sent.get(v).push(c);
      await sleep(10);
    }
  }));
  await sleep(500);
  for (const v of talkers) v.url = s.wsUrl(1);
  const started = Date.now();
  const exit = await s.gateways[0].term(10000);
  const took = Date.now() - started;
  isTalking = false;
  await talking;
  assert.deepEqual(exit, { code: 0, signal: null }, s.gateways[0].output.slice(-3000));
  assert.ok(took < 6500, `ended after ${took} ms`);
  assert.match(s.gateways[0].output, /ended cleanly/);
  const codes = await Promise.all(idle.map(v => v.whenClosed));
  assert.equal(codes.filter(c => c.code === 1012).length, SOCKETS);
  assert.equal(idle.filter(v => v.frames.some(f => f.t === 'bye' && f.after.length === 2)).length, SOCKETS);
  await until('every command is acknowledged, by the other gateway', () => {
    for (const v of talkers) for (const c of v.topic('me').pending) v.send(c);
    return talkers.every(v => sent.get(v).every(c => v.acked.has(c.id) || v.topic('me').pending.every(p => p.id !== c.id)));
  }, 20000, 500);
  await until('every message is shown', () => talkers.every(v => sent.get(v).every(c => v.shown().some(x => x.id === c.id))), 20000, 100);
  for (const v of talkers) {
    const own = v.shown().filter(x => sent.get(v).some(c => c.id === x.id)).map(x => x.id);
    assert.deepEqual(own, sent.get(v).map(c => c.id), 'once each, in order');
    assert.deepEqual(v.problems, []);
  }
  await s.stop();
});

test('TERM without the store ends too', async () => {
  const s = await startSluice({ config: { gateway: { drain: '2s' } } });
  const v = s.visitor();
  await v.connect();
  await s.redis.kill();
  v.say('into the dark').ack.catch(() => {});
  const exit = await s.gateways[0].term(6000);
  assert.equal(exit.code, 0);
  await s.stop({ check: false });
});

test('HUP takes over agents and origins, and a wrong file changes nothing', async () => {
  const s = await startSluice({ config: { inboxes: { web: { origins: ['https://one.example'] } } } });
  const file = path.join(s.dir, 'gateway1.yaml');
  await assert.rejects(s.visitor({ origin: 'https://two.example' }).connect(), { code: 4403 });
  const config = JSON.parse(fs.readFileSync(file, 'utf8'));
  config.inboxes.web.origins = ['https://two.example'];
  config.agents.carla = { ...config.agents.anna };
  fs.writeFileSync(file, JSON.stringify(config));
  s.gateways[0].hup();
  await until('the new origin may connect', async () => s.visitor({ origin: 'https://two.example' }).connect().then(() => true, () => false));
  assert.ok(await s.login('carla'));
  fs.writeFileSync(file, '{"nonsense": 1}');
  s.gateways[0].hup();
  await until('the log says so', () => /configuration is wrong/.test(s.gateways[0].output));
  await s.visitor({ origin: 'https://two.example' }).connect();
  await s.stop();
});

test('TLS: HTTP/1.1 only, and a new certificate after HUP', async () => {
  const s = await startSluice({ gateways: 0, bots: 0 });
  const make = name => {
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1', '-subj', `/CN=${name}`,
      '-keyout', `${s.dir}/tls.key`, '-out', `${s.dir}/tls.crt`]);
    assert.equal(made.status, 0, String(made.stderr));
  };
  make('first');
  const gateway = await s.addGateway({ gateway: { tls_cert: `${s.dir}/tls.crt`, tls_key: `${s.dir}/tls.key` } });
  gateway.start();
  const look = () => new Promise((resolve, reject) => {
    const rq = https.get({ port: gateway.port, host: '127.0.0.1', path: '/livez', rejectUnauthorized: false, ALPNProtocols: ['h2', 'http/1.1'], agent: false }, rs => {
      resolve({ name: rs.socket.getPeerCertificate().subject.CN, alpn: rs.socket.alpnProtocol, status: rs.statusCode });
      rs.resume();
    });
    rq.on('error', reject);
  });
  const first = await until('TLS answers', () => look().catch(() => null));
  assert.deepEqual(first, { name: 'first', alpn: 'http/1.1', status: 200 });
  make('second');
  gateway.hup();
  await until('the new certificate is used', async () => (await look()).name === 'second');
  await s.stop();
});
