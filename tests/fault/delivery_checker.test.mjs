// Hand-made histories: the judge must find each wrong, and nothing in a good one.
import assert from 'node:assert/strict';
import test from 'node:test';
import { check, figures } from './delivery_checker.mjs';

const delivery = (n, of, state) => ({ n, by: 'system', text: '', delivery: { of, state } });
function good(policy = 'at_most_once') {
    return {
        customers: [{ channel: 'c', id: 'u', asked: [{ text: 'q1', acknowledged: true }, { text: 'q2', acknowledged: true }, { text: 'q3', acknowledged: false }] }],
        conversations: [{ id: 'A', channel: 'c', customer: 'u', entries: [
            { n: 1, by: 'visitor', text: 'q1' }, { n: 2, by: 'bot', text: 'a1' }, delivery(3, 2, 'sent'), delivery(4, 2, 'delivered'),
            { n: 5, by: 'visitor', text: 'q2' }, { n: 6, by: 'bot', text: 'a2' }, delivery(7, 6, 'unknown')] }],
        sends: { c: { 'A/2': { state: 'delivered' }, 'A/6': { state: 'unknown' } } },
        accepted: { c: [{ to: 'u', text: 'a1', id: 'p1', key: 'k1' }] },
        phones: { c: { u: ['a1'] } },
        receipts: { c: [{ id: 'p1', word: 'delivered', acknowledged: true }] },
        policies: { c: policy }, dead: [],
    };
}
const found = h => check(h).invariants.filter(i => !i.ok).map(i => i.name).join(' ');
const wrong = (title, name, change, policy) => test(title, () => {
    const h = good(policy);
    change(h, h.conversations[0].entries);
    assert.equal(found(h), name);
});

test('a good history has nothing wrong, and its figures', () => {
    assert.equal(found(good()), '');
    assert.deepEqual(figures(good()).c, { policy: 'at_most_once', asked: 2, answers: 2, sent: 0, delivered: 1, read: 0, failed: 0, unknown: 1, twice: 0, receipts: 1 });
});
wrong('an acknowledged message that is nowhere', 'D1', (_h, e) => e.splice(4, 1));
test('... but in the dead letters it is somewhere', () => {
    const h = good();
    h.conversations[0].entries.splice(4, 1);
    h.dead.push('q2');
    assert.equal(found(h), '');
});
wrong('a message twice in the history', 'D1', (_h, e) => e.push({ n: 9, by: 'visitor', text: 'q1' }));
wrong('a conversation with a stranger', 'D1', h => h.conversations.push({ id: 'B', channel: 'c', customer: 'w', entries: [] }));
wrong('an answer without an end', 'D2', (_h, e) => e.pop());
wrong('the lane still sends', 'D2', h => { h.sends.c['A/6'].state = 'sending'; });
wrong('twice on the phone under at_most_once', 'D3', h => h.phones.c.u.push('a1'));
wrong('twice on the phone at an idempotent provider', 'D3', h => h.phones.c.u.push('a1'), 'idempotent');
wrong('twice on the phone is allowed under at_least_once', '', h => h.phones.c.u.push('a1'), 'at_least_once');
wrong('shown as sent, never taken', 'D4', h => { h.accepted.c = []; h.receipts.c = []; });
wrong('shown as failed, and taken', 'D5', (h, e) => { e[6] = delivery(7, 6, 'failed'); h.accepted.c.push({ to: 'u', text: 'a2', id: 'p2', key: 'k2' }); });
wrong('failed by a receipt is right', '', (h, e) => {
    e.push(delivery(8, 6, 'sent'), delivery(9, 6, 'failed'));
    e.splice(6, 1);
    h.sends.c['A/6'].state = 'failed';
    h.accepted.c.push({ to: 'u', text: 'a2', id: 'p2', key: 'k2' });
    h.receipts.c.push({ id: 'p2', word: 'failed', acknowledged: true });
});
wrong('out of order at the provider', 'D6', h => h.accepted.c.unshift({ to: 'u', text: 'a2', id: 'p2', key: 'k2' }));
wrong('a state that goes backwards', 'D7', (_h, e) => e.push(delivery(8, 2, 'sent')));
wrong('failed after delivered', 'D5 D7', (_h, e) => e.push(delivery(8, 2, 'failed')));
wrong('a receipt that is lost', 'D8', (h, e) => { e.splice(3, 1); h.sends.c['A/2'].state = 'sent'; });
wrong('... but in the dead letters it is somewhere', '', (h, e) => { e.splice(3, 1); h.sends.c['A/2'].state = 'sent'; h.deadReceipts = ['P1']; });
wrong('a receipt of an unknown message that waits', '', (h, e) => { e.splice(2, 2, delivery(3, 2, 'unknown')); h.sends.c['A/2'].state = 'unknown'; h.early = { c: ['P1'] }; });
wrong('... and one that is gone', 'D8', (h, e) => { e.splice(2, 2, delivery(3, 2, 'unknown')); h.sends.c['A/2'].state = 'unknown'; });
wrong('a repeat under another key', 'D9', h => h.accepted.c.push({ to: 'u', text: 'a1', id: 'p3', key: 'k9', dropped: false }), 'at_least_once');
