// Deliberate defects (base/fault.h, SLUICE_MUTANT) that a run must catch, and the faults that suit each.
//
// A profile is a small world and its mix of faults; the same profile without the defect must pass.

const SMALL = { visitors: 48, rate: 100, poison: false, seconds: 10, faults: 14, rounds: 2,
                world: { partitions: 8, agents: 4, capacity: 3, rules: { bot_answer_ms: 4000 } } };

export const PROFILES = {
    mixed: { ...SMALL },
    routers: { ...SMALL, faults: 14, mix: [['router', 'stop', 8], ['router', 'kill', 6]] },
    sleepers: { ...SMALL, faults: 8, mix: [['router', 'stop', 10, [2000, 4000]]] },
    store: { ...SMALL, faults: 10, mix: [['redis', 'kill', 9], ['redis', 'stop', 1]] },
    edge: { ...SMALL, faults: 24, mix: [['gateway', 'kill', 16], ['redis', 'stop', 4], ['redis', 'kill', 4]] },
    ambush: { ...SMALL, visitors: 32, rate: 80, faults: 6, filler: true, mix: [['router', 'ambush', 10]] },
    edgeAmbush: { ...SMALL, faults: 7, mix: [['gateway', 'ambush', 10]] },
    calm: { ...SMALL, faults: 4, mix: [['bot', 'kill', 3], ['bot', 'stop', 1]] },
};

export const MUTANTS = {
    'ack-before-append': { profile: 'edgeAmbush' },
    'resume-from-end': { profile: 'edge' },
    'no-gap-check': { profile: 'store' },
    'no-dedupe': { profile: 'calm' },
    'no-sweep': { profile: 'calm' },
    'deliver-no-gap': { profile: 'calm' },
    'tail-skip': { profile: 'store' },
    'no-epoch': { profile: 'sleepers' },
    'no-offset': { profile: 'store' },
    'deliver-no-mark': { profile: 'routers' },
    'relay-before-commit': { profile: 'ambush' },
    'lose-relay-position': { profile: 'ambush' },
    'commit-twice': { profile: 'calm' },
    'warm-cache': { profile: 'sleepers' },
    'trim-too-far': { profile: 'calm' },
    'no-turn': { profile: 'calm' },
    'no-control': { profile: 'edge' },
    'timer-no-gen': { profile: 'mixed' },
    'desk-frees-itself': { profile: 'edge' },
    'no-ticket': { profile: 'edge' },
};
