// Visitors and agents over the WebSocket protocol sluice.v1 (docs/protocol.md), who write down what they sent and saw.
//
// A client numbers its commands, has a few on their way, repeats what was not acknowledged with the same number, goes back
// when the server says so, resumes after every close, and sends some frames twice on purpose. It never corrects what it
// sees: the checker judges that.

import net from 'node:net';
import crypto from 'node:crypto';
import WebSocket from 'ws';

const CONNECT_MS = 2000, SILENT_MS = 2500, PONG_MS = 1500, BACKOFF_MS = [30, 60, 120, 250, 500];
export const OFFLINE_MS = 1500; // rules.offline_ms of the world

class Topic {
    constructor(name) {
        this.name = name;
        this.position = null;       // [generation, number], as the server gave it
        this.items = [];            // what was shown: {g, n, id} or {gap: true, g, n} or {fresh: true}
        this.resetNumbers();
    }

    resetNumbers() {
        this.next = 1;
        this.outbox = [];           // commands without an ack, in order
    }
}

export class Client {
    constructor({ name, id, kind, ports, random, hello }) {
        Object.assign(this, { name, id: id ?? name, kind, ports, random, hello });
        this.topics = new Map();
        this.sends = [];
        this.byId = new Map();
        this.errors = [];
        this.session = null;
        this.sessionCount = 0;
        this.ackedBelow = new Map(); // highest acknowledged number by topic, in this session
        this.failures = 0;
        this.isOpen = this.isStopped = false;
        this.counts = { connects: 0, resends: 0, duplicates: 0, busy: 0, goBacks: 0, closes: {} };
        this.topic('me');
    }

    topic(name) {
        if (!this.topics.has(name)) this.topics.set(name, new Topic(name));
        return this.topics.get(name);
    }

    // ---- the connection ----

