// The checker, checked: a hand-made history that is right, and one change for every wrong that it must see.

import test from 'node:test';
import assert from 'node:assert/strict';
import { check, compareIds } from './checker.mjs';

const CONV = '3.01JD8Z6V3K9Q2W4E5R6T7Y8A9B', OTHER = '3.01JD8Z6V3K9Q2W4E5R6T7Y8A9C';
const ADDR = 'demo/web/v1';

// Builds a partition's logs the way a router would: one event a batch.
function writer(tag) {
    const p = { in: [], out: [], offset: '0-0', num: {}, forks: 0, timers: [], dead: [], states: { conv: {} }, logs: {} };
    let at = 0;
    const step = (e, ...f) => {
        const id = `${++at}-0`;
        p.in.push({ id, e });
        p.out.push({ id: `${at}-1`, b: { epoch: 5, now: 1000 + at, first: id, last: id, count: 1 }, f: f.map(x => x(id)) });
        p.offset = id;
        for (const { d, f: n } of p.out[p.out.length - 1].f) if (d) p.num[d] = n;
        return id;
    };
    return { p, step, tag };
}

const entry = (n, v, by, id, more = {}) => src => ({
    h: `conv:${more.conv ?? CONV}`, e: { n, v, at: 1, ce: more.ce ?? 1, src, ...(more.tn ? { tn: more.tn } : {}),
                                         m: { id, by, who: more.who, kind: more.kind ?? 'text', data: more.data } } });
const record = e => () => ({ e });
const fact = (d, n, e, tag = '3') => () => ({ d, f: n, e: { ...e, src: tag, fn: n } });

// A visitor asks twice and is answered once by the bot; asks for a human; an agent accepts, answers, closes.
function good() {
    const w = writer('3'), desk = writer('desk:demo'), bots = { 'bot:faq': [] }, IN = 'in:{3}', DESK = 'in:{desk:demo}';
    const task = (n, tn) => {
        const f = fact('bot:faq', n, { t: 'task', c: CONV, ce: 1, tn });
        bots['bot:faq'].push({ id: `${n}-0`, e: f().e });
        return f;
    };
    w.step({ t: 'message', a: ADDR, s: 's1', id: 'v1-1' }, record({ t: 'opened', c: CONV, a: ADDR }), entry(1, 1, 'visitor', 'v1-1'),
           record({ t: 'turn', c: CONV, ce: 1, tn: 1 }), task(1, 1));
    w.step({ t: 'message', a: ADDR, s: 's1', id: 'v1-2' }, entry(2, 2, 'visitor', 'v1-2'), record({ t: 'turn', c: CONV, ce: 1, tn: 2 }), task(2, 2));
    w.step({ t: 'answer', c: CONV, ce: 1, tn: 1 }, record({ t: 'refusal', c: CONV, nm: 'answer' }));
    w.step({ t: 'answer', c: CONV, ce: 1, tn: 2 }, entry(3, 3, 'bot', 'b-1', { tn: 2 }));
    const need = { t: 'need', c: CONV, tk: 1, q: 'default' };
    w.step({ t: 'message', a: ADDR, s: 's1', id: 'v1-3' }, entry(4, 4, 'visitor', 'v1-3'), fact(DESK, 1, need),
           record({ t: 'queued', c: CONV, tk: 1, ce: 2 }), entry(5, 5, 'system', 'x-1', { ce: 2, kind: 'event', data: { code: 'queued' } }));
    desk.step({ t: 'agent.online', g: 'mei', s: 'a1', cap: 1 });
    const assign = { t: 'assign', c: CONV, g: 'mei', tk: 1 };
    desk.step({ ...need, src: '3', fn: 1 }, fact(IN, 1, assign, 'desk:demo'), () => ({ h: 'agent:mei', e: { n: 1, v: 0, t: 'offered', c: CONV, tk: 1 } }));
    w.step({ ...assign, src: 'desk:demo', fn: 1 }, entry(6, 0, 'system', 'x-2', { ce: 3, kind: 'event', data: { code: 'offered', agent: 'mei' } }));
    w.step({ t: 'agent.accept', c: CONV, g: 'mei', tk: 1, s: 'a1', id: 'mei-1' }, record({ t: 'assigned', c: CONV, ce: 3, g: 'mei', tk: 1 }),
           entry(7, 6, 'system', 'x-3', { ce: 3, kind: 'event', data: { code: 'agent_joined', agent: 'mei' } }));
    w.step({ t: 'agent.message', c: CONV, g: 'mei', ce: 3, s: 'a1', id: 'mei-2' }, entry(8, 7, 'agent', 'mei-2', { ce: 3, who: 'mei' }));
    const p = w.p, list = p.out.flatMap(b => b.f).filter(f => f.h === `conv:${CONV}`).map(f => f.e);
    p.logs[CONV] = { base: 0, entries: list.map(e => ({ ...e })) };
    p.states.conv[CONV] = { control: 'assigned', agent: 'mei', ticket: 1, hold_gen: 4 };
    p.timers.push({ object: CONV, name: 'hold', gen: 4, due: 5000 });
    desk.p.desk = { waiting: [], slots: [{ agent: 'mei', conversation: CONV, ticket: 1 }] };
    const shown = ids => ids.map(([n, id]) => ({ g: '7', n, id }));
    const send = (id, n, more = {}) => ({ id, n, session: 's1', kind: 'message', acked: true, result: 'ok', ...more });
    const visitor = { name: 'v1', id: 'v1', kind: 'visitor', addr: ADDR, errors: [], sends: [send('v1-1', 1), send('v1-2', 2), send('v1-3', 3)],
        topics: { me: { items: shown([[1, 'v1-1'], [2, 'v1-2'], [3, 'b-1'], [4, 'v1-3'], [5, 'x-1'], [6, 'x-3'], [7, 'mei-2']]),
                        isOpenAtEnd: true, waited_s: 1 } } };
    const agent = { name: 'mei', id: 'mei', kind: 'agent', errors: [], sends: [send('mei-2', 2, { session: 'a1' })],
        topics: { [`conv:${CONV}`]: { items: shown([[6, 'x-2'], [7, 'x-3'], [8, 'mei-2']]), isOpenAtEnd: true }, me: { items: [{ g: '7', n: 1 }] } } };
    return { clients: [visitor, agent], partitions: { 3: p, 'desk:demo': desk.p }, bots, poison: [], gauges: { over: [], polls: 3, names: 4, isNeeded: true },
             probes: [], replay: [{ tag: '3', why: null }], drained: { ok: true, what: [] } };
}

