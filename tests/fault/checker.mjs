// The history checker: a pure function from what clients saw and what is stored to a verdict.
//
// What     check(history) -> {invariants, lost, doubled, reordered, stale, ...}. No I/O, no clock, nothing random.
// Input    clients     [{name, kind, addr, sends, topics, errors}]     recorded by clients.mjs
//          partitions  {tag: {in, out, offset, num, marks, forks, timers, dead, states, logs}}   read by collect.mjs
//          bots        {stream: entries}     poison, gauges, probes, replay, drained: see README.md
// Rule     (Jepsen's) a message that was not acknowledged may be in the history or not, but never twice.
// Test     checker.test.mjs holds a hand-made history for every rule below, good and bad.

export const INVARIANTS = ['I1', 'I2', 'I3', 'I4', 'I5', 'I6', 'I7', 'I8', 'I9', 'I10', 'I11', 'I12'];
const EXAMPLES_MAX = 5;
const WANTED_CODES = new Set(['offered', 'agent_joined']);

// ---- small helpers ----

const idParts = id => id.split('-').map(Number);

export function compareIds(a, b) {
    const [aMs, aSeq] = idParts(a), [bMs, bSeq] = idParts(b);
    return aMs - bMs || aSeq - bSeq;
}

class Verdict {
    constructor() {
        this.found = Object.fromEntries(INVARIANTS.map(name => [name, { count: 0, examples: [] }]));
        this.counts = { lost: 0, doubled: 0, reordered: 0, stale: 0 };
    }

    violate(name, text, kind) {
        const f = this.found[name];
        f.count++;
        if (f.examples.length < EXAMPLES_MAX) f.examples.push(text);
        if (kind) this.counts[kind]++;
    }
}

const isDesk = tag => tag.startsWith('desk:');
const partitionOf = conversation => conversation.slice(0, conversation.indexOf('.'));

// Later a caller wants: entries of in:{tag} by id, histories by conversation, which batch an entry was decided in.
function indexPartition(tag, p) {
    const at = new Map();
    p.in.forEach((entry, i) => at.set(entry.id, i));
    const histories = new Map();
    for (const batch of p.out) {
        for (const f of batch.f) {
            if (f.h === undefined) continue;
            const list = histories.get(f.h) ?? [];
            list.push({ entry: f.e, batch });
            histories.set(f.h, list);
        }
    }
    return { tag, p, at, histories, event: id => (at.has(id) ? p.in[at.get(id)].e : undefined) };
}

export function check(history) {
    const verdict = new Verdict();
    const world = { history, verdict, parts: new Map(), conversations: new Map(), byAddress: new Map() };
    for (const [tag, p] of Object.entries(history.partitions)) world.parts.set(tag, indexPartition(tag, p));
    for (const part of world.parts.values()) {
        for (const [object, list] of part.histories) {
            if (object.startsWith('conv:')) world.conversations.set(object.slice(5), { part, list });
        }
        for (const batch of part.p.out)
            for (const f of batch.f)
                if (f.e.t === 'opened') world.byAddress.set(f.e.a, [...(world.byAddress.get(f.e.a) ?? []), f.e.c]);
    }
    for (const rule of [messagesOnce, repeatsChangeNothing, historyOrder, senderOrder, displays, factsOnce, turnsOnce,
                        commitsInLine, placesAndDeadlines, capacityAndLine, deadLetters, gauges, replays])
        rule(world);
    return finish(world);
}

function finish({ history, verdict, conversations }) {
    const drained = history.drained ?? { ok: true, what: [] };
    const invariants = INVARIANTS.map(name => ({ name, ok: verdict.found[name].count === 0, ...verdict.found[name] }));
    const entries = [...conversations.values()].reduce((n, c) => n + c.list.length, 0);
    return { ok: drained.ok && invariants.every(i => i.ok), stalled: !drained.ok, drained, invariants, entries,
             conversations: conversations.size, ...verdict.counts,
             lost: drained.ok ? verdict.counts.lost : 'not known (stalled)' };
}

// ---- I1: every acknowledged message once, in one conversation or in the dead letters with a placeholder ----

const isPlaceholder = entry => entry.m?.by === 'system' && entry.m?.data?.code === 'dead';

