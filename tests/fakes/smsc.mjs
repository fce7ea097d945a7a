// A short message centre that speaks SMPP 3.4 (SMPP Protocol Specification v3.4, issue 1.2, sections 4 and 5): bind, submit_sm with every
// way to carry a long text, deliver_sm for customers' messages and receipts, enquire_link, throttling. The control port is HTTP.
//
// options: smpp_port, system_id, password, message_ids (hex|dec|uuid), mo_style (udh|sar|payload), enquire_ms, tps
// ports.smpp is where to bind.

import net from 'node:net';
import { Fake, hex, main, sleep } from './fake.mjs';

const ID = { generic_nack: 0x80000000, bind_receiver: 1, bind_transmitter: 2, query_sm: 3, submit_sm: 4, deliver_sm: 5, unbind: 6, bind_transceiver: 9, enquire_link: 0x15, data_sm: 0x103 };
const NAME = Object.fromEntries(Object.entries(ID).map(([k, v]) => [v, k]));
const OK = 0, INVCMDLEN = 2, INVCMDID = 3, INVBNDSTS = 4, SYSERR = 8, INVPASWD = 0x0e, INVMSGID = 0x0c, INVDSTADR = 0x0b, THROTTLED = 0x58;
const PDU_MAX_BYTES = 65536, ANSWER_MS = 10000, PUSH_TRIES = 20, RESPONSE = 0x80000000;
const STATES = { sent: ['ACCEPTD', 6], delivered: ['DELIVRD', 2], failed: ['UNDELIV', 5], enroute: ['ENROUTE', 1] };

// ---- the wire ----

const GSM = '@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u001bÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà';
const GSM_EXTRA = { '\f': 0x0a, '^': 0x14, '{': 0x28, '}': 0x29, '\\': 0x2f, '[': 0x3c, '~': 0x3d, ']': 0x3e, '|': 0x40, '€': 0x65 };
const EXTRA_GSM = Object.fromEntries(Object.entries(GSM_EXTRA).map(([k, v]) => [v, k]));

function gsmBytes(text) {
    const out = [];
    for (const c of text) {
        if (c in GSM_EXTRA) out.push(0x1b, GSM_EXTRA[c]);
        else if (c !== '\u001b' && GSM.includes(c)) out.push(GSM.indexOf(c));
        else return null;
    }
    return Buffer.from(out);
}

function gsmText(bytes) {
    let text = '';
    for (let i = 0; i < bytes.length; i++) text += bytes[i] === 0x1b && i + 1 < bytes.length ? EXTRA_GSM[bytes[++i]] ?? ' ' : GSM[bytes[i] & 0x7f];
    return text;
}

const ucs2 = text => Buffer.from(text, 'utf16le').swap16();
function decode(coding, bytes) {
    if (coding === 8 || (coding >> 2) === 6) return Buffer.from(bytes.subarray(0, bytes.length & ~1)).swap16().toString('utf16le');
    return coding === 3 ? bytes.toString('latin1') : gsmText(bytes);
}

const cstring = text => Buffer.concat([Buffer.from(String(text), 'latin1'), Buffer.alloc(1)]);
const tlv = (tag, value) => { const head = Buffer.alloc(4); head.writeUInt16BE(tag); head.writeUInt16BE(value.length, 2); return Buffer.concat([head, value]); };
export function pdu(id, status, sequence, body = Buffer.alloc(0)) {
    const head = Buffer.alloc(16);
    [16 + body.length, id, status, sequence].forEach((v, i) => head.writeUInt32BE(v >>> 0, 4 * i));
    return Buffer.concat([head, body]);
}

class Reader {
    constructor(bytes) { this.bytes = bytes; this.at = 0; }
    c() {
        const end = this.bytes.indexOf(0, this.at);
        if (end < 0) throw new RangeError('a string without its end');
        const text = this.bytes.toString('latin1', this.at, end);
        this.at = end + 1;
        return text;
    }
    u8() {
        if (this.at >= this.bytes.length) throw new RangeError('too short');
        return this.bytes[this.at++];
    }
    take(n) {
        if (this.at + n > this.bytes.length) throw new RangeError('too short');
        return this.bytes.subarray(this.at, this.at += n);
    }
    tlvs() {
        const found = new Map();
        while (this.at < this.bytes.length) { const tag = this.take(2).readUInt16BE(), length = this.take(2).readUInt16BE(); found.set(tag, this.take(length)); }
        return found;
    }
}