const part = h => h.partitions[3];
const historyEntries = h => part(h).out.flatMap(b => b.f).filter(f => f.h === `conv:${CONV}`).map(f => f.e);
const broken = h => check(h).invariants.filter(i => !i.ok).map(i => i.name);

function sees(name, invariant, change, count) {
    test(name, () => {
        const h = good();
        change(h);
        const verdict = check(h);
        assert.ok(broken(h).includes(invariant), `${invariant} expected, found ${broken(h).join(' ') || 'nothing'}`);
        assert.equal(verdict.ok, false);
        if (count) assert.ok(verdict[count] > 0, `${count} is counted`);
    });
}

test('a right history is right', () => {
    const verdict = check(good());
    assert.deepEqual(verdict.invariants.filter(i => !i.ok), []);
    assert.equal(verdict.ok, true);
    assert.deepEqual([verdict.lost, verdict.doubled, verdict.reordered, verdict.stale], [0, 0, 0, 0]);
});

test('entry ids compare as numbers', () => {
    assert.ok(compareIds('9-0', '10-0') < 0);
    assert.ok(compareIds('10-2', '10-11') < 0);
    assert.equal(compareIds('10-2', '10-2'), 0);
});

test('an unacknowledged message may be in the history or not', () => {
    const h = good();
    h.clients[0].sends[2].acked = false;
    h.clients[0].sends.push({ id: 'v1-9', n: 4, session: 's1', kind: 'message', acked: false, result: null });
    assert.deepEqual(broken(h), []);
});

sees('an acknowledged message that is nowhere', 'I1', h => h.clients[0].sends.push({ id: 'v1-9', n: 4, session: 's1', kind: 'message', acked: true }), 'lost');
sees('a message twice, though never acknowledged', 'I1', h => {
    h.clients[0].sends[1].acked = false;
    historyEntries(h)[4].m = { ...historyEntries(h)[1].m };
}, 'doubled');
sees('a message in two conversations', 'I1', h => part(h).out[1].f.push(entry(1, 1, 'visitor', 'v1-2', { conv: OTHER })('2-0')), 'doubled');
sees('a server that forgot what it had acknowledged', 'I1', h => h.clients[0].errors.push('me: number 3 was acknowledged, the server knows 2'), 'lost');
sees('an agent\'s accepted message that is not there', 'I1', h => { h.clients[1].sends.push({ id: 'mei-7', n: 3, session: 'a1', kind: 'message', acked: true, result: 'ok' }); });
sees('a refused message that stands in the history', 'I1', h => { h.clients[1].sends[0].result = 'refused:stale'; });

test('an agent\'s message that step() refused is not missed', () => {
    const h = good();
    h.clients[1].sends.push({ id: 'mei-7', n: 3, session: 'a1', kind: 'message', acked: true, result: 'refused:stale' });
    assert.deepEqual(broken(h), []);
});

