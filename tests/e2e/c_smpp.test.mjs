// SMPP against message centres that nobody here wrote: the npm package smpp as the provider, Perl's Net::SMPP as a second opinion.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createRequire } from 'node:module';
import { freePort, sleep, startSluice, until } from './lib/sluice.mjs';

const smpp = createRequire(import.meta.url)('smpp');
const account = (port, more = {}) => ({ inboxes: { sms: { channel: 'smpp', tenant: 'demo', bot: 'faq', host: '127.0.0.1', port, system_id: 'sluice', password: 'secret08',
  reconnect_max: '1s', send_rate: 1000, ...more } } });
const HELLO = 'Hello! 您好！';

async function conversation(s, address) {
  const key = await until(`${address} has a conversation`, async () => (await s.redisClient.keys(`addr:*demo/sms/${address}`))[0]);
  return JSON.parse(await s.redisClient.hget(key, 's')).c;
}
async function history(s, address) {
  const conv = await conversation(s, address);
  return (await s.redisClient.lrange(`log:{${conv.split('.')[0]}}:${conv}`, 0, -1)).map(e => JSON.parse(e));
}
const states = entries => entries.filter(e => e.m.data?.code === 'delivery').map(e => e.m.data.state);
const visitors = entries => entries.filter(e => e.m.by === 'visitor').map(e => e.m.text);

// A message centre: takes binds and submit_sm, delivers what customers write until it is answered 0.
class Centre {
  constructor(options = {}) {
    Object.assign(this, { submits: [], sessions: new Set(), answer: () => ({ message_id: (this.submits.length).toString(16) }), next: 1, ...options });
    this.server = smpp.createServer(options.tls ?? {}, session => this.take(session));
  }
  async start() {
    this.port = await freePort();
    await new Promise(resolve => { this.server.listen(this.port, '127.0.0.1', resolve); });
    return this;
  }
  take(session) {
    session.on('bind_transceiver', pdu => {
      session.send(pdu.response({ system_id: 'centre' }));
      this.bind = pdu;
      this.sessions.add(session);
    });
    session.on('submit_sm', pdu => {
      this.submits.push(pdu);
      const answer = this.answer(pdu, session);
      if (answer) session.send(pdu.response(answer));
    });
    session.on('enquire_link', pdu => session.send(pdu.response()));
    session.on('unbind', pdu => { session.send(pdu.response()); session.close(); });
    for (const event of ['close', 'error']) session.on(event, () => this.sessions.delete(session));
  }
  bound() { return until('a bind', () => this.sessions.size > 0); }
  // As a centre does: again on the next session when no good answer came.
  async deliver(fields, tries = 40) {
    for (let i = 0; i < tries; i++) {
      const session = [...this.sessions].at(-1);
      const answered = session && await new Promise(resolve => {
        session.setMaxListeners(0);
        session.once('close', () => resolve(null));
        try { session.deliver_sm({ source_addr_ton: 1, source_addr_npi: 1, destination_addr: '10690', ...fields }, resolve); } catch { resolve(null); }
      });
      if (answered?.command_status === 0) return answered;
      await sleep(100);
    }
    throw new Error('never taken');
  }
  cut() { for (const s of this.sessions) s.destroy(); this.sessions.clear(); }
  stop() { this.cut(); return new Promise(resolve => { this.server.close(resolve); }); }
}
const textOf = pdu => pdu.short_message.message;