    connect() {
        if (this.isStopped || this.socket) return;
        this.counts.connects++;
        const port = this.random.pick(this.ports());
        const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, 'sluice.v1',
                                     { perMessageDeflate: false, handshakeTimeout: CONNECT_MS, autoPong: true });
        this.socket = socket;
        socket.on('open', () => this.onOpen(socket));
        socket.on('message', data => this.onMessage(socket, data));
        socket.on('ping', () => { this.heardAt = Date.now(); });
        socket.on('error', () => {});
        socket.on('close', (code, reason) => this.onClose(socket, code, reason));
        this.heardAt = Date.now();
        this.pingedAt = 0;
    }

    onOpen(socket) {
        const hello = { t: 'hello', client: 'fault/1', ...this.hello() };
        const me = this.topic('me');
        if (this.session)
            hello.resume = { session: this.session, topics: me.position ? { me: me.position } : {} };
        socket.send(JSON.stringify(hello));
    }

    onClose(socket, code, reason) {
        this.counts.closes[code] = (this.counts.closes[code] ?? 0) + 1;
        if ([4400, 4403, 4413].includes(code)) this.errors.push(`closed with ${code} ${reason}`);
        if (this.socket !== socket) return;
        this.socket = null;
        this.isOpen = false;
        if (this.isStopped) return;
        for (const topic of this.topics.values()) {
            clearTimeout(topic.timer);
            topic.timer = null;
        }
        const wait = BACKOFF_MS[Math.min(this.failures++, BACKOFF_MS.length - 1)];
        this.reconnectTimer = setTimeout(() => this.connect(), wait + this.random.integer(0, wait) + (this.absentMs ?? 0));
        this.absentMs = 0;
    }

    // Called often: notices a dead connection as a page would.
    watch(now) {
        if (!this.socket || this.isStopped) return;
        const isWaiting = !this.isOpen || [...this.topics.values()].some(t => t.outbox.length > 0);
        if (this.pingedAt && this.heardAt < this.pingedAt) {
            if (now - this.pingedAt > PONG_MS) this.socket.terminate();
        } else if (now - this.heardAt > (isWaiting ? SILENT_MS : 4 * SILENT_MS) && this.isOpen) {
            this.pingedAt = now;
            this.transmit({ t: 'ping' });
        } else if (!this.isOpen && now - this.heardAt > CONNECT_MS + SILENT_MS) {
            this.socket.terminate();
        }
    }

    drop() {
        if (this.socket) this.socket.terminate();
    }

    stop() {
        this.isStopped = true;
        clearTimeout(this.reconnectTimer);
        for (const t of this.topics.values()) clearTimeout(t.timer);
        if (this.socket) this.socket.terminate();
    }

    transmit(frame) {
        if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
    }

    // ---- commands ----

    command(topicName, k, d, kind = k) {
        const topic = this.topic(topicName);
        const send = { id: `${this.id}-${this.sends.length + 1}`, n: topic.next++, topic: topicName, session: this.session,
                       kind: k === 'message.send' || k === 'conv.note' ? 'message' : kind, k, acked: false, result: null, at: Date.now() };
        send.frame = { t: 'cmd', id: send.id, n: send.n, topic: topicName, k, d };
        this.sends.push(send);
        this.byId.set(send.id, send);
        topic.outbox.push(send);
        if (this.isOpen && !topic.timer) {
            this.transmit(send.frame);
            if (this.random.chance(0.05)) {
                this.counts.duplicates++;
                this.transmit(send.frame);
            }
        }
        return send;
    }

    resendFrom(topic, number) {
        for (const send of topic.outbox) {
            if (send.n < number) continue;
            this.counts.resends++;
            this.transmit(send.frame);
        }
    }

    resendLater(topic, wait) {
        if (topic.timer) return;
        topic.timer = setTimeout(() => {
            topic.timer = null;
            if (this.isOpen) this.resendFrom(topic, 0);
        }, wait + this.random.integer(0, wait));
    }

    acknowledged(topic, n) {
        for (const send of topic.outbox) if (send.n <= n) send.acked = true;
        topic.outbox = topic.outbox.filter(send => send.n > n);
        this.ackedBelow.set(topic.name, Math.max(n, this.ackedBelow.get(topic.name) ?? 0));
    }

    // The server's count of a topic: everything up to it is stored.
    numberIs(topic, n) {
        const acked = this.ackedBelow.get(topic.name) ?? 0;
        if (n < acked) {
            this.errors.push(`${topic.name}: number ${acked} was acknowledged, the server knows ${n}`);
            this.session = null;
            this.forgetNumbers();
            this.drop();
            return;
        }
        this.acknowledged(topic, n);
    }

    // ---- frames ----

    onMessage(socket, data) {
        if (this.socket !== socket) return;
        this.heardAt = Date.now();
        const message = JSON.parse(data);
        for (const f of Array.isArray(message) ? message : [message]) this.onFrame(f);
    }

    onFrame(f) {
        switch (f.t) {
        case 'welcome': return this.onWelcome(f);
        case 'ack': return this.onAck(f);
        case 'res': return this.onResult(f);
        case 'err': return this.onError(f);
        case 'ev': return this.onEvent(f);
        case 'gap': return this.onGap(f);
        case 'ok': return this.onOk(f);
        case 'bye': return this.drop();
        default: return undefined; // hints, pongs
        }
    }

    onWelcome(f) {
        const me = this.topic('me');
        this.failures = 0;
        this.isOpen = true;
        if (f.me?.token) this.token = f.me.token;
        if (this.session && this.session !== f.session) {
            this.errors.push(`session ${this.session} was not resumed`);
            this.forgetNumbers();
        }
        if (this.session === f.session) this.numberIs(me, f.n);
        if (this.session === null && this.socket?.readyState !== WebSocket.OPEN) return;
        if (this.session === null && me.position) { // who is new is shown the last entries again
            me.items.push({ fresh: true, why: 'session' });
            me.position = null;
        }
        this.session = f.session;
        for (const send of me.outbox) send.session ??= f.session;
        clearTimeout(me.timer);
        me.timer = null;
        this.resendFrom(me, 0);
        this.onReady(f);
    }

    // Numbers begin anew: what has no answer may have been stored or not, so it is not sent again.
    forgetNumbers() {
        for (const topic of this.topics.values()) {
            for (const send of topic.outbox) send.indeterminate = true;
            topic.resetNumbers();
        }
        this.ackedBelow.clear();
    }

    onReady() {}

    onAck(f) {
        const send = this.byId.get(f.id);
        if (!send) return;
        send.acked = true;
        send.ackMs ??= Date.now() - send.at;
        const topic = this.topic(send.topic);
        topic.outbox = topic.outbox.filter(s => s !== send);
        this.ackedBelow.set(topic.name, Math.max(send.n, this.ackedBelow.get(topic.name) ?? 0));
    }

    onError(f) {
        const send = this.byId.get(f.id);
        if (!send) return f.id ? this.onRequestError(f) : this.onBareError(f);
        const topic = this.topic(send.topic);
        if (f.expect !== undefined) return this.goBack(topic, f.expect);
        if (f.retry) {
            this.counts.busy++;
            return this.resendLater(topic, 150);
        }
        return this.refused(topic, send, `refused:${f.code}`);
    }

    onBareError(f) {
        if (f.code !== 'ENOTFOUND') this.errors.push(`err without id: ${f.code} ${f.text}`); // left a topic that was not open yet
    }

    goBack(topic, expect) {
        this.counts.goBacks++;
        this.numberIs(topic, expect - 1);
        this.resendLater(topic, 20);
    }

    // Its number is still free: those behind it move up.
    refused(topic, send, result) {
        if (!topic.outbox.includes(send)) return;
        send.result = result;
        topic.outbox = topic.outbox.filter(s => s !== send);
        for (const s of topic.outbox) if (s.n > send.n) s.frame.n = --s.n;
        topic.next--;
        this.resendLater(topic, 20);
    }

    onRequestError() {}

    onResult(f) {
        const send = this.byId.get(f.id);
        if (!send) return;
        send.acked = true; // a decision needs a stored command
        if (!send.result) send.result = f.ok ? 'ok' : `refused:${f.code}`;
        send.resultMs ??= Date.now() - send.at;
        const topic = this.topic(f.topic ?? send.topic);
        topic.outbox = topic.outbox.filter(s => s !== send);
        if (f.pos) this.moved(topic, f.pos, send.kind === 'message' ? f.id : undefined, true);
        this.onDecided(send, f);
    }

    onDecided() {}

    onEvent(f) {
        const topic = this.topic(f.topic);
        if (topic.awaits) return;
        this.moved(topic, f.pos, f.d.m?.id, false, f.d);
        const send = f.d.m && this.byId.get(f.d.m.id);
        if (send && !send.result) {
            send.acked = true;
            send.result = 'ok';
            topic.outbox = topic.outbox.filter(s => s !== send);
            this.onDecided(send, { ok: true, pos: f.pos, isReplay: true });
        }
        this.onEntry(topic, f.d, f);
    }

    onEntry() {}

    moved(topic, pos, id, isResult) {
        const [g, n] = pos, isSame = topic.position?.[0] === g;
        if (isResult && ((isSame && n <= topic.position[1]) || topic.awaits)) return; // an answer repeated: already shown
        if (topic.position && !isSame) topic.items.push({ fresh: true, why: 'generation' });
        topic.items.push({ g, n, id, at: Date.now(), c: this.counts.connects });
        topic.position = pos;
    }

    onGap(f) {
        const topic = this.topic(f.topic);
        if (topic.awaits) return;
        topic.items.push({ gap: true, g: f.pos[0], n: f.pos[1] });
        topic.position = f.pos;
    }

    onOk() {}

    get unanswered() {
        return [...this.topics.values()].reduce((n, t) => n + t.outbox.length, 0);
    }

    record() {
        const topics = {};
        for (const [name, t] of this.topics)
            topics[name] = { items: t.items, isOpenAtEnd: this.isOpen && (name === 'me' || this.followed?.has(name) === true),
                             waited_s: this.waited_s };
        const sends = this.sends.map(({ frame, ...rest }) => rest);
        return { name: this.name, id: this.id, kind: this.kind, addr: this.addr, sends, topics, errors: this.errors };
    }
}

