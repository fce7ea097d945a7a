// What all simulated providers share: fault knobs, a journal of everything sent and received, customers with a phone that
// shows what reached them, and an HTTP server for the provider's own API and for these controls. Node's standard library only.
//
//   GET/POST /knobs            what goes wrong (KNOBS below); POST merges a JSON object
//   GET  /journal?after=N      JSON lines, one for each call or PDU: n, at, op, dir, id, key, from, to, text, seen, fault ...
//   POST /customer             {from, text, ...}: a customer writes
//   GET  /customer/ID?after=N&wait=MS   what that customer's phone shows after its entry N; waits until there is more
//   POST /do/ACTION            what only this provider can do (revoke a token, make a bounce ...)

import http from 'node:http';
import { randomBytes } from 'node:crypto';

const BODY_MAX_BYTES = 24 << 20; // above media.max: who says no to a large attachment is the gateway
const WAIT_MAX_MS = 25000;
export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

// A number from 0 to 1 is a chance, {"next": n} means the next n times.
const KNOBS = {
    latency_ms: 0,              // before each answer
    fail_5xx: 0,                // answered with the provider's own kind of "broken", nothing was sent
    fail_429: 0,                // "too fast"
    retry_after_s: 1,           // goes with it, where the protocol has a place for it
    drop_before: 0,             // the connection ends before anything was accepted
    drop_after: 0,              // accepted and on the customer's phone, then the connection ends without an answer
    hang_after: 0,              // accepted, then no answer at all
    duplicate: 0,               // what is pushed to the gateway is pushed twice
    reorder: 0,                 // what is pushed to the gateway waits until the next one has gone
    wrong_case: 0,              // ids in receipts are spelled otherwise than in the answer
    receipt: 'normal',          // normal, early (before the answer), none
    receipt_ms: 30,             // from the answer to the receipt
    receipt_shuffle: 0,         // several receipts of one message in another order
    receipt_duplicate: 0,
    receipt_fail: 0,            // delivery fails
    receipt_contrary: 0,        // "delivered", and then "failed"
};

export class Fake {
    constructor(name, options = {}) {
        this.name = name;
        this.options = options;
        this.knobs = { ...KNOBS, ...options.knobs };
        this.faults = {};           // knob -> how often it struck
        this.journal = [];
        this.seen = new Map();      // key of a send -> how often it was accepted
        this.phones = new Map();    // customer -> entries
        this.watchers = new Set();
        this.routes = [];
        this.complaints = [];       // what the gateway did that the provider's documents forbid
        this.timers = new Set();
        this.held = [];
        this.controls();
    }

    // ---- knobs ----

    hit(knob) {
        const value = this.knobs[knob];
        let isHit = false;
        if (typeof value === 'object' && value !== null) {
            if (value.skip > 0) { value.skip--; return false; }
            isHit = value.next > 0;
            if (isHit) value.next--;
        } else {
            isHit = value > 0 && Math.random() < value;
        }
        if (isHit) this.faults[knob] = (this.faults[knob] ?? 0) + 1;
        return isHit;
    }

    set(knobs) {
        for (const name of Object.keys(knobs)) if (!(name in this.knobs)) throw new Error(`there is no knob "${name}"`);
        Object.assign(this.knobs, knobs);
        return this.knobs;
    }

    calm() { return this.set(structuredClone({ ...KNOBS, ...this.options.knobs })); }

    // ---- journal and phones ----

    note(entry) {
        const line = { n: this.journal.length + 1, at: Date.now(), ...entry };
        this.journal.push(line);
        return line;
    }

    complain(what) {
        this.complaints.push(what);
        this.note({ op: 'complaint', what });
        this.options.onComplaint?.(what);
    }

    // A send that the provider accepted. False: a repeat of `key`, which an idempotent provider drops.
    accept({ key, dedupe = false, ...entry }) {
        const name = key ?? `${entry.to}\n${entry.text}`, seen = (this.seen.get(name) ?? 0) + 1;
        this.seen.set(name, seen);
        const isRepeat = dedupe && seen > 1;
        this.note({ op: 'send', dir: 'received', key, seen, dropped: isRepeat || undefined, ...entry });
        if (!isRepeat) this.show(entry.to, { by: 'service', text: entry.text, kind: entry.kind ?? 'text', id: entry.id, more: entry.more });
        return !isRepeat;
    }

