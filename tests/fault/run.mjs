// The fault suite: `node tests/fault/run.mjs [--seed N] [--faults N] [--seconds N] [--mutants] [--mutant NAME] [--delivery] [--keep]`.
// --delivery: only messages on their way to customers.
// SLUICE_BIN is a test build of `sluice`. README.md says what happens and how to read the verdict.

import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { markedPoints } from './delivery.mjs';
import { DELIVERY_MUTANTS, deliveryMutants, deliveryRun } from './delivery_run.mjs';
import { MUTANTS, PROFILES } from './mutants.mjs';
import { Scenario } from './scenario.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const MUTANT_SECONDS = 60;
const RATE_LEAST = 200;

function parseArguments(argv) {
    const options = { seed: Number(process.env.SLUICE_SEED ?? 1) };
    for (let i = 0; i < argv.length; i++) {
        const name = argv[i].replace(/^--/, '');
        if (['mutants', 'long', 'keep', 'verbose', 'delivery', 'functions'].includes(name)) options[name] = true;
        else if (name === 'mutant') options.mutant = argv[++i];
        else if (name === 'channels') options.channels = argv[++i].split(',');
        else if (['seed', 'faults', 'seconds'].includes(name) && Number.isInteger(Number(argv[i + 1]))) options[name] = Number(argv[++i]);
        else throw new Error(`unknown option ${argv[i]}`);
    }
    return options;
}

const results = { passed: 0, failed: 0 };
function result(ok, text, examples = []) {
    results[ok ? 'passed' : 'failed']++;
    console.log(`${ok ? 'ok' : 'not ok'} - ${text}`);
    for (const line of examples) console.log(`      ${line}`);
}

// ---- the verdict page ----

const TITLES = {
    I1: 'every acknowledged message once, in one conversation or in the dead letters', I2: 'a repeat changes nothing',
    I3: 'history order is log order and each sender\'s; sockets show it without gaps or repeats',
    I4: 'every fact in its destination once and in order; a turn has one answer', I5: 'one line of commits; old epochs are refused',
    I6: 'no answer of an old control epoch or turn', I7: 'everybody in one place, with a deadline', I8: 'capacity, and nobody passed in line',
    I9: 'poison ends in the dead letters, its partition goes on', I10: 'every gauge under its maximum',
    I11: 'open sockets show the end within 30 s', I12: 'the replay gives the same bytes',
};

function printPage(scenario, verdict) {
    const f = scenario.figures(), faults = Object.entries(scenario.faults).map(([k, n]) => `${n} ${k}`).sort().join(', ');
    console.log(`\nfaults survived  ${scenario.faultCount}: ${faults}`);
    console.log(`load             ${f.acked} acknowledged in ${Math.round(scenario.loadMs / 1000)} s: ${f.rate.toFixed(0)}/s, ` +
        `ack p50 ${f.ack50} ms, p99 ${f.ack99} ms; ${f.agentSends} commands of agents`);
    console.log(`clients          ${f.connects} connects, ${f.resends} frames sent again, ${f.duplicates} sent twice on purpose, ` +
        `${f.busy} told busy, ${f.goBacks} told to go back; silent reader: ${f.silent} connects`);
    console.log(`stored           ${verdict.entries} entries in ${verdict.conversations} conversations, ${f.dead} dead letters ` +
        `(${scenario.poison.length} poison), ${f.deaths} processes ended by poison or by themselves`);
    console.log(`met              ${Object.entries(scenario.met()).map(([what, n]) => `${n} ${what}`).join(', ')}`);
    console.log(`judged           lost ${verdict.lost}, doubled ${verdict.doubled}, reordered ${verdict.reordered}, stale ${verdict.stale}; ` +
        `drained in ${((scenario.drainMs ?? 0) / 1000).toFixed(1)} s; ${scenario.zombie.sent} late writes of zombies refused; ` +
        `${scenario.gauges.polls} polls of ${scenario.gauges.highest.size} gauges\n`);
}

function judge(verdict, prefix = '') {
    result(!verdict.stalled, `${prefix}everything drained${verdict.stalled ? ` - stalled: ${verdict.drained.what.length} left` : ''}`,
           verdict.drained.what.slice(0, 8));
    for (const i of verdict.invariants) result(i.ok, `${prefix}${i.name} ${TITLES[i.name]}${i.ok ? '' : ` - ${i.count} violations`}`, i.examples);
}

// ---- what can be run ----

function checkerTests() {
    const run = spawnSync(process.execPath, ['--test', path.join(HERE, 'checker.test.mjs')], { encoding: 'utf8' });
    const count = word => Number(new RegExp(`^[#ℹ] ${word} (\\d+)$`, 'm').exec(run.stdout)?.[1] ?? 0);
    const ok = run.status === 0 && count('pass') > 0;
    result(ok, `the checker finds what it must in ${count('pass')} hand-made histories`, ok ? [] : run.stdout.split('\n').slice(-60));
}

