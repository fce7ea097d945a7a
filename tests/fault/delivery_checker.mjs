// The judge of delivery: what customers wrote, what the store holds, what providers took, what phones show, what receipts were told.
// Pure. Every text is unique, so a text names a message; texts that are not (notices of the router) are left out by `isOurs`.
//
// history = {
//   customers: [{channel, id, asked: [{text, acknowledged}]}]
//   conversations: [{id, channel, customer, entries: [{n, by, text, delivery: {of, state} | undefined}]}]
//   sends: {channel: {"<conversation>/<n>": {state, remote}}}          the lanes' own state
//   accepted: {channel: [{to, text, key, id, dropped, provisional}]}   what the provider took, in order
//   phones: {channel: {customer: [text]}}
//   early: {channel: [provider's id]}                                  receipts whose send the lane does not know (yet), and ids it knows
//   receipts: {channel: [{id, word, acknowledged}]}
//   policies: {channel: at_most_once | at_least_once | idempotent | queryable}
//   dead: [text], deadReceipts: [provider's id]                        of dead letters
// }

const TERMINAL = new Set(['sent', 'delivered', 'read', 'failed', 'unknown']);
const RANK = { sent: 1, delivered: 2, read: 3 };
const ONCE = new Set(['at_most_once', 'idempotent', 'queryable']);

export const TITLES = {
    D1: 'every acknowledged message of a customer once in the history, or in the dead letters',
    D2: 'every message to a customer has ended: sent, delivered, read, failed or unknown',
    D3: 'none is on a phone twice under at_most_once, at an idempotent or a queryable provider',
    D4: 'none is shown as sent that the provider never took', D5: 'none is shown as failed that the provider took and did not fail',
    D6: 'each conversation reaches the provider in its order', D7: 'no state goes backwards, in the history and for the agent',
    D8: 'no acknowledged receipt is lost: it is shown, waits, or is in the dead letters', D9: 'a repeat carries the key of the first try',
};

class Verdict {
    constructor() { this.found = Object.fromEntries(Object.keys(TITLES).map(name => [name, []])); }
    wrong(name, text) { this.found[name].push(text); }
    get list() { return Object.entries(this.found).map(([name, examples]) => ({ name, ok: examples.length === 0, count: examples.length, examples: examples.slice(0, 5) })); }
}

const count = (map, key) => map.set(key, (map.get(key) ?? 0) + 1);

function checkInbound(h, v) {
    const stored = new Map(), dead = new Set(h.dead);
    for (const c of h.conversations) for (const e of c.entries) if (e.by === 'visitor') count(stored, `${c.channel} ${c.customer} ${e.text}`);
    for (const { channel, id, asked } of h.customers)
        for (const { text, acknowledged } of asked) {
            const n = stored.get(`${channel} ${id} ${text}`) ?? 0;
            if (n > 1) v.wrong('D1', `${channel}: "${text}" of ${id} is ${n} times in the history`);
            if (n === 0 && acknowledged && !dead.has(text)) v.wrong('D1', `${channel}: "${text}" of ${id} was acknowledged and is nowhere`);
        }
}

// The states that were shown of each message, in their order; then what the lane says.
function statesOf(conversation) {
    const shown = new Map();
    for (const e of conversation.entries) if (e.delivery) shown.set(e.delivery.of, [...shown.get(e.delivery.of) ?? [], e.delivery.state]);
    return shown;
}

function checkStates(conversation, shown, v) {
    for (const [of, states] of shown)
        for (let i = 1; i < states.length; i++) {
            const [before, now] = [states[i - 1], states[i]];
            const isBack = (RANK[now] ?? 0) < (RANK[before] ?? 0) && now !== 'failed' || before === 'failed' && now !== 'failed' && !RANK[now];
            if (isBack || (RANK[before] >= RANK.delivered && now === 'failed')) v.wrong('D7', `${conversation.id}/${of}: ${states.join(', ')}`);
        }
}

// A history that names nobody we know would prove nothing.
function checkKnown(h, v) {
    const known = new Set(h.customers.map(c => `${c.channel} ${c.id}`));
    for (const c of h.conversations) if (!known.has(`${c.channel} ${c.customer}`)) v.wrong('D1', `${c.channel}: a conversation with ${c.customer}, who is no customer`);
}