function sightings({ conversations, parts }) {
    const seen = new Map();
    const add = (id, where) => seen.set(id, [...(seen.get(id) ?? []), where]);
    for (const [conversation, { list }] of conversations) {
        for (const { entry } of list)
            if (entry.m && entry.m.by !== 'system' && entry.m.by !== 'bot') add(entry.m.id, `history of ${conversation}`);
    }
    const placeholders = new Set();
    for (const { list } of conversations.values())
        for (const { entry } of list) if (isPlaceholder(entry)) placeholders.add(entry.m.data.entry);
    for (const { tag, p } of parts.values()) {
        for (const d of p.dead)
            if (d.ev.id && placeholders.has(d.entry)) add(d.ev.id, `dead letters of ${tag} (${d.entry})`);
    }
    return seen;
}

function whereIs(world, id) {
    for (const { tag, p } of world.parts.values())
        for (const entry of p.in) if (entry.e.id === id) return `it stands in in:{${tag}} as ${entry.id}`;
    return 'it stands in no command log';
}

function messagesOnce(world) {
    const seen = sightings(world);
    world.seen = seen;
    world.acknowledged = world.unacknowledged = 0;
    for (const client of world.history.clients) {
        for (const send of client.sends) {
            if (send.kind !== 'message') continue;
            const places = seen.get(send.id) ?? [];
            const what = `${client.name} ${send.id} (session ${send.session}, number ${send.n})`;
            if (places.length > 1)
                world.verdict.violate('I1', `${what} stands in ${places.length} places: ${places.join('; ')}`, 'doubled');
            if (mustStand(client, send) && places.length === 0)
                world.verdict.violate('I1', `${what} was acknowledged and is nowhere; ${whereIs(world, send.id)}`, 'lost');
            if (isDecidedAgainst(send) && places.length > 0)
                world.verdict.violate('I1', `${what} was refused (${send.result}) and yet stands in ${places[0]}`);
            if (send.acked) world.acknowledged++;
            else world.unacknowledged++;
        }
        for (const error of client.errors) world.verdict.violate('I1', `${client.name}: ${error}`, 'lost');
    }
}

// Refused by step(); codes in capitals are an edge's, which may not know of an earlier copy.
const isDecidedAgainst = send => /^refused:[a-z]/.test(send.result ?? '') && send.result !== 'refused:dead';

// An agent's message may be acknowledged (durable) and then refused by step(), because the conversation went on.
function mustStand(client, send) {
    if (client.kind === 'agent') return send.result === 'ok';
    return send.acked && !isDecidedAgainst(send);
}

// ---- I2: a repeat of the same message is in the command log once ----

function repeatsChangeNothing({ parts, verdict }) {
    for (const { tag, p } of parts.values()) {
        const first = new Map();
        for (const { id, e } of p.in) {
            if (!e.id || !e.s) continue; // only what sockets sent
            const key = `${e.s} ${e.c ?? ''} ${e.id}`;
            if (first.has(key))
                verdict.violate('I2', `${e.id} of session ${e.s} stands twice in in:{${tag}}: ${first.get(key)} and ${id}`);
            else first.set(key, id);
        }
    }
}

// ---- I3: history order is the order of the command log, and each sender's; sockets show it ----

function historyOrder({ conversations, verdict }) {
    for (const [conversation, { part, list }] of conversations) {
        let before = null, visible = 0;
        list.forEach(({ entry, batch }, i) => {
            const what = `entry ${entry.n} of ${conversation}`;
            if (entry.n !== i + 1)
                verdict.violate('I3', `${what}: number ${i + 1} was expected`, entry.n <= i ? 'doubled' : 'lost');
            if (entry.v !== 0 && entry.v !== ++visible) {
                verdict.violate('I3', `${what}: visible number ${entry.v}, ${visible} was expected`);
                visible = entry.v;
            }
            if (before !== null && compareIds(entry.src, before) < 0)
                verdict.violate('I3', `${what} comes from ${entry.src}, the one before it from ${before}`, 'reordered');
            if (!part.at.has(entry.src))
                verdict.violate('I3', `${what} comes from ${entry.src}, which is not in in:{${part.tag}}`);
            else if (compareIds(entry.src, batch.b.first) < 0 || compareIds(entry.src, batch.b.last) > 0)
                verdict.violate('I3', `${what} comes from ${entry.src}, outside its batch ${batch.b.first}..${batch.b.last}`);
            before = entry.src;
        });
        storedAsDecided(part, conversation, list, verdict);
    }
}