    phone(customer) {
        if (!this.phones.has(customer)) this.phones.set(customer, []);
        return this.phones.get(customer);
    }

    show(customer, entry) {
        const entries = this.phone(customer);
        entries.push({ n: entries.length + 1, at: Date.now(), ...entry });
        for (const wake of this.watchers) wake();
    }

    async entries(customer, after = 0, wait = 0) {
        const end = Date.now() + Math.min(wait, WAIT_MAX_MS);
        while (this.phone(customer).length <= after && Date.now() < end && !this.isStopped)
            await new Promise(resolve => {
                const timer = setTimeout(done, end - Date.now()), { watchers } = this;
                function done() { clearTimeout(timer); watchers.delete(done); resolve(); }
                watchers.add(done);
            });
        return this.phone(customer).slice(after);
    }

    later(ms, fn) {
        const timer = setTimeout(() => {
            this.timers.delete(timer);
            Promise.resolve(fn()).catch(error => this.complain(`the simulator itself: ${error.stack}`));
        }, ms);
        this.timers.add(timer);
    }

    // Send something to the gateway under the knobs `duplicate` and `reorder`. `go` sends it once; `again` once more, null: never.
    async push(go, again = go) {
        if (this.hit('reorder') && this.held.length === 0) {
            await new Promise(resolve => { this.held.push(resolve); this.later(400, () => this.release()); });
            return go();
        }
        const answer = await go();
        this.release();
        if (again && this.hit('duplicate')) this.later(5, again);
        return answer;
    }

    release() { for (const resolve of this.held.splice(0)) resolve(); }

    // Receipts of one message: words in the provider's order, told by tell(word) under the knobs.
    receipts(words, tell) {
        if (this.knobs.receipt === 'none') return;
        const list = this.hit('receipt_shuffle') ? [...words].reverse() : [...words];
        if (this.hit('receipt_duplicate')) list.push(list[0]);
        if (list.at(-1) === 'delivered' && this.hit('receipt_contrary')) list.push('failed');
        list.forEach((word, i) => this.later(this.knobs.receipt_ms * (i + 1), () => tell(word)));
    }

    // ---- HTTP ----

    on(method, path, handler) { this.routes.push({ method, path, handler }); }

    controls() {
        const json = rq => JSON.parse(rq.text || '{}');
        this.on('GET', '/knobs', () => ({ ...this.knobs, struck: this.faults }));
        this.on('POST', '/knobs', rq => this.set(json(rq)));
        this.on('GET', '/journal', rq => ({ raw: this.journal.slice(Number(rq.query.get('after') ?? 0)).map(l => JSON.stringify(l) + '\n').join(''),
                                            type: 'application/jsonl' }));
        this.on('POST', '/customer', async rq => this.customer(json(rq)));
        this.on('GET', /^\/customer\/([^/]+)$/, async (rq, id) => this.entries(decodeURIComponent(id), Number(rq.query.get('after') ?? 0),
                                                                              Number(rq.query.get('wait') ?? 0)));
        this.on('POST', /^\/do\/(\w+)$/, async (rq, action) => {
            if (!this.actions?.[action]) throw Object.assign(new Error(`no action "${action}"`), { status: 404 });
            return this.actions[action](json(rq));
        });
        this.on('GET', '/complaints', () => this.complaints);
    }

    async listen(port = 0, host = '127.0.0.1') {
        this.server = http.createServer((rq, rs) => this.serve(rq, rs));
        this.server.keepAliveTimeout = 60000;
        await new Promise((resolve, reject) => this.server.once('error', reject).listen(port, host, resolve));
        this.port = this.server.address().port;
        this.url = `http://${host}:${this.port}`;
        return this;
    }

    async serve(rq, rs) {
        const chunks = [];
        let size = 0;
        try {
            for await (const chunk of rq) {
                size += chunk.length;
                if (size > BODY_MAX_BYTES) throw Object.assign(new Error('too big'), { status: 413 });
                chunks.push(chunk);
            }
            const url = new URL(rq.url, 'http://fake'), body = Buffer.concat(chunks);
            const request = { method: rq.method, path: url.pathname, query: url.searchParams, url: rq.url, headers: rq.headers, body, text: body.toString('utf8'),
                              rs, socket: rq.socket };
            for (const { method, path, handler } of this.routes) {
                const match = path instanceof RegExp ? path.exec(url.pathname) : path === url.pathname ? [] : null;
                if (match && method === rq.method) return this.answer(request, await handler(request, ...match.slice(1)));
            }
            this.note({ op: 'unknown', dir: 'received', method: rq.method, path: url.pathname });
            this.answer(request, { status: 404, json: { error: 'no such path' } });
        } catch (error) {
            if (!rs.headersSent && !rs.destroyed) rs.writeHead(error.status ?? 400, { 'content-type': 'application/json' }).end(JSON.stringify({ error: error.message }));
        }
    }