// submit_sm and deliver_sm have the same body.
function readMessage(bytes) {
    const r = new Reader(bytes), m = { service: r.c(), from_ton: r.u8(), from_npi: r.u8(), from: r.c(), to_ton: r.u8(), to_npi: r.u8(), to: r.c(), esm: r.u8() };
    r.take(2);
    r.c();
    r.c();
    Object.assign(m, { registered: r.u8(), replace: r.u8(), coding: r.u8() });
    r.u8();
    m.bytes = r.take(r.u8());
    m.tlvs = r.tlvs();
    if (m.tlvs.has(0x0424)) m.bytes = m.tlvs.get(0x0424);
    if (m.esm & 0x40) {
        const length = m.bytes[0], udh = m.bytes.subarray(1, 1 + length);
        m.bytes = m.bytes.subarray(1 + length);
        for (let i = 0; i + 1 < udh.length; i += 2 + udh[i + 1]) {
            if (udh[i] === 0) m.part = { ref: udh[i + 2], total: udh[i + 3], n: udh[i + 4] };
            if (udh[i] === 8) m.part = { ref: udh.readUInt16BE(i + 2), total: udh[i + 4], n: udh[i + 5] };
        }
    } else if (m.tlvs.has(0x020c)) {
        m.part = { ref: m.tlvs.get(0x020c).readUInt16BE(), total: m.tlvs.get(0x020e)[0], n: m.tlvs.get(0x020f)[0] };
    }
    return m;
}

function message({ from, to, esm = 0, coding = 0, bytes, tlvs = [] }) {
    return Buffer.concat([cstring(''), Buffer.from([1, 1]), cstring(from), Buffer.from([1, 1]), cstring(to), Buffer.from([esm, 0, 0]), cstring(''), cstring(''),
                          Buffer.from([0, 0, coding, 0, bytes.length]), bytes, ...tlvs]);
}

// ---- one bind ----

class Bind {
    constructor(smsc, socket) {
        Object.assign(this, { smsc, socket, rest: Buffer.alloc(0), kind: null, sequence: 0, waiting: new Map() });
        socket.setNoDelay(true);
        socket.on('data', chunk => this.read(chunk));
        socket.on('error', () => {});
        socket.on('close', () => this.end());
        if (smsc.options.enquire_ms) this.timer = setInterval(() => this.ask(ID.enquire_link).catch(() => socket.destroy()), smsc.options.enquire_ms);
    }

    get receives() { return this.kind === ID.bind_receiver || this.kind === ID.bind_transceiver; }
    send(bytes) { if (!this.socket.destroyed) this.socket.write(bytes); }
    answer(id, status, sequence, body) { this.send(pdu((id | RESPONSE) >>> 0, status, sequence, body)); }

    ask(id, body) {
        const sequence = ++this.sequence;
        return new Promise((resolve, reject) => {
            const timer = setTimeout(() => { this.waiting.delete(sequence); reject(new Error('no answer')); }, ANSWER_MS);
            this.waiting.set(sequence, { resolve: v => { clearTimeout(timer); resolve(v); }, reject: e => { clearTimeout(timer); reject(e); } });
            this.send(pdu(id, 0, sequence, body));
        });
    }

    end() {
        clearInterval(this.timer);
        this.smsc.binds.delete(this);
        for (const { reject } of this.waiting.values()) reject(new Error('closed'));
        this.waiting.clear();
    }

    read(chunk) {
        this.rest = this.rest.length ? Buffer.concat([this.rest, chunk]) : chunk;
        while (this.rest.length >= 16) {
            const length = this.rest.readUInt32BE(0);
            if (length < 16 || length > PDU_MAX_BYTES) { this.smsc.complain(`a PDU of length ${length}`); this.socket.destroy(); return; }
            if (this.rest.length < length) return;
            const bytes = this.rest.subarray(0, length);
            this.rest = this.rest.subarray(length);
            this.take(bytes.readUInt32BE(4), bytes.readUInt32BE(8), bytes.readUInt32BE(12), Buffer.from(bytes.subarray(16)));
        }
    }

    take(id, status, sequence, body) {
        if (id & RESPONSE) {
            const asked = this.waiting.get(sequence);
            this.waiting.delete(sequence);
            asked?.resolve(status);
            return;
        }
        try {
            if (id === ID.enquire_link) this.answer(id, OK, sequence);
            else if (id === ID.unbind) { this.answer(id, OK, sequence); this.socket.end(); }
            else if ([ID.bind_receiver, ID.bind_transmitter, ID.bind_transceiver].includes(id)) this.bind(id, sequence, new Reader(body));
            else if (id === ID.submit_sm && this.kind !== ID.bind_receiver && this.kind !== null) this.smsc.submitted(this, sequence, readMessage(body));
            else if (id === ID.query_sm && this.kind !== null) this.smsc.queried(this, sequence, new Reader(body));
            else if (NAME[id]) this.answer(id, INVBNDSTS, sequence);
            else this.send(pdu(ID.generic_nack, INVCMDID, sequence));
        } catch (error) {
            if (!(error instanceof RangeError)) throw error;
            this.smsc.complain(`${NAME[id]}: ${error.message}`);
            this.answer(id, INVCMDLEN, sequence);
        }
    }

