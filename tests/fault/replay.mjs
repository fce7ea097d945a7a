// I12: `sluice replay` over the recorded command logs gives the bytes that stand in the fact logs, twice.

import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const INTEGERS = new Set(['n', 'ce', 'tn', 'tk', 'gen', 'pr', 'cap', 'w', 'due', 'at', 'fn']);

// The event as JSON text; data stands in it as it is, so that no byte changes.
function eventText(fields) {
    const members = [];
    for (let i = 0; i + 1 < fields.length; i += 2) {
        const [name, value] = [fields[i], fields[i + 1]];
        members.push(`${JSON.stringify(name)}:${INTEGERS.has(name) || name === 'd' ? value : JSON.stringify(value)}`);
    }
    return `{${members.join(',')}}`;
}

export function recordingOf(tag, p) {
    const lines = [JSON.stringify({ partition: tag, kind: tag.startsWith('desk:') ? 'desk' : 'conversation', gen: Number(p.gen) })];
    for (const [id, fields] of p.inRaw) lines.push(`{"in":${JSON.stringify(id)},"e":${eventText(fields)}}`);
    for (const { b } of p.out) lines.push(JSON.stringify({ batch: b }));
    return `${lines.join('\n')}\n`;
}

async function run(bin, file) {
    const env = { ...process.env };
    delete env.SLUICE_MUTANT; // the defect under test must not judge itself
    delete env.SLUICE_FAULTS;
    return new Promise(resolve => {
        const child = spawn(bin, ['replay', file], { env, stdio: ['ignore', 'pipe', 'pipe'] });
        const out = [], err = [];
        child.stdout.on('data', d => out.push(d));
        child.stderr.on('data', d => err.push(d));
        child.on('error', error => resolve({ status: -1, out: '', err: error.message }));
        child.on('close', status => resolve({ status, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }));
    });
}

function compare(tag, p, first, second) {
    if (first.status !== 0) return `sluice replay ended with ${first.status}: ${first.err.trim().slice(0, 300)}`;
    const digest = text => crypto.createHash('sha256').update(text).digest('hex');
    if (digest(first.out) !== digest(second.out)) return 'two replays print different bytes';
    const wanted = p.out.flatMap(batch => batch.raw), got = first.out === '' ? [] : first.out.replace(/\n$/, '').split('\n');
    for (let i = 0; i < Math.max(wanted.length, got.length); i++) {
        if (wanted[i] === got[i]) continue;
        return `fact ${i + 1} of ${wanted.length}: out:{${tag}} has ${String(wanted[i]).slice(0, 400)}; the replay gives ${String(got[i]).slice(0, 400)}`;
    }
    return null;
}

export async function replayAll(world, partitions) {
    const results = [];
    const one = async tag => {
        const file = path.join(world.dir, `replay-${tag.replace(/[^\w]/g, '_')}.jsonl`);
        fs.writeFileSync(file, recordingOf(tag, partitions[tag]));
        const first = await run(world.bin, file), second = await run(world.bin, file);
        results.push({ tag, facts: partitions[tag].out.reduce((n, b) => n + b.raw.length, 0), why: compare(tag, partitions[tag], first, second) });
    };
    const tags = [...world.tags];
    await Promise.all([0, 1].map(async () => { while (tags.length) await one(tags.pop()); }));
    return results;
}
