// Test vectors that others made: `node tests/vectors/run.mjs [DIR]`; `tests/run vectors [DIR]` builds first.
//
// For each known file in DIR (default: this folder; FILES below, also one folder down as NAME/NAME.json) runs the C program of the same name,
// which prints "ok CASE" or "not ok CASE: why" for each case. A file that no program reads is said, and counts as failed when it is JSON.
// SLUICE_VECTORS: {"vec_wechat": "/path/of/the/program", ...}, set by tests/run.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const FILES = { wechat: ['vec_wechat'], smpp: ['vec_smpp'], signatures: ['vec_signatures'], sms_segments: ['vec_sms_segments'], email: ['vec_email'] };
const OWN = /^(proto|meson\.build|run\.mjs|README.*|.*\.[ch])$/i;      // of this folder itself; proto/ is read by the unit tests
const PROGRAM_MS = 120000, SHOWN_MAX = 40;

const dir = path.resolve(process.argv[2] ?? HERE), programs = JSON.parse(process.env.SLUICE_VECTORS ?? '{}');
const total = { passed: 0, failed: 0 };

function failed(text) {
    total.failed++;
    console.log(`not ok ${text}`);
}

function find(name) {
    return [path.join(dir, `${name}.json`), path.join(dir, name, `${name}.json`)].find(file => fs.existsSync(file));
}

function runOne(name, file) {
    const program = FILES[name].find(p => programs[p]);
    if (!program) return failed(`${name}: no program reads it (${FILES[name].join(' or ')} is not in the build)`);
    const run = spawnSync(programs[program], [file], { encoding: 'utf8', timeout: PROGRAM_MS, maxBuffer: 64 << 20 });
    const good = run.stdout.match(/^ok .*$/gm)?.length ?? 0, bad = run.stdout.match(/^not ok .*$/gm) ?? [];
    total.passed += good;
    total.failed += bad.length;
    for (const line of bad.slice(0, SHOWN_MAX)) console.log(`${name}: ${line}`);
    if (good + bad.length === 0) failed(`${name}: ${program} reported no case`);
    if (run.error || run.signal || (run.status !== 0 && bad.length === 0))
        failed(`${name}: ${program} ended with ${run.error?.message ?? run.signal ?? run.status}\n${run.stderr.slice(-3000)}`);
    console.log(`${name}: ${good} of ${good + bad.length} cases (${path.relative(dir, file)})`);
}

function sayUnknown() {
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
        const name = entry.name.replace(/\.json$/, '');
        if (name in FILES || OWN.test(entry.name)) continue;
        if (entry.name.endsWith('.json')) failed(`${entry.name}: unknown; known are ${Object.keys(FILES).map(f => `${f}.json`).join(', ')}`);
        else console.log(`${entry.name}${entry.isDirectory() ? '/' : ''}: unknown, not used`);
    }
}

const found = Object.keys(FILES).filter(find);
if (found.length === 0) failed(`${dir} holds none of ${Object.keys(FILES).map(f => `${f}.json`).join(', ')}`);
for (const name of found) runOne(name, find(name));
if (dir === HERE) for (const name of Object.keys(FILES)) if (!find(name)) console.log(`${name}: no vectors here yet`);
sayUnknown();
console.log(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);