// The list that is stored (perhaps cut at its front) is the history that was decided.
function storedAsDecided(part, conversation, list, verdict) {
    const stored = part.p.logs[conversation];
    if (!stored) return;
    const from = list.length - stored.entries.length;
    if (stored.base !== from)
        verdict.violate('I3', `log of ${conversation}: base ${stored.base} and ${stored.entries.length} entries, ` +
            `but ${list.length} were decided`, stored.base + stored.entries.length < list.length ? 'lost' : 'doubled');
    for (let i = 0; i < stored.entries.length && from + i >= 0 && from + i < list.length; i++) {
        const decided = list[from + i].entry, found = stored.entries[i];
        if (found.n === decided.n && found.m?.id === decided.m?.id) continue;
        verdict.violate('I3', `log of ${conversation} has ${found.m?.id} (${found.n}) where ${decided.m?.id} (${decided.n}) was decided`,
                        'reordered');
        return;
    }
}

function senderOrder({ history, conversations, verdict }) {
    const rank = new Map();
    for (const [conversation, { list }] of conversations)
        list.forEach(({ entry }, i) => { if (entry.m?.by === 'visitor' || entry.m?.by === 'agent') rank.set(entry.m.id, { conversation, i }); });
    for (const client of history.clients) {
        const last = new Map(); // conversation -> the last one seen
        for (const send of client.sends) {
            const at = rank.get(send.id);
            if (send.kind !== 'message' || at === undefined || send.indeterminate) continue;
            const before = last.get(at.conversation);
            if (before && at.i < before.i)
                verdict.violate('I3', `${client.name} sent ${before.id} before ${send.id}; ${at.conversation} has them the other way`,
                                'reordered');
            if (!before || at.i > before.i) last.set(at.conversation, { id: send.id, i: at.i });
        }
    }
}

// What a socket showed: the history's numbers one after the other, each with the entry that the history has there.
function displays(world) {
    for (const client of world.history.clients) {
        for (const [topic, shown] of Object.entries(client.topics)) {
            const truth = truthOf(world, client, topic);
            if (truth) checkDisplay(world, `${client.name} ${topic}`, shown, truth);
        }
    }
}

// number -> id, as the topic counts: visitors count what they see, agents everything.
function truthOf(world, client, topic) {
    const ids = new Map();
    if (client.kind === 'visitor') {
        const own = world.byAddress.get(client.addr) ?? [];
        if (own.length !== 1) return null; // several conversations: their generations are told apart by the client
        for (const { entry } of world.conversations.get(own[0])?.list ?? []) if (entry.v) ids.set(entry.v, entry.m.id);
        return ids;
    }
    if (topic === 'me') { // an agent's own log
        for (const part of world.parts.values())
            for (const { entry } of part.histories.get(`agent:${client.id}`) ?? []) ids.set(entry.n, undefined);
        return ids;
    }
    if (!topic.startsWith('conv:')) return null;
    for (const { entry } of world.conversations.get(topic.slice(5))?.list ?? []) ids.set(entry.n, entry.m.id);
    return ids;
}

function checkDisplay({ verdict }, who, shown, truth) {
    let before = null;
    for (const item of shown.items) {
        if (item.gap || item.fresh) { // told by the server that the rest is no longer kept, or a new subscription
            before = item.gap ? item.n : null;
            continue;
        }
        if (before !== null && item.n <= before)
            verdict.violate('I3', `${who} showed ${item.id} (number ${item.n}) after number ${before}`, 'reordered');
        else if (before !== null && item.n !== before + 1)
            verdict.violate('I3', `${who} showed number ${item.n} after ${before}: ${item.n - before - 1} never shown`, 'lost');
        if (!truth.has(item.n))
            verdict.violate('I3', `${who} showed ${item.id} as number ${item.n}, which the history does not have`);
        else if (item.id !== undefined && truth.get(item.n) !== item.id)
            verdict.violate('I3', `${who} showed ${item.id} as number ${item.n}; the history has ${truth.get(item.n)}`, 'reordered');
        before = Math.max(before ?? 0, item.n);
    }
    if (shown.isOpenAtEnd && truth.size > 0 && (before ?? 0) < Math.max(...truth.keys()))
        verdict.violate('I11', `${who} stayed open and shows ${before ?? 0} of ${Math.max(...truth.keys())} after ${shown.waited_s} s`);
}

