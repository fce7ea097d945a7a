// All simulators in one process, and a page where a person plays the customer on each channel. `deploy/up` starts it:
//   node play.mjs --gateway http://127.0.0.1:8080 --port N --wechat-port N --smpp-port N --smtp-port N --lmtp 127.0.0.1:N
//
// GET / the page; GET /live server-sent events {channel, entry} of every phone; POST /say/CHANNEL {text, menu_id}; GET /web, the
// upgrade of /ws and what the page asks for attachments go to the gateway unchanged, so that its own visitor's page stands among the phones.
// POST /customer, GET /customer/ID, /knobs and /journal of one channel: below /CHANNEL.

import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Fake, main } from './fake.mjs';
import * as mail from './mail.mjs';
import * as smsc from './smsc.mjs';
import * as wechat from './wechat.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const WEB_WAIT_MS = 5000, PASS_WAIT_MS = 60000, BEAT_MS = 15000;
// Who the person at the page is, on each channel.
export const CUSTOMERS = { wechat: 'oDemoCustomer0000000000000001', sms: '13800138000', email: 'customer@example.test' };

class Play extends Fake {
    constructor(options) {
        super('play', options);
        this.gateway = options.gateway ?? 'http://127.0.0.1:8080';
        this.on('GET', '/', () => ({ raw: fs.readFileSync(path.join(HERE, 'play.html')), type: 'text/html; charset=utf-8' }));
        this.on('GET', '/live', rq => this.live(rq));
        this.on('GET', '/web', () => this.web());
        for (const method of ['GET', 'POST'])
            this.on(method, /^\/(?:media|media\/.*|v1\/media-link)$/, rq => this.relay(rq, this.gateway + rq.url));
        this.on('POST', /^\/say\/(\w+)$/, (rq, channel) => this.say(channel, JSON.parse(rq.text)));
        this.on('POST', /^\/(wechat|sms|email)(\/.*)$/, (rq, channel, rest) => this.pass(rq, channel, rest));
        this.on('GET', /^\/(wechat|sms|email)(\/.*)$/, (rq, channel, rest) => this.pass(rq, channel, rest));
    }

    async listen(port) {
        const { options } = this;
        this.channels = {
            wechat: await wechat.start({ port: options.wechat_port ?? 0, retry_ms: options.retry_ms, products: { oa: { url: `${this.gateway}/wechat/${options.wechat_inbox ?? 'wechat'}` } } }),
            sms: await smsc.start({ smpp_port: options.smpp_port ?? 0 }),
            email: await mail.start({ smtp_port: options.smtp_port ?? 0, lmtp: options.lmtp, address: options.address ?? 'service@sluice.test' }),
        };
        await super.listen(port);
        this.server.on('upgrade', (rq, socket, head) => this.upgrade(rq, socket, head));
        return this;
    }

    say(channel, { text, menu_id }) {
        const from = CUSTOMERS[channel], fake = this.channels[channel];
        if (!fake || typeof text !== 'string' || text.trim() === '' || text.length > 2000) throw new Error('say what, and on which channel');
        fake.customer({ from, text, menu_id }).then(({ answer }) => {
            if (answer !== 'accepted') this.show(from, { by: 'platform', text: `! ${answer}` });
        }).catch(error => this.complain(`${channel}: ${error.message}`));
        return {};
    }

    // The controls of one simulator; it has no other door when only this page's address is known.
    pass(rq, channel, rest) {
        return this.relay(rq, `${this.channels[channel].url}${rest}${rq.url.includes('?') ? rq.url.slice(rq.url.indexOf('?')) : ''}`);
    }

    // The answer, byte by byte as it comes: pictures are no text.
    relay(rq, url) {
        const { host, connection, 'transfer-encoding': _chunked, ...headers } = rq.headers, { rs } = rq;
        const on = http.request(url, { method: rq.method, timeout: PASS_WAIT_MS, headers: { ...headers, 'content-length': rq.body.length } }, from => {
            rs.writeHead(from.statusCode, from.headers);
            from.on('error', () => rs.destroy()).pipe(rs);
        });
        on.on('timeout', () => on.destroy(new Error('timeout')));
        on.on('error', error => (rs.headersSent ? rs.destroy() : this.answer(rq, { status: 502, json: { error: error.message } })));
        on.end(rq.body);
        return null;
    }

    live(rq) {
        const told = {}, { rs } = rq;
        rs.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
        const tell = () => {
            for (const [channel, fake] of Object.entries(this.channels)) {
                const entries = fake.phone(CUSTOMERS[channel]).slice(told[channel] ?? 0);
                told[channel] = (told[channel] ?? 0) + entries.length;
                for (const entry of entries) rs.write(`data: ${JSON.stringify({ channel, entry })}\n\n`);
            }
        };
        const beat = setInterval(() => rs.write(':\n\n'), BEAT_MS), fakes = Object.values(this.channels);
        for (const fake of fakes) fake.watchers.add(tell);
        rs.on('close', () => { clearInterval(beat); for (const fake of fakes) fake.watchers.delete(tell); });
        tell();
        return null;
    }

    // ---- the web chat: the gateway's own page and socket ----

    web() {
        return new Promise(resolve => {
            const rq = http.get(`${this.gateway}/`, { timeout: WEB_WAIT_MS }, rs => {
                const chunks = [];
                rs.on('data', chunk => chunks.push(chunk));
                rs.on('end', () => resolve({ status: rs.statusCode, raw: Buffer.concat(chunks), type: rs.headers['content-type'],
                                             headers: { 'content-security-policy': rs.headers['content-security-policy'] ?? '', 'cache-control': 'no-store' } }));
            });
            rq.on('timeout', () => rq.destroy(new Error('timeout')));
            rq.on('error', error => resolve({ status: 502, raw: `the gateway does not answer: ${error.message}`, type: 'text/plain' }));
        });
    }

    upgrade(rq, socket, head) {
        const { hostname, port } = new URL(this.gateway), other = net.connect(Number(port), hostname);
        other.write(`${rq.method} ${rq.url} HTTP/1.1\r\n${rq.rawHeaders.map((h, i) => (i % 2 ? `${h}\r\n` : `${h}: `)).join('')}\r\n`);
        other.write(head);
        socket.pipe(other).pipe(socket);
        for (const [one, another] of [[socket, other], [other, socket]]) {
            one.on('error', () => {});
            one.on('close', () => another.destroy());
        }
    }

    async stop() {
        await Promise.all(Object.values(this.channels).map(fake => fake.stop()));
        await super.stop();
    }
}

export async function start(options = {}) {
    const play = await new Play(options).listen(options.port ?? 0);
    play.ports = { wechat: play.channels.wechat.port, smpp: play.channels.sms.ports.smpp, smtp: play.channels.email.ports.smtp };
    return play;
}
await main(import.meta, start);
