// A visitor or an agent that speaks sluice.v1 as docs/protocol.md says: numbers its commands, sends again what was not
// acknowledged, resumes where it was. It records everything it was shown and checks positions as they come.
import WebSocket from 'ws';
import { EventEmitter } from 'node:events';

let serial = 0;

export class Client extends EventEmitter {
  constructor({ url, role, inbox, token, origin, reconnect = false, name }) {
    super();
    this.setMaxListeners(0);
    Object.assign(this, { url, role, inbox, token, origin, reconnect });
    this.name = name ?? `${role}${++serial}`;
    this.topics = new Map();   // topic -> {next, pending: [], pos, shown: []}
    this.frames = [];          // everything since the start
    this.problems = [];        // what must never happen
    this.commands = 0;
    this.acked = new Set();
    this.topic('me');
  }

  topic(name) {
    if (!this.topics.has(name)) this.topics.set(name, { next: 1, pending: [], pos: null, shown: [] });
    return this.topics.get(name);
  }

  // Resolves with welcome; rejects with the close.
  async connect() {
    this.closed = null;
    this.ws = new WebSocket(this.url, 'sluice.v1', { perMessageDeflate: false, headers: this.origin ? { origin: this.origin } : {} });
    const { ws } = this;
    ws.on('message', data => { if (this.ws === ws) this.onMessage(data.toString()); });
    ws.on('error', () => {});
    this.whenClosed = new Promise(resolve => ws.on('close', (code, reason) => {
      const how = { code, reason: reason.toString() };
      if (this.ws === ws) this.closed = how;
      this.emit('closed', how);
      resolve(how);
      if (this.reconnect && this.ws === ws && !this.isDone) setTimeout(() => this.connect().catch(() => {}), 50 + Math.random() * 200);
    }));
    await new Promise((resolve, reject) => {
      ws.on('open', resolve);
      ws.on('close', () => reject(new Error('refused')));
      ws.on('unexpected-response', (_rq, rs) => reject(new Error(`refused with ${rs.statusCode}`)));
    });
    ws.send(JSON.stringify(this.hello()));
    return Promise.race([
      this.next(f => f.t === 'welcome'),
      this.whenClosed.then(how => { throw Object.assign(new Error(`closed ${how.code} ${how.reason}`), how); }),
    ]);
  }

  hello() {
    const hello = { t: 'hello', role: this.role, client: 'tests/1' };
    if (this.token) hello.token = this.token;
    if (this.inbox) hello.inbox = this.inbox;
    if (this.session) {
      const topics = {};
      for (const [name, t] of this.topics) if (t.pos) topics[name] = t.pos;
      hello.resume = { session: this.session, topics };
    }
    return hello;
  }

  send(frame) { if (this.ws?.readyState === WebSocket.OPEN) this.ws.send(JSON.stringify(frame)); }
  raw(data, options) { this.ws.send(data, options); }
  close() { this.isDone = true; this.ws?.close(); }
  drop() { this.ws?.terminate(); }

  // Promise of the next frame (from now on) that fits.
  next(fits, ms = 10000) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => { this.off('frame', look); reject(new Error(`${this.name}: no such frame within ${ms} ms: ${fits}`)); }, ms);
      const look = f => {
        if (!fits(f)) return;
        clearTimeout(timer);
        this.off('frame', look);
        resolve(f);
      };
      this.on('frame', look);
    });
  }
  // A frame that fits, from those that came already or will.
  async seen(fits, ms = 10000) { return this.frames.find(fits) ?? this.next(fits, ms); }
  async entry(fits, ms = 10000, topic = 'me') {
    return (await this.seen(f => f.t === 'ev' && f.topic === topic && fits(f.d), ms)).d;
  }

  // Send a command; gives {id, n, ack, res}: promises. ack rejects on err.
  cmd(k, d = {}, { topic = 'me', id } = {}) {
    const t = this.topic(topic);
    const command = { t: 'cmd', id: id ?? `${this.name}-${++this.commands}`, n: t.next++, topic, k, d };
    t.pending.push(command);
    const ack = new Promise((resolve, reject) => {
      const look = f => {
        if (f.id !== command.id || (f.t !== 'ack' && f.t !== 'err')) return;
        this.off('frame', look);
        if (f.t === 'ack') resolve(f); else reject(Object.assign(new Error(f.code), f));
      };
      this.on('frame', look);
    });
    ack.catch(() => {});
    const res = this.next(f => (f.t === 'res' && f.id === command.id) || (f.t === 'ev' && f.d?.m?.id === command.id), 30000);
    res.catch(() => {});
    this.send(command);
    return { id: command.id, n: command.n, frame: command, ack, res };
  }
  say(text, options) { return this.cmd('message.send', { kind: 'text', text }, options); }

  sub(topic, pos) {
    const id = `sub-${++serial}`;
    const answer = this.next(f => (f.t === 'ok' || f.t === 'err') && f.id === id);
    this.send(pos ? { t: 'sub', id, topic, pos } : { t: 'sub', id, topic });
    return answer;
  }

  onMessage(text) {
    const message = JSON.parse(text);
    for (const f of Array.isArray(message) ? message : [message]) this.onFrame(f);
  }

  onFrame(f) {
    this.frames.push(f);
    if (f.t === 'welcome') this.onWelcome(f);
    if (f.t === 'ack') this.onAck(f);
    if (f.t === 'err' && f.code === 'EGAP') this.goBack(f);
    if (f.t === 'ok' && f.pos) this.topic(f.topic).pos = f.pos;
    if (f.t === 'gap') this.topic(f.topic).pos = f.pos;
    if ((f.t === 'ev' || f.t === 'res') && f.pos) this.onPosition(f);
    this.emit('frame', f);
  }

  onWelcome(f) {
    const me = this.topic('me');
    if (this.session && this.session !== f.session) this.problems.push(`session ${this.session} was not resumed`);
    this.session = f.session;
    if (f.me?.token) this.token = f.me.token;
    this.me = f.me;
    me.pending = me.pending.filter(c => c.n > f.n);
    for (const c of me.pending) this.send(c);
  }

  onAck(f) {
    if (this.acked.has(f.id)) this.emit('repeat', f);
    this.acked.add(f.id);
    for (const t of this.topics.values()) t.pending = t.pending.filter(c => c.id !== f.id);
  }

  goBack(f) {
    for (const t of this.topics.values()) {
      const at = t.pending.findIndex(c => c.id === f.id);
      if (at >= 0) for (const c of t.pending.filter(p => p.n >= f.expect)) this.send(c);
    }
  }

  onPosition(f) {
    const t = this.topic(f.topic), [gen, n] = f.pos;
    if (t.pos && t.pos[0] === gen && n !== t.pos[1] + 1)
      this.problems.push(`${f.topic}: position ${n} came after ${t.pos[1]}`);
    t.pos = f.pos;
    t.shown.push({ n, id: f.t === 'res' ? f.id : f.d.m?.id, own: f.t === 'res', entry: f.d });
  }

  shown(topic = 'me') { return this.topic(topic).shown; }
}