// ---- visitors ----

const QUESTIONS = ['Where is my order, please?', 'How can I return an article?', 'When do you open tomorrow?', '请问你们几点开门营业？'];

export class Visitor extends Client {
    constructor(options) {
        super({ ...options, kind: 'visitor' });
        this.inbox = options.inbox;
        this.tenant = options.tenant;
        this.wantsHuman = options.wantsHuman ?? 0;
        this.filler = options.filler ?? '';
        this.window = options.window ?? 6;
        this.hello = () => ({ role: 'visitor', inbox: this.inbox, ...(this.token ? { token: this.token } : {}) });
    }

    onReady(f) {
        this.addr ??= `${this.tenant}/${this.inbox}/${f.me.address}`;
    }

    get canSend() {
        return this.session !== null && this.topic('me').outbox.length < this.window;
    }

    say(text) {
        return this.command('me', 'message.send', { text });
    }

    speak() {
        if (this.random.chance(this.wantsHuman)) return this.say('I want to talk to a human agent, please.');
        return this.say(this.random.pick(QUESTIONS) + this.filler);
    }

    onEntry(topic, entry) {
        if (entry.m?.data?.ask === 'rating' && this.random.chance(0.5) && this.isTalking)
            this.command('me', 'message.rate', { score: this.random.integer(1, 5) }, 'rate');
    }
}