test('a customer asks by SMS, the bot answers, receipts in another base are matched, long answers come in parts', async () => {
  const centre = await new Centre().start();
  const s = await startSluice({ config: account(centre.port, { message_ids: 'hex-dec' }) });
  await centre.bound();
  assert.equal(centre.bind.system_id, 'sluice');
  assert.equal(centre.bind.interface_version, 0x34);
  await until('the inbox is ready', async () => await s.metric('sluice_smpp_bound') === 1);

  // the receipt overtakes the answer, and writes the id in decimal
  centre.answer = (pdu, session) => {
    const id = 0xa1b0 + centre.submits.length;
    session.deliver_sm({ source_addr_ton: 1, source_addr_npi: 1, source_addr: pdu.destination_addr, destination_addr: pdu.source_addr, esm_class: 4,
      short_message: `id:${String(id).padStart(10, '0')} sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:` });
    setTimeout(() => session.send(pdu.response({ message_id: id.toString(16).toUpperCase() })), 50);
  };
  await centre.deliver({ source_addr: '8613800138000', short_message: '你好' });
  await until('the answer', () => centre.submits.length === 1);
  const [reply] = centre.submits;
  assert.equal(textOf(reply), HELLO);
  assert.equal(reply.destination_addr, '8613800138000');
  assert.equal(reply.dest_addr_ton, 1);
  assert.equal(reply.source_addr, '10690'); // the number the customer wrote to
  assert.equal(reply.data_coding, 8);
  assert.equal(reply.registered_delivery, 1);
  const entries = await until('the receipt in the history', async () => {
    const all = await history(s, '+8613800138000');
    return states(all).includes('delivered') && all;
  });
  assert.deepEqual(visitors(entries), ['你好']);

  // an agent writes more than one message holds
  const agent = await s.agent('anna');
  await agent.connect();
  await centre.deliver({ source_addr: '8613800138000', short_message: '人工' });
  const offer = await agent.entry(d => d.t === 'offered');
  const topic = `conv:${offer.c}`;
  await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  const before = centre.submits.length, long = '您的订单已由人工客服受理，请耐心等待。'.repeat(8);
  await agent.say(long, { topic }).res;
  await until('the parts', () => centre.submits.slice(before).filter(p => p.esm_class & 0x40).length === 3);
  const parts = centre.submits.slice(before).filter(p => p.esm_class & 0x40);
  assert.equal(parts.map(textOf).join(''), long);
  assert.deepEqual(parts.map(p => [...p.short_message.udh[0].subarray(-2)]), [[3, 1], [3, 2], [3, 3]]);
  await until('all parts delivered', async () => states(await history(s, '+8613800138000')).filter(x => x === 'delivered').length >= 2);
  await s.stop();
  await centre.stop();
});

test('a throttled part of a long message is the one that is sent next', async () => {
  const centre = await new Centre().start();
  const s = await startSluice({ config: account(centre.port, { window: 4 }) });
  await centre.bound();
  const to = '8613800138009';
  await centre.deliver({ source_addr: to, short_message: '人工' });
  const agent = await s.agent('anna');
  await agent.connect();
  const offer = await agent.entry(d => d.t === 'offered'), topic = `conv:${offer.c}`;
  await agent.sub(topic);
  await agent.cmd('conv.accept', { ticket: offer.tk }, { topic }).res;
  await until('all outcomes so far', async () => states(await history(s, `+${to}`)).filter(x => x === 'sent').length >= 2);
  const long = '您的订单已由人工客服受理，请耐心等待。'.repeat(8), place = p => p.short_message.udh[0].at(-1);
  const from = centre.submits.length;
  let throttled = 0;
  centre.answer = pdu => place(pdu) === 2 && throttled++ < 2 ? { command_status: smpp.ESME_RTHROTTLED } : { message_id: `9${centre.submits.length}` };
  await agent.say(long, { topic }).res;
  await until('three parts are there', async () => states(await history(s, `+${to}`)).filter(x => x === 'sent').length >= 3, 30000);
  const given = centre.submits.slice(from);
  assert.deepEqual(given.map(place), [1, 2, 3, 2, 2]); // none again that was taken
  assert.equal(new Set(given.map(p => p.short_message.udh[0].subarray(0, -1).toString('hex'))).size, 1); // one reference: the handset joins them
  assert.equal([given[0], given[4], given[2]].map(textOf).join(''), long);
  // its receipt needs all three
  const receipt = n => centre.deliver({ source_addr: to, destination_addr: '10690', esm_class: 4,
    short_message: `id:9${from + n} sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:` });
  const said = (await history(s, `+${to}`)).find(e => e.m.text === long).n;
  const delivered = async () => (await history(s, `+${to}`)).some(e => e.m.data?.code === 'delivery' && e.m.data.of === said && e.m.data.state === 'delivered');
  await receipt(1);
  await receipt(3);
  assert.equal(await delivered(), false);
  await receipt(5);
  await until('delivered', delivered);
  await s.stop();
  await centre.stop();
});

