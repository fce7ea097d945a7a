// Stands between a gateway and Redis and now and then swallows a push: what a network or a full buffer can do. Everything else
// passes unchanged and in order.
// usage: lossy.mjs REDIS_SOCKET LISTEN_SOCKET PERCENT SEED

import net from 'node:net';
import fs from 'node:fs';
import { randomFrom } from './random.mjs';

const [upstream, listen, percent, seed] = process.argv.slice(2);
const random = randomFrom(Number(seed));
const PUSH = Buffer.from('*3\r\n$7\r\nmessage\r\n');

// Where the reply that begins at `at` ends; -1 when it is not whole yet. (redis.io, RESP2: + - : end with a line, $ and * name a count)
export function replyEnd(bytes, at) {
    const line = bytes.indexOf('\r\n', at);
    if (line < 0) return -1;
    const type = bytes[at], count = Number(bytes.latin1Slice(at + 1, line));
    let end = line + 2;
    if (type === 0x24) return count < 0 ? end : end + count + 2 <= bytes.length ? end + count + 2 : -1;
    if (type !== 0x2a) return end;
    for (let i = 0; i < count; i++) {
        end = end < bytes.length ? replyEnd(bytes, end) : -1;
        if (end < 0) return -1;
    }
    return end;
}

class Sieve {
    constructor() { this.rest = Buffer.alloc(0); }

    pass(chunk) {
        const bytes = this.rest.length ? Buffer.concat([this.rest, chunk]) : chunk, kept = [];
        let at = 0, from = 0;
        for (let end; at < bytes.length && (end = replyEnd(bytes, at)) > 0; at = end) {
            const isPush = bytes.compare(PUSH, 0, PUSH.length, at, Math.min(at + PUSH.length, bytes.length)) === 0;
            if (!isPush || !random.chance(Number(percent) / 100)) continue;
            kept.push(bytes.subarray(from, at));
            from = end;
            process.stdout.write('.'); // one for each that was swallowed
        }
        kept.push(bytes.subarray(from, at));
        this.rest = bytes.subarray(at);
        return Buffer.concat(kept);
    }
}

function serve(client) {
    const server = net.connect(upstream), sieve = new Sieve();
    client.pipe(server);
    server.on('data', chunk => {
        const kept = sieve.pass(chunk);
        if (kept.length > 0 && !client.write(kept)) server.pause();
    });
    client.on('drain', () => server.resume());
    for (const [one, other] of [[client, server], [server, client]]) {
        one.on('error', () => {});
        one.on('close', () => other.destroy());
    }
}

if (process.argv[1]?.endsWith('lossy.mjs')) {
    fs.rmSync(listen, { force: true });
    net.createServer(serve).listen(listen);
}