// ---- I4: facts once and in order; a turn has one answer ----

function destinationLog(world, destination) {
    if (world.history.bots[destination]) return world.history.bots[destination];
    const tag = /^in:\{(.*)\}$/.exec(destination)?.[1];
    return tag === undefined ? undefined : world.parts.get(tag)?.p.in;
}

function arrivals(world) {
    const by = new Map(); // destination -> source -> [event]
    const take = (destination, entries) => {
        for (const { id, e } of entries) {
            if (!e.src || !e.fn) continue;
            const sources = by.get(destination) ?? new Map();
            by.set(destination, sources);
            sources.set(e.src, [...(sources.get(e.src) ?? []), { id, e }]);
        }
    };
    for (const [stream, entries] of Object.entries(world.history.bots)) take(stream, entries);
    for (const { tag, p } of world.parts.values()) take(`in:{${tag}}`, p.in);
    return by;
}

const sameEvent = (a, b) => {
    const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
    for (const k of keys) if (JSON.stringify(a[k]) !== JSON.stringify(b[k])) return k;
    return null;
};

function factsOnce(world) {
    const arrived = arrivals(world), decided = new Map();
    for (const { tag, p } of world.parts.values()) {
        const numbers = new Map();
        for (const batch of p.out) {
            for (const f of batch.f) {
                if (f.d === undefined) continue;
                const next = (numbers.get(f.d) ?? 0) + 1;
                if (f.f !== next)
                    world.verdict.violate('I4', `out:{${tag}} ${batch.id}: fact ${f.f} for ${f.d}, ${next} was expected`);
                numbers.set(f.d, f.f);
                const key = `${tag} ${f.d}`;
                decided.set(key, [...(decided.get(key) ?? []), f]);
            }
        }
        for (const [destination, last] of numbers) {
            if (p.num[destination] !== last)
                world.verdict.violate('I4', `num:{${tag}} says ${p.num[destination]} for ${destination}, the fact log ends with ${last}`);
            compareArrivals(world, tag, destination, decided.get(`${tag} ${destination}`), arrived.get(destination)?.get(tag) ?? []);
        }
        if (p.forks > 0) world.verdict.violate('I4', `from:{${tag}} counts ${p.forks} forks though no data was lost`);
    }
    for (const [destination, sources] of arrived)
        for (const source of sources.keys())
            if (!decided.has(`${source} ${destination}`))
                world.verdict.violate('I4', `${destination} has facts from ${source}, whose fact log has none for it`);
}

function compareArrivals(world, tag, destination, facts, got) {
    if (destinationLog(world, destination) === undefined) return;
    let next = 1;
    for (const { id, e } of got) {
        const what = `${destination} ${id}: fact ${e.fn} of ${tag}`;
        if (e.fn < next) world.verdict.violate('I4', `${what} is there again`, 'doubled');
        else if (e.fn > next) world.verdict.violate('I4', `${what} follows ${next - 1}: ${e.fn - next} missing`, 'lost');
        const fact = facts[e.fn - 1];
        const differs = fact ? sameEvent(fact.e, e) : 'existence';
        if (differs) world.verdict.violate('I4', `${what} is not what out:{${tag}} says (${differs})`);
        next = Math.max(next, e.fn + 1);
    }
    if (next <= facts.length)
        world.verdict.violate('I4', `${destination} has ${next - 1} of ${facts.length} facts of ${tag}`, 'lost');
}

// Walks a partition's decisions in order and follows control epoch, turn and holder of each conversation.
function turnsOnce(world) {
    for (const part of world.parts.values()) {
        if (isDesk(part.tag)) continue;
        const talks = new Map();
        for (const batch of part.p.out) for (const f of batch.f) followRecord(world, part, talks, f);
    }
}

function talkOf(talks, conversation) {
    if (!talks.has(conversation)) talks.set(conversation, { control: 0, turn: 0, isAnswered: true, agent: null, offered: null });
    return talks.get(conversation);
}

function raise(world, what, talk, control) {
    if (control === undefined) return;
    if (control < talk.control)
        world.verdict.violate('I6', `${what}: control epoch ${control} after ${talk.control}`);
    if (control > talk.control) talk.agent = talk.control === 0 ? talk.agent : null;
    talk.control = Math.max(talk.control, control);
}

