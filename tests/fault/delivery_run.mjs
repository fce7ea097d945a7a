// What the delivery suite prints: its verdict page, and its defects with what caught each.

import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DeliveryScenario, markedPoints, until } from './delivery.mjs';
import { TITLES } from './delivery_checker.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const POINTS_LEAST = 12, MUTANT_ROUNDS = 3;

// Defects by name (base/fault.h), and the world that brings each out; the same world without the defect must find nothing.
const UNSURE = { channels: ['wechat', 'twilio'], noise: { drop_after: 0.3 }, faults: 4 };
const RECEIPTS = { channels: ['sms', 'twilio'], noise: { receipt_contrary: 0.4, receipt_duplicate: 0.2 }, faults: 3 };
const AMBUSH = { channels: ['wechat', 'twilio'], noise: {}, faults: 6, deck: ['ambush'], everyMs: 4000, drainSeconds: 30 };
const DEATHS = { channels: ['wechat', 'twilio'], noise: {}, faults: 4, atPoints: /^lane\.(after_commit_sending|before_first_byte|before_commit_sending)$/ };
export const DELIVERY_MUTANTS = {
    'lane-retry-unknown': UNSURE,
    'lane-receipt-backwards': RECEIPTS,
    'lane-forget-epoch': DEATHS,
    'deed-before-commit': AMBUSH,
};

function printPage(s, left) {
    const faults = Object.entries(s.faults), total = faults.reduce((n, [, k]) => n + k, 0);
    console.log(`\nfaults survived  ${total}`);
    for (const [name, n] of faults.sort()) if (!name.startsWith('kill -9 at')) console.log(`                 ${String(n).padStart(4)} ${name}`);
    console.log(`killed at        ${s.points.filter(p => p.isMet).length} of ${s.points.length} marked points`);
    for (const p of s.points) console.log(`                 ${p.isMet ? '   1' : '   0'} ${p.name} (${p.ms} ms)`);
    for (const [channel, f] of Object.entries(s.figures))
        console.log(`${channel.padEnd(16)} ${f.policy}: ${f.asked} questions, ${f.answers} answers: ${f.sent} sent, ${f.delivered} delivered, ${f.failed} failed, ${f.unknown} unknown; ` +
            `${f.twice} twice on a phone; ${f.receipts} receipts`);
    console.log(`drained          in ${(s.drainMs / 1000).toFixed(1)} s, ${left.length} left\n`);
}

function checkerTests(result) {
    const run = spawnSync(process.execPath, ['--test', path.join(HERE, 'delivery_checker.test.mjs')], { encoding: 'utf8' });
    const passed = Number(/^[#ℹ] pass (\d+)$/m.exec(run.stdout)?.[1] ?? 0), ok = run.status === 0 && passed > 0;
    result(ok, `the judge of delivery finds what it must in ${passed} hand-made histories`, ok ? [] : run.stdout.split('\n').slice(-60));
}

export async function deliveryRun(options, result) {
    checkerTests(result);
    const points = markedPoints(), faults = options.faults ?? (options.long ? 200 : 32);
    const s = new DeliveryScenario({ seed: options.seed, faults, mutant: options.mutant, channels: options.channels, say: console.log });
    console.log(`seed ${options.seed}: delivery: ${points.length} marked points, then ${faults} random faults; repeat with --delivery --seed ${options.seed} --faults ${faults}`);
    let isKept = options.keep;
    try {
        await s.start();
        await until('a first answer on every channel', 30000, () => s.world.channels.every(name => s.customers.some(c => c.channel === name && c.fake.phone(c.id).some(e => e.by === 'service'))) || 'no');
        await s.killAtPoints(points);
        await s.strikeAtRandom(faults);
        const verdict = await s.judge();
        printPage(s, verdict.left);
        result(verdict.left.length === 0, `delivery: every message has ended${verdict.left.length ? ` - but ${verdict.left.length}` : ''}`, verdict.left.slice(0, 8));
        for (const i of verdict.invariants) result(i.ok, `delivery: ${i.name} ${TITLES[i.name]}${i.ok ? '' : ` - ${i.count} violations`}`, i.examples);
        const met = s.points.filter(p => p.isMet).length;
        result(met === points.length && met >= POINTS_LEAST, `delivery: killed at ${met} of ${points.length} marked points`, s.points.filter(p => !p.isMet).map(p => p.name));
        result(s.complaints().length === 0, 'delivery: no provider complained', s.complaints().slice(0, 8));
        const idle = Object.entries(s.figures).filter(([, f]) => f.sent + f.delivered === 0).map(([name]) => name);
        result(idle.length === 0, `delivery: something was sent on every channel${idle.length ? `, but not on ${idle.join(', ')}` : ''}`);
        isKept ||= !verdict.ok || verdict.left.length > 0;
    } catch (error) {
        result(false, `delivery: the run broke off: ${error.stack}`, s.world.complaints());
        isKept = true;
    } finally {
        if (isKept) for (const line of s.world.complaints()) console.log(`   ${line.slice(0, 300)}`);
        await s.end({ isKept });
        if (isKept) console.log(`logs and store are kept in ${s.world.dir}`);
    }
}

async function smallRun(name, profile, seed) {
    const found = new Set();
    let example = '', rounds = 0, sends = 0;
    for (; rounds < MUTANT_ROUNDS && found.size === 0; rounds++) {
        const s = new DeliveryScenario({ seed: seed + rounds, customers: 4, drainSeconds: name ? 15 : 45, ...profile, mutant: name });
        try {
            await s.start();
            if (profile.atPoints) await s.killAtPoints(markedPoints().filter(p => profile.atPoints.test(p)));
            await s.strikeAtRandom(profile.faults ?? 12);
            const verdict = await s.judge();
            for (const i of verdict.invariants) if (!i.ok) { found.add(i.name); example ||= i.examples[0]; }
            if (verdict.left.length > 0) { found.add('stalled'); example ||= verdict.left[0]; }
            sends += Object.values(s.figures).reduce((n, f) => n + f.answers, 0);
        } catch (error) {
            found.add('broke off');
            example ||= error.stack;
        }
        await s.end({ isKept: false });
        if (name === null) { rounds++; break; }
    }
    return { found: [...found], example, rounds, sends };
}

export async function deliveryMutants(names, options, result) {
    for (const name of names) {
        const { found, example, rounds, sends } = await smallRun(name, DELIVERY_MUTANTS[name], options.seed);
        result(found.length > 0 && !found.includes('broke off'), `${name} is caught by ${found.join(' ') || 'nothing'} (${rounds} rounds, ${sends} messages)`, [example.slice(0, 300)]);
    }
    for (const profile of new Set(names.map(n => DELIVERY_MUTANTS[n]))) {
        const { found, example, sends } = await smallRun(null, profile, options.seed);
        result(found.length === 0, `without a defect the same faults find ${found.join(' ') || 'nothing'} (${sends} messages)`, example ? [example] : []);
    }
}