test('sessions break under load: no message is lost, doubled or sent twice, and every outcome is told', async () => {
  const centre = await new Centre().start();
  const s = await startSluice({ config: account(centre.port, { binds: 2, window: 5 }) });
  await centre.bound();
  const customers = Array.from({ length: 20 }, (_, i) => `86139000000${String(i).padStart(2, '0')}`);
  let cuts = 0;
  const cutting = setInterval(() => { cuts += centre.sessions.size > 0; centre.cut(); }, 300);
  await Promise.all(customers.map(async (source_addr, i) => {
    for (let n = 0; n < 6; n++) {
      await centre.deliver({ source_addr, short_message: `hello ${n}` }, 200);
      await sleep(100 * (i % 4));
    }
  }));
  clearInterval(cutting);
  assert.ok(cuts >= 3, `${cuts} cuts`);
  for (const c of customers) {
    const all = await until(`all outcomes for ${c}`, async () => {
      const list = await history(s, `+${c}`);
      const said = list.filter(e => e.v > 0 && e.m.by !== 'visitor').length;
      return visitors(list).length >= 6 && said > 0 && states(list).filter(x => ['sent', 'failed', 'unknown'].includes(x)).length === said && list;
    }, 20000);
    assert.deepEqual(visitors(all), [0, 1, 2, 3, 4, 5].map(n => `hello ${n}`));
    const given = centre.submits.filter(p => p.destination_addr === c).length;
    assert.ok(given <= all.filter(e => e.v > 0 && e.m.by !== 'visitor').length, `${c} was given ${given} messages`);
    assert.ok(given >= states(all).filter(x => x === 'sent').length, 'nothing is shown as sent that was not');
  }
  await s.stop();
  await centre.stop();
});

test('parts of a long message come over two binds and out of order, and are one', async () => {
  const centre = await new Centre().start();
  const s = await startSluice({ config: account(centre.port, { binds: 2 }) });
  await until('two binds', () => centre.sessions.size === 2);
  const text = '【客服】您的订单已由人工客服受理😀'.repeat(9), octets = Buffer.from(text, 'utf16le').swap16(), [a, b] = [...centre.sessions];
  const cut = [octets.subarray(0, 131), octets.subarray(131, 262), octets.subarray(262)]; // inside a character: bytes are joined, then read
  const send = (session, i) => new Promise(resolve => {
    session.deliver_sm({ source_addr_ton: 1, source_addr: '8613700000000', destination_addr: '10690', esm_class: 0x40, data_coding: 8,
      short_message: Buffer.concat([Buffer.from([5, 0, 3, 0x7a, 3, i + 1]), cut[i]]) }, resolve);
  });
  assert.equal((await send(a, 2)).command_status, 0);
  assert.equal((await send(b, 0)).command_status, 0);
  assert.equal((await send(b, 1)).command_status, 0);
  assert.deepEqual(visitors(await history(s, '+8613700000000')), [text]);
  await s.stop();
  await centre.stop();
});

test('while the store is down deliver_sm is answered 0x64, and taken when it is back', async () => {
  const centre = await new Centre().start();
  const s = await startSluice({ config: account(centre.port) });
  await centre.bound();
  await s.redis.kill();
  const [session] = centre.sessions;
  const answer = await new Promise(resolve => {
    session.deliver_sm({ source_addr_ton: 1, source_addr: '8613600000000', destination_addr: '10690', short_message: 'hello' }, resolve);
  });
  assert.equal(answer.command_status, 0x64);
  fs.rmSync(`${s.dir}/redis.sock`, { force: true });
  s.redis.start();
  await centre.deliver({ source_addr: '8613600000000', short_message: 'hello' }, 100);
  assert.deepEqual(visitors(await history(s, '+8613600000000')), ['hello']);
  await s.stop();
  await centre.stop();
});

test('malformed PDUs are answered and counted, and nothing is lost', async () => {
  const centre = await new Centre().start();
  const s = await startSluice({ config: account(centre.port) });
  await centre.bound();
  const [session] = centre.sessions, raw = [];
  session.socket.on('data', d => raw.push(d));
  const pdu = (id, seq, body = '') => { const b = Buffer.from(body, 'hex'), h = Buffer.alloc(16); h.writeUInt32BE(16 + b.length); h.writeUInt32BE(id, 4); h.writeUInt32BE(seq, 12); return Buffer.concat([h, b]); };
  const overrun = '00010138363133383030313338303030000001313036393031323334350000000000000000' + '0800c84eba5de5';
  session.socket.write(Buffer.concat([pdu(5, 901, overrun), pdu(0x77, 902), pdu(0x0b, 903, '0000')]));
  const seen = id => Buffer.concat(raw).toString('hex').includes(id);
  await until('ESME_RINVCMDLEN', () => seen('00000010800000050000000200000385'));
  await until('generic_nack', () => seen('00000010800000000000000300000386'));
  await until('outbind is refused', () => seen('00000010800000000000000300000387'));
  assert.equal(await s.metric('sluice_smpp_malformed_total'), 2);
  await centre.deliver({ source_addr: '8613500000000', short_message: 'hello' });
  session.socket.write(Buffer.from('7fffffff000000150000000000000001', 'hex')); // the stream cannot be followed any more
  await until('generic_nack for the length', () => seen('00000010800000000000000200000000'));
  await until('another session', () => centre.sessions.size === 1 && ![...centre.sessions].includes(session));
  await centre.deliver({ source_addr: '8613500000000', short_message: 'hello again' });
  assert.deepEqual(visitors(await history(s, '+8613500000000')), ['hello', 'hello again']);
  await s.stop();
  await centre.stop();
});