function followRecord(world, part, talks, f) {
    if (f.h?.startsWith('conv:')) return followEntry(world, part, talkOf(talks, f.h.slice(5)), f.h.slice(5), f.e);
    const e = f.e;
    if (f.h !== undefined || f.d !== undefined || !e.c) return undefined;
    const talk = talkOf(talks, e.c);
    if (e.t === 'turn') {
        raise(world, `turn ${e.tn} of ${e.c}`, talk, e.ce);
        if (e.tn !== talk.turn + 1) world.verdict.violate('I4', `${e.c}: turn ${e.tn} after ${talk.turn}`);
        talk.turn = e.tn;
        talk.isAnswered = false;
    } else if (e.t === 'queued' || e.t === 'closed') {
        raise(world, `${e.t} of ${e.c}`, talk, e.ce);
        talk.agent = talk.offered = null;
    } else if (e.t === 'assigned') {
        raise(world, `assigned of ${e.c}`, talk, e.ce);
        talk.agent = e.g;
    }
    return undefined;
}

function followEntry(world, part, talk, conversation, entry) {
    const what = `entry ${entry.n} of ${conversation}`;
    raise(world, what, talk, entry.ce);
    const cause = part.event(entry.src);
    const code = entry.m?.data?.code;
    if (entry.m?.by === 'system' && WANTED_CODES.has(code)) talk.offered = entry.m.data.agent;
    if (entry.m?.by === 'bot') followAnswer(world, talk, what, entry, cause);
    if (entry.m?.by === 'agent') followAgent(world, talk, what, entry, cause);
}

function followAnswer(world, talk, what, entry, cause) {
    if (cause?.t !== 'answer') {
        world.verdict.violate('I6', `${what} is a bot's and comes from ${cause?.t ?? 'nothing'} ${entry.src}`);
        return;
    }
    if (cause.ce !== talk.control)
        world.verdict.violate('I6', `${what} was made under control epoch ${cause.ce}, the conversation is at ${talk.control}`, 'stale');
    else if (cause.tn !== talk.turn)
        world.verdict.violate('I6', `${what} answers turn ${cause.tn}, the conversation is at ${talk.turn}`, 'stale');
    else if (talk.isAnswered)
        world.verdict.violate('I4', `${what} is a second answer to turn ${cause.tn}`, 'doubled');
    talk.isAnswered = true;
}

function followAgent(world, talk, what, entry, cause) {
    if (cause === undefined) return; // I3 reports it
    if (cause.ce !== undefined && cause.ce !== entry.ce)
        world.verdict.violate('I6', `${what} was made under control epoch ${cause.ce}, the conversation is at ${entry.ce}`, 'stale');
    const holders = entry.m.kind === 'note' ? [talk.agent, talk.offered] : [talk.agent];
    if (!holders.includes(cause.g))
        world.verdict.violate('I6', `${what} is by ${cause.g}, the conversation is with ${talk.agent ?? 'nobody'}`, 'stale');
}

// ---- I5: one line of commits ----

// The batches tile the command log: no event is decided twice or passed over, and lease epochs never fall.
function commitsInLine({ parts, history, verdict }) {
    for (const { tag, p } of parts.values()) {
        let at = 0, epoch = 0;
        for (const { id, b } of p.out) {
            const what = `out:{${tag}} ${id} (${b.first}..${b.last}, ${b.count})`;
            if (b.epoch < epoch) verdict.violate('I5', `${what}: lease epoch ${b.epoch} after ${epoch}`);
            epoch = Math.max(epoch, b.epoch);
            const first = p.in.findIndex((entry, i) => i >= at - b.count && entry.id === b.first);
            if (first < 0) verdict.violate('I5', `${what}: its first event is not in the command log any more`, 'lost');
            else if (first < at) verdict.violate('I5', `${what}: ${at - first} events decided before`, 'doubled');
            else if (first > at) verdict.violate('I5', `${what}: ${first - at} events passed over, the first is ${p.in[at].id}`, 'lost');
            const start = first < 0 ? at : first;
            if (first >= 0 && p.in[start + b.count - 1]?.id !== b.last)
                verdict.violate('I5', `${what}: its ${b.count}. event is ${p.in[start + b.count - 1]?.id}`);
            at = start + b.count;
        }
        const left = p.in.findIndex(entry => compareIds(entry.id, p.offset) > 0);
        const decided = left < 0 ? p.in.length : left;
        if (at !== decided) verdict.violate('I5', `{${tag}}: offset ${p.offset} is after ${decided} events, ${at} were decided`);
    }
    for (const probe of history.probes ?? [])
        if (probe.got !== probe.expected)
            verdict.violate(probe.invariant ?? 'I5', `${probe.what}: ${probe.expected} was expected, the answer is ${probe.got}`);
}