// ---- agents ----

export class Agent extends Client {
    constructor(options) {
        super({ ...options, kind: 'agent' });
        this.queues = options.queues;
        this.token = options.token;
        this.followed = new Map();   // topic -> {ticket, control, answers, isAccepted, isHeld}
        this.requests = new Map();   // id of a sub -> topic
        this.hello = () => ({ role: 'agent', token: this.token });
        this.canEnd = true;
    }

    onReady() {
        for (const [topic, talk] of this.followed) {
            talk.isOpen = false;
            this.follow(topic);
        }
        for (const topic of this.topics.values()) // commands to conversations she has left get their answers, too
            if (topic.name !== 'me' && !this.followed.has(topic.name)) this.resendFrom(topic, 0);
    }

    follow(name) {
        const topic = this.topic(name), id = `s${++this.sessionCount}`;
        this.requests.set(id, name);
        topic.awaits = id; // what comes before its "ok" is of an earlier subscription, and will be replayed
        this.transmit({ t: 'sub', id, topic: name, ...(topic.position ? { pos: topic.position } : {}) });
    }

    onRequestError(f) {
        const name = this.requests.get(f.id);
        this.requests.delete(f.id);
        if (name && this.topic(name).awaits === f.id) this.topic(name).awaits = null;
        if (!name || !this.followed.has(name)) return;
        if (f.retry) setTimeout(() => this.isOpen && this.followed.has(name) && this.follow(name), 200);
        else this.leave(name);
    }

    leave(name) {
        const { control } = this.followed.get(name) ?? {};
        this.followed.delete(name);
        // Sometimes she did not notice, and goes on talking under the control epoch she had.
        if (control !== undefined && this.random.chance(0.6))
            setTimeout(() => this.canEnd && this.isOpen && this.command(name, 'message.send', { text: 'Are you still there?', control }),
                       this.random.integer(50, 2500));
        if (this.isOpen) this.transmit({ t: 'unsub', topic: name });
    }

    onOk(f) {
        const name = this.requests.get(f.id), talk = this.followed.get(name), topic = this.topic(f.topic);
        this.requests.delete(f.id);
        if (topic.awaits === f.id) topic.awaits = null;
        if (!talk || topic.awaits) return;
        talk.isOpen = true;
        if (f.snap) {
            topic.items.push({ fresh: true, why: 'snapshot' });
            for (const e of f.snap.entries ?? []) topic.items.push({ g: f.pos[0], n: e.n, id: e.m?.id });
            talk.control = f.snap.state.epoch ?? talk.control;
            talk.isWaiting = true;
        }
        topic.position = f.pos;
        if (f.n !== undefined) this.numberIs(topic, f.n);
        topic.next = Math.max(topic.next, (f.n ?? 0) + 1);
        this.resendFrom(topic, 0);
        if (!talk.isAccepted && !talk.isAccepting) {
            talk.isAccepting = true;
            this.command(name, 'conv.accept', { ticket: talk.ticket }, 'accept');
        }
    }

    onEntry(topic, entry) {
        if (topic.name === 'me') return this.onOwnEntry(entry);
        const talk = this.followed.get(topic.name);
        if (!talk) return undefined;
        if (entry.ce) talk.control = Math.max(entry.ce, talk.control ?? 0);
        if (entry.m?.by === 'visitor') talk.isWaiting = true;
        return undefined;
    }

    onOwnEntry(entry) {
        const name = `conv:${entry.c}`;
        if (entry.t === 'offered') this.onOffered(name, entry.tk);
        if ((entry.t === 'released' || entry.t === 'gone') && this.followed.get(name)?.ticket === entry.tk) this.leave(name);
    }