test('TLS: a certificate that is not good for the host is refused, a good one works', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'smpp-tls-'));
  const [key, cert] = [path.join(dir, 'key.pem'), path.join(dir, 'cert.pem')];
  const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', cert]);
  assert.equal(made.status, 0, String(made.stderr));
  const centre = await new Centre({ tls: { key: fs.readFileSync(key), cert: fs.readFileSync(cert) } }).start();
  const inbox = more => account(centre.port, { host: 'localhost', tls: true, ...more }).inboxes.sms;
  const s = await startSluice({ config: { inboxes: { sms: inbox({ tls_ca_file: cert }), wary: inbox({ system_id: 'wary' }) } } });
  await centre.bound();
  await centre.deliver({ source_addr: '8613400000000', short_message: 'hello' });
  await until('the answer', () => centre.submits.length === 1);
  assert.equal(textOf(centre.submits[0]), HELLO);
  assert.ok(s.gateways[0].output.includes('certificate'), 'the log says what is wrong');
  assert.equal(centre.bind.system_id, 'sluice');
  await s.stop();
  await centre.stop();
  fs.rmSync(dir, { recursive: true });
});

test("Perl's Net::SMPP as the message centre reads what we write, and is read", async () => {
  const script = String.raw`
    use Net::SMPP; use strict; $| = 1;
    sub deliver { $_[0]->deliver_sm(async => 1, seq => 77, source_addr_ton => 1, source_addr_npi => 1, source_addr => '8613300000000', destination_addr => '10690',
      data_coding => 8, short_message => pack('n*', 0x4f60, 0x597d)); }
    my $l = Net::SMPP->new_listen('127.0.0.1', port => $ARGV[0], smpp_version => 0x34) or die "listen: $!";
    print "listening\n";
    my $c = $l->accept or die;
    while (my $p = $c->read_pdu) {
      if ($p->{cmd} == 9) { $c->bind_transceiver_resp(seq => $p->{seq}, system_id => 'perl'); deliver($c); }
      elsif ($p->{cmd} == 4) { print "submit to=$p->{destination_addr} ton=$p->{dest_addr_ton} dcs=$p->{data_coding} text=", unpack('H*', $p->{short_message}), "\n"; $c->submit_sm_resp(seq => $p->{seq}, message_id => 'PERL0001'); }
      elsif ($p->{cmd} == 0x80000005) { print "answered $p->{seq} $p->{status}\n"; if ($p->{status} != 0) { select(undef, undef, undef, 0.2); deliver($c); } }
      elsif ($p->{cmd} == 0x15) { $c->enquire_link_resp(seq => $p->{seq}); }
      elsif ($p->{cmd} == 6) { $c->unbind_resp(seq => $p->{seq}); print "unbound\n"; last; }
    }`;
  const port = await freePort(), perl = spawn('perl', ['-e', script, String(port)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  perl.stdout.on('data', d => { said += d; });
  await until('Net::SMPP listens', () => said.includes('listening'));
  const s = await startSluice({ config: account(port) });
  await until('a submit', () => said.includes('submit '));
  assert.ok(said.includes('answered 77 0'));
  const hex = Buffer.from(HELLO, 'utf16le').swap16().toString('hex');
  assert.ok(said.includes(`submit to=8613300000000 ton=1 dcs=8 text=${hex}`), said);
  await until('the outcome', async () => states(await history(s, '+8613300000000')).includes('sent'));
  await s.stop();
  await until('it was unbound', () => said.includes('unbound'));
  perl.kill();
});

test('a stalled message centre: its port takes the connection and says nothing', async () => {
  const sockets = new Set(), server = net.createServer(socket => { sockets.add(socket); socket.on('error', () => {}); });
  const port = await freePort();
  await new Promise(resolve => { server.listen(port, '127.0.0.1', resolve); });
  const s = await startSluice({ config: account(port, { response_timeout: '1s' }) });
  await until('it was tried again', () => sockets.size >= 2, 15000);
  assert.equal(await s.metric('sluice_smpp_bound'), 0);
  await s.stop();
  for (const socket of sockets) socket.destroy();
  await new Promise(resolve => { server.close(resolve); });
});