function checkOutbound(h, v, isOurs) {
    const tookOf = new Map();      // channel text -> tries that the provider took
    for (const [channel, list] of Object.entries(h.accepted)) for (const a of list) tookOf.set(`${channel} ${a.text}`, [...tookOf.get(`${channel} ${a.text}`) ?? [], a]);
    const failedReceipts = new Map(Object.entries(h.receipts).map(([channel, list]) => [channel, new Set(list.filter(r => r.word === 'failed').map(r => r.id))]));
    for (const c of h.conversations) {
        const shown = statesOf(c), policy = h.policies[c.channel];
        checkStates(c, shown, v);
        for (const e of c.entries) {
            if (!isOurs(e)) continue;
            const name = `${c.channel} ${c.id}/${e.n} "${e.text}"`, took = tookOf.get(`${c.channel} ${e.text}`) ?? [];
            const state = shown.get(e.n)?.at(-1), lane = h.sends[c.channel]?.[`${c.id}/${e.n}`]?.state;
            if (!TERMINAL.has(state)) v.wrong('D2', `${name}: the history says ${state ?? 'nothing'}, the lane ${lane ?? 'nothing'}`);
            else if (lane !== undefined && !TERMINAL.has(lane)) v.wrong('D2', `${name}: the lane says ${lane}`);
            const onPhone = (h.phones[c.channel]?.[c.customer] ?? []).filter(text => text === e.text).length;
            if (ONCE.has(policy) && onPhone > 1) v.wrong('D3', `${name}: ${onPhone} times on the phone under ${policy}`);
            if (state in RANK && took.length === 0) v.wrong('D4', `${name}: shown as ${state}`);
            if (state === 'failed' && took.length > 0 && !took.some(a => failedReceipts.get(c.channel)?.has(a.id))) v.wrong('D5', `${name}: the provider took it ${took.length} times`);
            if (took.some(a => a.key !== took[0].key)) v.wrong('D9', `${name}: keys ${took.map(a => a.key).join(', ')}`);
        }
    }
}

function checkOrder(h, v, isOurs) {
    for (const c of h.conversations) {
        const first = new Map();
        (h.accepted[c.channel] ?? []).forEach((a, i) => { if (a.to === c.customer && !first.has(a.text)) first.set(a.text, i); });
        let last = -1, lastName = '';
        for (const e of c.entries) {
            const at = isOurs(e) ? first.get(e.text) : undefined;
            if (at === undefined) continue;
            if (at < last) v.wrong('D6', `${c.channel} ${c.id}: "${e.text}" reached the provider before "${lastName}"`);
            [last, lastName] = [at, e.text];
        }
    }
}

// A receipt that we acknowledged must be found in what is shown, unless a later one says more. When the answer to the send never came, nobody
// told us that id: then the message is unknown, and the receipt waits among the lane's early ones.
function checkReceipts(h, v, isOurs) {
    const dead = new Set((h.deadReceipts ?? []).map(id => id.toLowerCase()));
    for (const [channel, list] of Object.entries(h.receipts)) {
        const messageOf = new Map(), early = new Set((h.early?.[channel] ?? []).map(id => id.toLowerCase()));
        for (const a of h.accepted[channel] ?? []) messageOf.set(a.id, a);
        for (const r of list) {
            const a = messageOf.get(r.id);
            if (!r.acknowledged || !a || (r.word !== 'delivered' && r.word !== 'failed')) continue;
            const c = h.conversations.find(one => one.channel === channel && one.customer === a.to && one.entries.some(e => isOurs(e) && e.text === a.text));
            const entry = c?.entries.find(e => isOurs(e) && e.text === a.text);
            if (!entry) continue;      // a notice of the router, or not ours
            const states = statesOf(c).get(entry.n) ?? [], isTold = r.word === 'delivered' ? states.some(s => RANK[s] >= RANK.delivered) : states.includes('failed');
            const other = list.some(o => o !== r && o.id === r.id && o.acknowledged && o.word !== r.word && (o.word === 'delivered' || o.word === 'failed'));
            const waits = states.at(-1) === 'unknown' && early.has(r.id.toLowerCase());
            if (!isTold && !other && !waits && !dead.has(r.id.toLowerCase())) v.wrong('D8', `${channel} ${c.id}/${entry.n}: ${r.word} of ${r.id} was acknowledged, shown is ${states.join(', ') || 'nothing'}`);
        }
    }
}

export function check(history, isOurs = e => e.by === 'bot' || e.by === 'agent') {
    const v = new Verdict();
    checkKnown(history, v);
    checkInbound(history, v);
    checkOutbound(history, v, isOurs);
    checkOrder(history, v, isOurs);
    checkReceipts(history, v, isOurs);
    const invariants = v.list;
    return { ok: invariants.every(i => i.ok), invariants };
}

// What was met: a judge who saw nothing finds nothing.
export function figures(h, isOurs = e => e.by === 'bot' || e.by === 'agent') {
    const out = {};
    for (const c of h.conversations) {
        const f = (out[c.channel] ??= { policy: h.policies[c.channel], asked: 0, answers: 0, sent: 0, delivered: 0, read: 0, failed: 0, unknown: 0, twice: 0, receipts: 0 }), shown = statesOf(c);
        for (const e of c.entries) {
            if (e.by === 'visitor') f.asked++;
            if (!isOurs(e)) continue;
            f.answers++;
            const state = shown.get(e.n)?.at(-1);
            if (state in f) f[state]++;
            if ((h.phones[c.channel]?.[c.customer] ?? []).filter(t => t === e.text).length > 1) f.twice++;
        }
    }
    for (const [channel, f] of Object.entries(out)) f.receipts = (h.receipts[channel] ?? []).filter(r => r.acknowledged).length;
    return out;
}