sees('a repeat that was appended', 'I2', h => { part(h).in[2].e = { ...part(h).in[1].e }; });

sees('history against the log', 'I3', h => {
    const e = historyEntries(h);
    [e[0].src, e[1].src] = [e[1].src, e[0].src];
}, 'reordered');
sees('a hole in the numbers', 'I3', h => { historyEntries(h)[7].n = 9; });
sees('a sender\'s messages in the wrong order', 'I3', h => {
    const e = historyEntries(h);
    [e[0].m, e[1].m] = [e[1].m, e[0].m];
}, 'reordered');
sees('a stored list that lost its end', 'I3', h => part(h).logs[CONV].entries.pop(), 'lost');
sees('a stored list with another entry', 'I3', h => { part(h).logs[CONV].entries[2].m = { id: 'else' }; });
sees('a socket that showed something twice', 'I3', h => h.clients[0].topics.me.items.splice(2, 0, { g: '7', n: 2, id: 'v1-2' }), 'reordered');
sees('a socket that passed something over', 'I3', h => h.clients[0].topics.me.items.splice(3, 1), 'lost');
sees('a socket that showed something else', 'I3', h => { h.clients[0].topics.me.items[2].id = 'else'; });
sees('an agent\'s socket with a hole', 'I3', h => h.clients[1].topics[`conv:${CONV}`].items.splice(1, 1));

test('a gap that the server told is no hole', () => {
    const h = good();
    h.clients[0].topics.me.items.splice(2, 2, { gap: true, g: '7', n: 4 });
    assert.deepEqual(broken(h), []);
});

sees('a fact delivered twice', 'I4', h => h.bots['bot:faq'].push(h.bots['bot:faq'][1]), 'doubled');
sees('a fact that never arrived', 'I4', h => h.bots['bot:faq'].pop(), 'lost');
sees('facts in the wrong order', 'I4', h => h.bots['bot:faq'].reverse());
sees('a fact that was delivered and never decided', 'I4', h => h.bots['bot:faq'].push({ id: '9-0', e: { t: 'task', src: '5', fn: 1 } }));
sees('a fact that changed on its way', 'I4', h => { h.bots['bot:faq'][1].e = { ...h.bots['bot:faq'][1].e, tn: 9 }; });
sees('a second answer to a turn', 'I4', h => {
    part(h).in[5].e = { t: 'answer', c: CONV, ce: 1, tn: 2 };
    part(h).out[4].f = [];
    part(h).out[5].f = [entry(4, 4, 'bot', 'b-2', { tn: 2 })('6-0')];
}, 'doubled');
sees('a fork without lost data', 'I4', h => { part(h).forks = 1; });

sees('events decided twice', 'I5', h => part(h).out.splice(2, 0, part(h).out[1]), 'doubled');
sees('an event passed over', 'I5', h => part(h).out.splice(2, 1), 'lost');
sees('a lease epoch that falls', 'I5', h => { part(h).out[4].b = { ...part(h).out[4].b, epoch: 4 }; });
sees('a command log trimmed too far', 'I5', h => part(h).in.shift());
sees('a zombie\'s commit taken', 'I5', h => h.probes.push({ what: 'commit_1', expected: 'FENCED', got: 'accepted' }));
sees('an offset that no batch explains', 'I5', h => { part(h).offset = '4-0'; });

sees('an answer of an old turn', 'I6', h => { part(h).in[3].e.tn = 1; }, 'stale');
sees('an answer of an old control epoch', 'I6', h => {
    part(h).out[3].f[0].e.ce = 2;
}, 'stale');
sees('a message of an agent who does not hold it', 'I6', h => { part(h).in[7].e.g = 'jun'; }, 'stale');
sees('a message of an agent under an old control epoch', 'I6', h => { part(h).in[7].e.ce = 2; }, 'stale');
sees('a control epoch that falls', 'I6', h => { historyEntries(h)[7].ce = 2; });

sees('a conversation without a deadline', 'I7', h => { part(h).timers = []; });
sees('a deadline of another generation', 'I7', h => { part(h).timers[0].gen = 3; });
sees('an assigned conversation that the desk does not know', 'I7', h => { h.partitions['desk:demo'].desk.slots = []; });
sees('a queued conversation that the desk does not know', 'I7', h => { part(h).states.conv[CONV] = { control: 'queued', ticket: 2, hold_gen: 4 }; });
sees('a slot that nobody uses', 'I7', h => h.partitions['desk:demo'].desk.slots.push({ agent: 'mei', conversation: OTHER, ticket: 1 }));