    bind(id, sequence, r) {
        const name = r.c(), password = r.c(), { smsc } = this;
        if (name !== smsc.system_id || password !== smsc.password) return this.answer(id, INVPASWD, sequence);
        this.kind = id;
        smsc.binds.add(this);
        smsc.note({ op: NAME[id], dir: 'received', from: name });
        this.answer(id, OK, sequence, Buffer.concat([cstring('FAKESMSC'), tlv(0x0210, Buffer.from([0x34]))]));
        smsc.flush();
    }
}

// ---- the centre ----

class Smsc extends Fake {
    constructor(options) {
        super('smsc', options);
        this.system_id = options.system_id ?? 'sluice';
        this.password = options.password ?? 'secret';
        this.number = options.number ?? '10690001';
        this.binds = new Set();
        this.queue = [];
        this.next = Date.now() % 100000 * 1000 + 10;
        this.messages = new Map();      // id -> state word
        this.long = new Map();          // parts of long messages that wait for the others
        this.ref = 0;
        this.actions = {
            unbind: () => { const n = this.binds.size; for (const b of this.binds) b.socket.destroy(); return { ended: n }; },
            outbind_all: () => ({ binds: this.binds.size }),
        };
    }

    async listen(port) {
        this.tcp = net.createServer(socket => new Bind(this, socket));
        await new Promise((resolve, reject) => this.tcp.once('error', reject).listen(this.options.smpp_port ?? 0, '127.0.0.1', resolve));
        this.ports = { smpp: this.tcp.address().port };
        return super.listen(port);
    }

    newId() {
        const n = this.next++, style = this.options.message_ids ?? 'hex';
        return style === 'dec' ? String(n) : style === 'uuid' ? `${hex(4)}-${hex(2)}-${hex(2)}` : n.toString(16);
    }

    async submitted(bind, sequence, m) {
        const { knobs } = this, arrived = Date.now();
        if (knobs.latency_ms > 0) await sleep(knobs.latency_ms);
        if (this.hit('drop_before')) { this.note({ op: 'fault', fault: 'drop_before' }); bind.socket.destroy(); return; }
        if (this.hit('fail_5xx')) return bind.answer(ID.submit_sm, SYSERR, sequence);
        if (this.hit('fail_429') || this.isTooFast(arrived)) return bind.answer(ID.submit_sm, THROTTLED, sequence);
        if (m.to === '' || !/^\+?\w{3,20}$/.test(m.to)) return bind.answer(ID.submit_sm, INVDSTADR, sequence);
        const id = this.newId();
        this.messages.set(id, 'enroute');
        this.assemble(id, m);
        if (this.knobs.receipt === 'early') await this.report(id, m, this.outcome());
        if (this.hit('hang_after')) { this.note({ op: 'fault', fault: 'hang_after' }); return; }
        if (this.hit('drop_after')) { this.note({ op: 'fault', fault: 'drop_after' }); bind.socket.destroy(); }
        else bind.answer(ID.submit_sm, OK, sequence, cstring(id));
        if (this.knobs.receipt !== 'early' && m.registered & 3) this.receipts(['sent', this.outcome()], word => this.report(id, m, word));
    }

    outcome() { return this.hit('receipt_fail') ? 'failed' : 'delivered'; }

    isTooFast(now) {
        const { tps } = this.options;
        if (!tps) return false;
        if (this.second !== Math.floor(now / 1000)) Object.assign(this, { second: Math.floor(now / 1000), count: 0 });
        return ++this.count > tps;
    }

    // The phone joins the parts; the journal has one line a part and one for the whole.
    assemble(id, m) {
        if (!m.part) {
            this.accept({ id, to: m.to, from: m.from, text: decode(m.coding, m.bytes) });
            return;
        }
        const name = `${m.to} ${m.from} ${m.part.ref} ${m.part.total}`, parts = this.long.get(name) ?? new Map();
        this.note({ op: 'part', dir: 'received', id, to: m.to, part: m.part.n, parts: m.part.total });
        parts.set(m.part.n, m.bytes);
        this.long.set(name, parts);
        if (parts.size < m.part.total) return;
        this.long.delete(name);
        const whole = Buffer.concat([...parts].sort(([a], [b]) => a - b).map(([, b]) => b));
        this.accept({ id, to: m.to, from: m.from, text: decode(m.coding, whole), parts: m.part.total });
    }