// ---- I7: everybody is in one place, whoever holds it has a deadline ----

function placesAndDeadlines(world) {
    const held = deskHoldings(world);
    for (const { tag, p } of world.parts.values()) {
        if (isDesk(tag)) continue;
        for (const [id, state] of Object.entries(p.states.conv ?? {})) {
            const armed = p.timers.filter(t => t.object === id && t.name === 'hold');
            if (armed.length !== 1 || armed[0].gen !== (state.hold_gen ?? 0))
                world.verdict.violate('I7', `${id} (${state.control}) has deadlines [${armed.map(t => t.gen)}], ` +
                    `its own is ${state.hold_gen ?? 0}`);
            checkPlace(world, id, state, held);
        }
    }
    for (const { conversation, agent, ticket } of held.stray)
        world.verdict.violate('I7', `the desk counts ${conversation} (ticket ${ticket}) for ${agent}, which does not hold it`);
}

// What the desks' stored states say: who waits, who is with whom.
function deskHoldings(world) {
    const waiting = new Map(), slots = new Map(), stray = [];
    for (const { tag, p } of world.parts.values()) {
        if (!isDesk(tag)) continue;
        for (const w of p.desk?.waiting ?? []) waiting.set(w.conversation, w);
        for (const s of p.desk?.slots ?? []) slots.set(s.conversation, [...(slots.get(s.conversation) ?? []), s]);
    }
    for (const [conversation, list] of slots) {
        const state = world.parts.get(partitionOf(conversation))?.p.states.conv?.[conversation];
        for (const s of list) {
            const isHeld = state && (state.control === 'offered' || state.control === 'assigned') &&
                state.agent === s.agent && state.ticket === s.ticket;
            if (!isHeld) stray.push(s);
        }
    }
    return { waiting, slots, stray, isKnown: [...world.parts.values()].some(x => isDesk(x.tag) && x.p.desk) };
}

function checkPlace(world, id, state, held) {
    if (!held.isKnown) return;
    if (state.control === 'queued') {
        const w = held.waiting.get(id);
        if (!w || w.ticket !== state.ticket)
            world.verdict.violate('I7', `${id} is queued under ticket ${state.ticket}; the desk has ${w ? w.ticket : 'no such need'}`);
    }
    if (state.control === 'offered' || state.control === 'assigned') {
        const s = (held.slots.get(id) ?? []).find(x => x.agent === state.agent && x.ticket === state.ticket);
        if (!s) world.verdict.violate('I7', `${id} is ${state.control} to ${state.agent} (ticket ${state.ticket}); the desk has no such slot`);
    }
}

// ---- I8: capacity, and nobody is passed in line ----

function capacityAndLine(world) {
    for (const part of world.parts.values()) if (isDesk(part.tag)) walkDesk(world, part);
}

// Events and facts of one batch stand in no order to each other: frees count first, needs of the same batch are not
// "passed". That is lenient by one batch and never accuses wrongly.
function walkDesk(world, part) {
    const desk = { capacity: new Map(), slots: new Map(), waiting: new Map(), seq: 0 };
    let at = 0;
    for (const { b, f } of part.p.out) {
        while (at < part.p.in.length && part.p.in[at].id !== b.first) at++;
        const fresh = [];
        for (let i = 0; i < b.count && at < part.p.in.length; i++, at++) deskEvent(desk, part.p.in[at].e, b.now, fresh);
        const isFresh = new Set(fresh);
        for (const fact of f) if (fact.d !== undefined && fact.e.t === 'assign') deskAssign(world, part, desk, fact.e, isFresh);
    }
}