function deskHistory(...steps) {
    const h = good(), desk = writer('desk:demo');
    for (const [e, ...facts] of steps) desk.step(e, ...facts.map(x => () => ({ d: 'in:{9}', f: 1, e: x })));
    h.partitions['desk:demo'] = { ...desk.p, desk: h.partitions['desk:demo'].desk };
    return h;
}
const need = (c, more = {}) => ({ t: 'need', c, tk: 1, q: 'default', ...more });
const assign = (c, tk = 1) => ({ t: 'assign', c, g: 'mei', tk });
const online = { t: 'agent.online', g: 'mei', s: 'a1', cap: 1 };
const seesAtDesk = (name, ...steps) => test(name, () => assert.ok(broken(deskHistory(...steps)).includes('I8')));

seesAtDesk('an agent with more than her capacity', [online], [need('3.A'), assign('3.A')], [need('3.B'), assign('3.B')]);
seesAtDesk('a customer passed in line', [need('3.A')], [need('3.B')], [online, assign('3.B')]);
seesAtDesk('a customer who lost her place by coming back', [online], [need('3.A'), assign('3.A')], [need('3.B')],
           [need('3.A', { tk: 2, w: 1 })], [{ t: 'released', c: '3.A', tk: 1, g: 'mei' }, assign('3.B')]);
test('line and capacity kept', () => {
    const h = deskHistory([online], [need('3.A'), assign('3.A')], [need('3.B')], [need('3.C', { pr: 5 })],
                          [{ t: 'released', c: '3.A', tk: 1, g: 'mei' }, assign('3.C')], [{ t: 'released', c: '3.C', tk: 1, g: 'mei' }, assign('3.B')],
                          [need('3.D')], [{ t: 'cancel', c: '3.B', tk: 1 }, assign('3.D')], [need('3.E')], [{ t: 'cancel', c: '3.E', tk: 1 }]);
    assert.ok(!broken(h).includes('I8'));
});

function poisoned() {
    const h = good(), p = part(h);
    h.poison.push({ id: 'v2-1', tag: '3' });
    p.in.push({ id: '9-0', e: { t: 'message', a: 'demo/web/v2', s: 's2', id: 'v2-1' } });
    p.out.push({ id: '9-1', b: { epoch: 6, now: 2000, first: '9-0', last: '9-0', count: 1, dead: ['9-0'] },
                 f: [entry(1, 1, 'system', 'x-9', { conv: OTHER, kind: 'event', data: { code: 'dead', id: 'v2-1', entry: '9-0' } })('9-0'),
                     { e: { t: 'dead', id: '9-0', r: 'why' } }] });
    p.offset = '9-0';
    p.dead.push({ entry: '9-0', r: 'it ended the process that stepped it', ev: { t: 'message', id: 'v2-1' } });
    h.clients.push({ name: 'v2', id: 'v2', kind: 'visitor', addr: 'demo/web/v2', errors: [], topics: {},
                     sends: [{ id: 'v2-1', n: 1, session: 's2', kind: 'message', acked: true, result: 'refused:dead' }] });
    return h;
}
const seesPoison = (name, invariant, change) => test(name, () => {
    const h = poisoned();
    change(h);
    assert.ok(broken(h).includes(invariant), `${invariant} expected, found ${broken(h).join(' ') || 'nothing'}`);
});

test('poison in the dead letters with its placeholder is right', () => assert.deepEqual(broken(poisoned()), []));
seesPoison('poison that is not in the dead letters', 'I9', h => { part(h).dead = []; });
seesPoison('a dead letter without a reason', 'I9', h => { part(h).dead[0].r = ''; });
seesPoison('an innocent message in the dead letters', 'I9', h => { h.poison = []; part(h).dead[0].r = 'its effects were refused by the store'; });
seesPoison('a dead letter without a record', 'I9', h => { part(h).out[8].f.pop(); });
seesPoison('poison without a placeholder is lost', 'I1', h => { part(h).out[8].f.shift(); });
seesPoison('a message in the history and in the dead letters', 'I1', h => { part(h).dead.push({ entry: '9-0', r: 'x', ev: { id: 'v1-1' } }); });

sees('a gauge over its maximum', 'I10', h => h.gauges.over.push({ process: 'gateway0', name: 'sluice_x', value: 5, max: 4 }));
sees('no gauge at all', 'I10', h => { h.gauges.names = 0; });
sees('an open socket that is behind', 'I11', h => h.clients[0].topics.me.items.pop());
sees('a replay with other bytes', 'I12', h => { h.replay[0].why = 'fact 3 differs'; });

test('what did not drain is stalled, never lost', () => {
    const h = good();
    h.drained = { ok: false, what: ['{3}: offset 7-0'] };
    const verdict = check(h);
    assert.equal(verdict.stalled, true);
    assert.equal(verdict.ok, false);
    assert.equal(verdict.lost, 'not known (stalled)');
});