    // A handler gives {status, json | raw, type, headers}, a plain value (JSON), or null: it has answered, or never will.
    answer(rq, result) {
        if (result === null || rq.rs.destroyed) return;
        const isWhole = typeof result === 'object' && !Array.isArray(result) && ('status' in result || 'raw' in result) && !('errcode' in result);
        const { status = 200, type = 'application/json', headers = {} } = isWhole ? result : {};
        const body = isWhole ? result.raw ?? JSON.stringify(result.json ?? {}) : JSON.stringify(result);
        rq.rs.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), ...headers }).end(body);
    }

    // One submission through HTTP under the knobs. forms: {broken(), slow_down(), go()}: go accepts and gives the answer.
    async submit(rq, forms) {
        if (this.knobs.latency_ms > 0) await sleep(this.knobs.latency_ms);
        if (this.hit('drop_before')) return this.cut(rq, 'drop_before');
        if (this.hit('fail_5xx')) { this.note({ op: 'fault', fault: 'fail_5xx' }); return forms.broken(); }
        if (this.hit('fail_429')) { this.note({ op: 'fault', fault: 'fail_429' }); return forms.slow_down(); }
        const answer = await forms.go();
        if (this.hit('hang_after')) { this.note({ op: 'fault', fault: 'hang_after' }); return null; }
        return this.hit('drop_after') ? this.cut(rq, 'drop_after') : answer;
    }

    cut(rq, fault) {
        this.note({ op: 'fault', fault });
        rq.socket.destroy();
        return null;
    }

    async stop() {
        this.isStopped = true;
        for (const timer of this.timers) clearTimeout(timer);
        for (const wake of [...this.watchers]) wake();
        this.server?.closeAllConnections?.();
        await new Promise(resolve => (this.server ? this.server.close(resolve) : resolve()));
    }
}

// ---- helpers ----

const agent = new http.Agent({ keepAlive: true, maxSockets: 64, scheduling: 'lifo' });

// A request to the gateway: {status, body, headers} or {error}; never throws.
export function call(method, url, { headers = {}, body = '', timeout_ms = 5000, fresh = false } = {}) {
    return new Promise(resolve => {
        const bytes = Buffer.from(body);
        const rq = http.request(url, { method, agent: fresh ? undefined : agent, headers: { ...headers, ...(method === 'GET' ? {} : { 'content-length': bytes.length }) } });
        const timer = setTimeout(() => rq.destroy(new Error('timeout')), timeout_ms);
        rq.on('response', rs => {
            const chunks = [];
            rs.on('data', chunk => chunks.push(chunk));
            rs.on('end', () => { clearTimeout(timer); resolve({ status: rs.statusCode, headers: rs.headers, body: Buffer.concat(chunks).toString('utf8') }); });
            rs.on('error', error => { clearTimeout(timer); resolve({ status: 0, error: error.message, body: '' }); });
        });
        rq.on('error', error => { clearTimeout(timer); resolve({ status: 0, error: error.message, body: '' }); });
        rq.end(bytes);
    });
}

export const hex = bytes => randomBytes(bytes).toString('hex');

// Started as a program: `node NAME.mjs [--port N] [--KEY VALUE ...]`; prints its address as one JSON line.
export async function main(meta, start) {
    const { fileURLToPath } = await import('node:url');
    const { realpathSync } = await import('node:fs');
    if (!process.argv[1] || realpathSync(process.argv[1]) !== fileURLToPath(meta.url)) return;
    const options = {};
    for (let i = 2; i + 1 < process.argv.length; i += 2) {
        const value = process.argv[i + 1];
        options[process.argv[i].replace(/^--/, '').replaceAll('-', '_')] = /^\d+$/.test(value) ? Number(value) : value;
    }
    const fake = await start(options);
    console.log(JSON.stringify({ name: fake.name, url: fake.url, port: fake.port, ...fake.ports }));
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => fake.stop().then(() => process.exit(0)));
}