    onOffered(name, ticket) {
        const known = this.followed.get(name);
        if (known && known.ticket >= ticket) return;
        this.followed.set(name, { ticket, answers: 0, isWaiting: true, isAccepted: false, dueAt: Date.now() + 100 });
        if (!known) this.follow(name);
        else this.command(name, 'conv.accept', { ticket }, 'accept');
    }

    onDecided(send, f) {
        const talk = this.followed.get(send.topic);
        if (!talk) return;
        talk.isBusy = false;
        if (send.k === 'conv.accept') talk.isAccepted = f.ok || f.code === 'accepted';
        if (!f.ok && ['not_yours', 'closed', 'no_conversation'].includes(f.code)) this.leave(send.topic);
        if (f.ok && ['conv.close', 'conv.transfer'].includes(send.k)) talk.isDone = true;
    }

    // Called often: does what an agent does with the conversations she has.
    work(now) {
        if (!this.isOpen) return;
        this.leavesAt ??= now + this.random.integer(3000, 25000);
        if (now > this.leavesAt && this.canEnd) return this.goAway();
        for (const [name, talk] of this.followed) {
            if (!talk.isOpen || talk.isDone || now < talk.dueAt || this.topic(name).outbox.length > 0) continue;
            talk.dueAt = now + this.random.integer(150, 500);
            this.act(name, talk);
        }
        return undefined;
    }

    // She closes her console and is back a little later, every other time not before the desk has missed her (rules.offline_ms).
    goAway() {
        this.leavesAt = undefined;
        this.absences = (this.absences ?? 0) + 1;
        this.failures = BACKOFF_MS.length - 1 - this.random.integer(0, 2);
        this.absentMs = this.absences % 2 === 1 ? OFFLINE_MS + this.random.integer(500, 1500) : 0;
        this.socket.close(1000);
    }

    act(name, talk) {
        const control = talk.control;
        if (!talk.isAccepted || control === undefined) return;
        if (talk.isWaiting) {
            talk.isWaiting = false;
            talk.answers++;
            this.command(name, 'message.send', { text: `Answer ${talk.answers} of ${this.name}: let me look into it.`, control });
        } else if (this.canEnd && this.random.chance(0.2)) {
            this.command(name, 'conv.note', { text: 'A note that the customer must not see.' });
        } else if (talk.answers >= 3 && this.canEnd) {
            if (this.random.chance(0.2))
                this.command(name, 'conv.transfer', { control, queue: this.random.pick(this.queues), reason: 'try another' }, 'transfer');
            else this.command(name, 'conv.close', { control }, 'close');
        }
    }
}

// ---- one who never reads ----

// A visitor's second socket: says hello as the same visitor, then never takes a byte out of its socket.
export class SilentReader {
    constructor({ ports, random, hello }) {
        Object.assign(this, { ports, random, hello, connects: 0, isStopped: false });
    }

    connect() {
        if (this.isStopped) return;
        this.connects++;
        const socket = net.connect(this.random.pick(this.ports()), '127.0.0.1');
        this.socket = socket;
        socket.on('error', () => {});
        socket.on('close', () => { if (!this.isStopped) this.timer = setTimeout(() => this.connect(), 500); });
        socket.on('connect', () => {
            socket.write('GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
                `Sec-WebSocket-Key: ${crypto.randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n` +
                'Sec-WebSocket-Protocol: sluice.v1\r\n\r\n');
            setTimeout(() => !socket.destroyed && socket.write(maskedFrame(JSON.stringify(this.hello()))), 300);
        });
        socket.pause();
        // Its heartbeats are the only way to learn that the other end is gone; their answers pile up with the rest.
        const beating = setInterval(() => {
            if (socket.destroyed) clearInterval(beating);
            else if (socket.readyState === 'open') socket.write(maskedFrame('{"t":"ping"}'));
        }, 1000);
        beating.unref();
    }

    stop() {
        this.isStopped = true;
        clearTimeout(this.timer);
        this.socket?.destroy();
    }
}

function maskedFrame(text) {
    const body = Buffer.from(text), mask = crypto.randomBytes(4);
    const head = body.length < 126 ? Buffer.from([0x81, 0x80 | body.length])
        : Buffer.from([0x81, 0x80 | 126, body.length >> 8, body.length & 255]);
    for (let i = 0; i < body.length; i++) body[i] ^= mask[i % 4];
    return Buffer.concat([head, mask, body]);
}