    queried(bind, sequence, r) {
        const id = r.c(), word = this.messages.get(id);
        if (!word) return bind.answer(ID.query_sm, INVMSGID, sequence);
        bind.answer(ID.query_sm, OK, sequence, Buffer.concat([cstring(id), cstring(''), Buffer.from([STATES[word][1], 0])]));
    }

    // A receipt is a deliver_sm from the handset (appendix B of the specification).
    async report(id, m, word) {
        const [stat, state] = STATES[word], at = stamp(new Date()), shown = this.hit('wrong_case') ? (id === id.toUpperCase() ? id.toLowerCase() : id.toUpperCase()) : id;
        if (word !== 'sent' || this.messages.get(id) === 'enroute') this.messages.set(id, word);
        const text = `id:${shown} sub:001 dlvrd:${word === 'delivered' ? '001' : '000'} submit date:${at} done date:${at} stat:${stat} err:${word === 'failed' ? '027' : '000'} text:`;
        const tlvs = this.options.bare_receipts ? [] : [tlv(0x001e, cstring(shown)), tlv(0x0427, Buffer.from([state]))];
        const acknowledged = await this.deliver(message({ from: m.to, to: m.from, esm: 0x04, bytes: Buffer.from(text, 'latin1'), tlvs }), { op: 'receipt', id, word, to: m.from, from: m.to });
        return acknowledged;
    }

    // Something for the gateway: repeated until it is answered with ESME_ROK, on any bind that receives.
    // A deliver_sm carries no name: a message centre repeats it when the session ended before our answer reached it, never after ESME_ROK.
    deliver(body, entry) { return this.push(() => this.attempts(body, entry), null); }

    async attempts(body, entry) {
        for (let i = 1; i <= PUSH_TRIES && !this.isStopped; i++) {
            const bind = [...this.binds].filter(b => b.receives)[this.ref++ % Math.max(1, [...this.binds].filter(b => b.receives).length)];
            let status = bind ? await bind.ask(ID.deliver_sm, body).catch(error => error.message) : 'no bind';
            if (status === OK && this.hit('duplicate')) {
                bind.socket.destroy();
                status = 'the answer was lost';
            }
            this.note({ dir: 'sent', ...entry, attempt: i, status, acknowledged: status === OK });
            if (status === OK) return true;
            await sleep(Math.min(200 * i, 2000));
        }
        return false;
    }

    flush() { for (const go of this.queue.splice(0)) go(); }

    async customer({ from, text, to = this.number }) {
        if (!from || !text) throw Object.assign(new Error('from and text are needed'), { status: 400 });
        this.show(from, { by: 'customer', text, kind: 'text' });
        const id = hex(6), gsm = gsmBytes(text), coding = gsm ? 0 : 8, bytes = gsm ?? ucs2(text), entry = { op: 'mo', id, from, to, text };
        const one = gsm ? 160 : 140, each = gsm ? 153 : 134;
        if (bytes.length <= one) return { id, answer: await this.deliver(message({ from, to, coding, bytes }), entry) ? 'accepted' : 'given up' };
        if (this.options.mo_style === 'payload')
            return { id, answer: await this.deliver(message({ from, to, coding, bytes: Buffer.alloc(0), tlvs: [tlv(0x0424, bytes)] }), entry) ? 'accepted' : 'given up' };
        const parts = [];
        for (let at = 0; at < bytes.length; at += each) parts.push(bytes.subarray(at, at + each));
        const ref = ++this.ref & 0xff, sar = this.options.mo_style === 'sar';
        const bodies = parts.map((part, i) => (sar
            ? message({ from, to, coding, bytes: part, tlvs: [tlv(0x020c, Buffer.from([0, ref])), tlv(0x020e, Buffer.from([parts.length])), tlv(0x020f, Buffer.from([i + 1]))] })
            : message({ from, to, coding, esm: 0x40, bytes: Buffer.concat([Buffer.from([5, 0, 3, ref, parts.length, i + 1]), part]) })));
        const done = await Promise.all(bodies.map((body, i) => this.deliver(body, { ...entry, part: i + 1 })));
        return { id, answer: done.every(Boolean) ? 'accepted' : 'given up' };
    }

    async stop() {
        for (const b of this.binds) b.socket.destroy();
        this.tcp.close();
        await super.stop();
    }
}

const stamp = d => `${String(d.getUTCFullYear()).slice(2)}${[d.getUTCMonth() + 1, d.getUTCDate(), d.getUTCHours(), d.getUTCMinutes()].map(v => String(v).padStart(2, '0')).join('')}`;

export async function start(options = {}) { return new Smsc(options).listen(options.port ?? 0); }
await main(import.meta, start);
