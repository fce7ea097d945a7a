// Every level that declares its maximum (NAME beside NAME_max in /metrics), polled through the run.

import { sleep } from './world.mjs';

export class Gauges {
    constructor(world) {
        Object.assign(this, { world, polls: 0, over: [], highest: new Map(), isStopped: false });
    }

    async run() {
        while (!this.isStopped) {
            await Promise.all(this.world.of('gateway').map(p => this.poll(p)));
            await sleep(500);
        }
    }

    async poll(p) {
        if (!p.isRunning || p.isPaused) return;
        try {
            const answer = await this.world.fetch(p.port, '/metrics', {}, 1000);
            if (answer.status === 200) this.read(p.name, await answer.text());
        } catch { /* it is down: that is the point of the run */ }
    }

    read(process, text) {
        const values = new Map();
        for (const line of text.split('\n')) {
            const match = /^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)/.exec(line);
            if (match) values.set(match[1] + (match[2] ?? ''), Number(match[3]));
        }
        this.polls++;
        for (const [name, value] of values) {
            const [, bare, labels] = /^([\w:]+)(.*)$/.exec(name), max = values.get(`${bare}_max${labels}`);
            if (max === undefined) continue;
            const seen = this.highest.get(name) ?? { value: 0, max };
            this.highest.set(name, { value: Math.max(value, seen.value), max });
            if (value > max) this.over.push({ process, name, value, max });
        }
    }

    record() {
        return { over: this.over, polls: this.polls, names: this.highest.size, isNeeded: true };
    }
}
