// A seeded random generator (mulberry32): equal seeds give equal runs, as far as the machine allows.

export function randomFrom(seed) {
    let state = seed >>> 0;
    const next = () => {
        state = (state + 0x6d2b79f5) >>> 0;
        let t = state;
        t = Math.imul(t ^ (t >>> 15), t | 1);
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const random = {
        next,
        chance: p => next() < p,
        integer: (from, to) => from + Math.floor(next() * (to - from + 1)),
        pick: list => list[Math.floor(next() * list.length)],
        fork: () => randomFrom(Math.floor(next() * 4294967296)),
        shuffle(list) {
            for (let i = list.length - 1; i > 0; i--) {
                const k = random.integer(0, i);
                [list[i], list[k]] = [list[k], list[i]];
            }
            return list;
        },
    };
    return random;
}