function deskEvent(desk, e, now, fresh) {
    if (e.t === 'agent.online') desk.capacity.set(e.g, e.cap ?? 0);
    if (e.t === 'refused' || e.t === 'released') desk.slots.delete(`${e.c} ${e.tk}`);
    if (e.t === 'cancel') { // it leaves the line, or never saw what was given to it
        if (desk.waiting.get(e.c)?.ticket === e.tk) desk.waiting.delete(e.c);
        else desk.slots.delete(`${e.c} ${e.tk}`);
    }
    if (e.t !== 'need') return;
    const had = desk.waiting.get(e.c), slots = [...desk.slots.values()].filter(s => s.conversation === e.c);
    if ((had && had.ticket >= e.tk) || slots.some(s => s.ticket >= e.tk)) return;
    const held = slots.sort((a, b) => b.ticket - a.ticket)[0];
    const keepsPlace = held?.since !== undefined && (e.w ?? 0) > 0; // back in line: the place it had
    desk.waiting.set(e.c, { ticket: e.tk, queue: e.q, skills: e.sk ?? '', priority: e.pr ?? 0,
                            since: keepsPlace ? held.since : now - (e.w ?? 0), seq: keepsPlace ? held.seq : ++desk.seq });
    fresh.push(e.c);
}

const isBefore = (a, b) => a.since < b.since || (a.since === b.since && a.seq < b.seq);

function deskAssign(world, part, desk, e, isFresh) {
    const slot = `${e.c} ${e.tk}`, mine = desk.waiting.get(e.c), isMine = mine?.ticket === e.tk;
    if (!desk.slots.has(slot)) {
        desk.slots.set(slot, { conversation: e.c, ticket: e.tk, agent: e.g, since: isMine ? mine.since : undefined, seq: mine?.seq });
        const load = [...desk.slots.values()].filter(s => s.agent === e.g).length;
        if (desk.capacity.has(e.g) && load > desk.capacity.get(e.g))
            world.verdict.violate('I8', `{${part.tag}} gives ${e.c} to ${e.g}: ${load} of ${desk.capacity.get(e.g)}`);
    }
    if (!isMine) return;
    for (const [conversation, w] of desk.waiting) {
        const isPassed = conversation !== e.c && !isFresh.has(conversation) && w.queue === mine.queue &&
            w.skills === mine.skills && w.priority === mine.priority && isBefore(w, mine);
        if (isPassed)
            world.verdict.violate('I8', `{${part.tag}} gives ${e.c} (waiting since ${mine.since}) to ${e.g}, passing ${conversation} (${w.since})`);
    }
    desk.waiting.delete(e.c);
}

// ---- I9: poison ends in the dead letters, with a placeholder, and its partition goes on ----

function deadLetters({ history, parts, conversations, verdict }) {
    const placeholders = new Set();
    for (const { list } of conversations.values())
        for (const { entry } of list) if (isPlaceholder(entry)) placeholders.add(entry.m.data.entry);
    for (const poison of history.poison ?? []) {
        const dead = [...parts.values()].flatMap(({ p }) => p.dead).filter(d => d.ev.id === poison.id);
        if (dead.length !== 1)
            verdict.violate('I9', `poison ${poison.id} of partition ${poison.tag} is ${dead.length} times in the dead letters`);
        else if (!dead[0].r) verdict.violate('I9', `dead letter of ${poison.id} has no reason`);
        else if (!placeholders.has(dead[0].entry)) verdict.violate('I9', `poison ${poison.id} left no placeholder in a history`);
    }
    const poisonous = new Set((history.poison ?? []).map(poison => poison.id));
    for (const { tag, p } of parts.values()) {
        for (const d of p.dead) {
            if (!poisonous.has(d.ev.id) && !/ended the process/.test(d.r)) // those were there at three takeovers: by design
                verdict.violate('I9', `${d.ev.t} ${d.entry} of {${tag}} is in the dead letters though nothing is wrong with it: ${d.r}`);
            const isRecorded = p.out.some(({ f }) => f.some(x => x.e.t === 'dead' && x.e.id === d.entry));
            if (!isRecorded) verdict.violate('I9', `dead letter ${d.entry} of {${tag}} has no record in the fact log`);
        }
    }
}

// ---- I10, I12: observed elsewhere, judged here ----

function gauges({ history, verdict }) {
    const seen = history.gauges ?? { over: [], polls: 0 };
    for (const g of seen.over) verdict.violate('I10', `${g.process}: ${g.name} is ${g.value}, its maximum is ${g.max}`);
    if (seen.isNeeded && (seen.polls === 0 || seen.names === 0)) verdict.violate('I10', 'no gauge with a maximum was ever seen');
}

function replays({ history, verdict }) {
    for (const r of history.replay ?? [])
        if (r.why) verdict.violate('I12', `{${r.tag}}: ${r.why}`);
}