async function defaultRun(options) {
    const faults = options.faults ?? (options.long ? 400 : 66);
    const seconds = options.seconds ?? Math.max(20, Math.round(faults * 0.85));
    const scenario = new Scenario({ seed: options.seed, faults, seconds, say: console.log, mutant: options.mutant, functions: options.functions });
    console.log(`seed ${options.seed}: ${faults} faults in ${seconds} s; repeat with --seed ${options.seed} --faults ${faults} --seconds ${seconds}`);
    let isKept = options.keep;
    try {
        await scenario.start();
        await scenario.poisonPartitions();
        const verdict = await scenario.round();
        printPage(scenario, verdict);
        judge(verdict);
        result(scenario.faultCount >= faults, `${scenario.faultCount} faults of ${faults}`);
        const missing = Object.entries(scenario.met()).filter(([, n]) => n === 0).map(([what]) => what);
        result(missing.length === 0, `the run met everything that it has to judge${missing.length ? `, but: ${missing.join(', ')}` : ''}`);
        const { rate } = scenario.figures();
        result(rate >= RATE_LEAST, `load of at least ${RATE_LEAST} messages a second (${rate.toFixed(0)})`);
        isKept ||= !verdict.ok;
    } catch (error) {
        result(false, `the run broke off: ${error.stack}`, scenario.world.complaints());
        isKept = true;
    } finally {
        if (isKept) for (const line of scenario.world.complaints()) console.log(`   ${line.slice(0, 300)}`);
        await scenario.end({ isKept });
        if (isKept) console.log(`logs and store are kept in ${scenario.world.dir}`);
        if (options.verbose) for (const line of scenario.log) console.log(`   ${line}`);
    }
}

// A small world under one profile of faults, in rounds, until something is found or the time is over.
async function smallWorld(name, profile, seed) {
    const scenario = new Scenario({ ...PROFILES[profile], seed, mutant: name, drainSeconds: name ? 15 : 60 });
    const began = Date.now();
    let verdict = null, rounds = 0, broke = null;
    try {
        await scenario.start();
        while (scenario.loadMs < MUTANT_SECONDS * 1000 && (verdict === null || verdict.ok)) {
            if (rounds++ > 0) scenario.thaw();
            verdict = await scenario.round();
            if (name === null && rounds >= PROFILES[profile].rounds) break;
        }
    } catch (error) {
        broke = error;
    }
    await scenario.end({ isKept: false });
    return { verdict, broke, rounds, loadSeconds: Math.round(scenario.loadMs / 1000), seconds: Math.round((Date.now() - began) / 1000),
             complaints: [] };
}

const foundBy = verdict => [...verdict.invariants.filter(i => !i.ok).map(i => i.name), ...(verdict.stalled ? ['stalled'] : [])];

async function mutantRuns(names, seed) {
    const table = [];
    for (const name of names) {
        const { profile } = MUTANTS[name];
        const run = await smallWorld(name, profile, seed);
        const found = run.verdict ? foundBy(run.verdict) : [];
        const example = run.verdict?.invariants.find(i => !i.ok)?.examples[0] ?? run.verdict?.drained.what[0] ?? run.broke?.message ?? '';
        result(found.length > 0, `${name} is caught by ${found.join(' ') || 'nothing'} after ${run.loadSeconds} s of load (${profile})`,
               [example.slice(0, 300)]);
        table.push([name, profile, found.join(' ') || 'not caught', `${run.loadSeconds} s`]);
    }
    for (const profile of new Set(names.map(name => MUTANTS[name].profile))) {
        const run = await smallWorld(null, profile, seed);
        const ok = run.verdict?.ok === true;
        const found = run.verdict ? foundBy(run.verdict).join(' ') : String(run.broke?.stack);
        result(ok, `without a defect the same faults (${profile}, ${run.rounds} rounds) find ${ok ? 'nothing' : found}`,
               ok ? [] : [...run.verdict?.drained.what ?? [], ...run.verdict?.invariants.flatMap(i => i.examples) ?? []].slice(0, 8));
    }
    console.log(`\n${['defect', 'faults', 'caught by', 'load'].map((h, i) => h.padEnd([22, 12, 30, 6][i])).join('')}`);
    for (const row of table) console.log(row.map((c, i) => c.padEnd([22, 12, 30, 6][i])).join(''));
}

async function main() {
    const options = parseArguments(process.argv.slice(2)), { mutant } = options, deliveryNames = Object.keys(DELIVERY_MUTANTS);
    if (!options.delivery) {
        checkerTests();
        if (options.mutants) await mutantRuns(Object.keys(MUTANTS), options.seed);
        else if (mutant && MUTANTS[mutant]) await mutantRuns([mutant], options.seed);
        else if (!DELIVERY_MUTANTS[mutant]) await defaultRun(options);
    }
    if (options.mutants) await deliveryMutants(deliveryNames, options, result);
    else if (DELIVERY_MUTANTS[mutant]) await deliveryMutants([mutant], options, result);
    else if (!MUTANTS[mutant] && !markedPoints().some(name => name.startsWith('lane.'))) console.log('delivery: there is no lane yet');
    else if (!MUTANTS[mutant]) await deliveryRun(options, result);
    console.log(`${results.passed} passed, ${results.failed} failed`);
    process.exit(results.failed === 0 ? 0 : 1);
}

await main();
