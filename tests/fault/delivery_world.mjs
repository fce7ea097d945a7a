// The world of the delivery suite: Redis, a router, two gateways and an echo bot, with simulated providers on every channel. The providers
// live in this process: they outlive every kill.

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as mail from '../fakes/mail.mjs';
import * as smsHttp from '../fakes/sms_http.mjs';
import * as smsc from '../fakes/smsc.mjs';
import * as wechat from '../fakes/wechat.mjs';
import { freePort } from '../e2e/lib/sluice.mjs';
import { World, sleep } from './world.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const COMMON = { tenant: 'demo', bot: 'faq', send_grace: '1s' };

// One row for each inbox: its adapter, what an unknown outcome leads to, the simulator, and what only this channel can suffer.
// customer(i): how the i-th customer is called at the simulator; phone(address): the same from an address of the history.
export const CHANNELS = {
    wechat: {
        policy: 'at_most_once', customer: i => `oFault${String(i).padStart(4, '0')}`, ask: { product: 'oa' }, hooks: 'wechat',
        start: () => wechat.start({ retry_ms: 300, retries: 60 }),
        config: fake => ({ channel: 'wechat', appid: fake.products.oa.id, secret: fake.products.oa.secret, token: fake.products.oa.token, aes_key: fake.products.oa.aes_key, api_url: fake.url }),
        aim: (fake, url) => { fake.products.oa.url = url; },
        trouble: ['revoke_token'],
    },
    kf: {
        policy: 'idempotent', customer: i => `wmFault${String(i).padStart(4, '0')}`, ask: { product: 'kf' }, hooks: 'wechat_kf',
        start: () => wechat.start({ retry_ms: 300, retries: 60 }),
        config: fake => ({ channel: 'wechat_kf', corpid: fake.products.kf.id, secret: fake.products.kf.secret, token: fake.products.kf.token, aes_key: fake.products.kf.aes_key,
                           open_kfid: fake.products.kf.open_kfid, api_url: fake.url }),
        aim: (fake, url) => { fake.products.kf.url = url; },
        trouble: ['revoke_token'],
    },
    sms: {
        policy: 'at_most_once', customer: i => `1380013${String(i).padStart(4, '0')}`, phone: address => address.replace('+', ''), ask: {},
        start: () => smsc.start(),
        config: fake => ({ channel: 'smpp', host: '127.0.0.1', port: fake.ports.smpp, system_id: 'sluice', password: 'secret', source: '10690001', response_timeout: '2s', reconnect_max: '1s' }),
        trouble: ['unbind'],
    },
    twilio: {
        policy: 'at_most_once', customer: i => `+1380013${String(i).padStart(4, '0')}`, ask: { provider: 'twilio' }, hooks: 'sms_http',
        start: () => smsHttp.start({ twilio: { public_url: 'https://gw.example.test/sms_http/twilio' } }),
        config: fake => ({ channel: 'sms_http', provider: 'twilio', account: fake.twilio.account, secret: fake.twilio.token, number: fake.twilio.number,
                           public_url: 'https://gw.example.test/sms_http/twilio', api_url: fake.url }),
        aim: (fake, url) => { fake.twilio.url = url; },
        trouble: [],
    },
    email: {
        policy: 'at_least_once', customer: i => `customer${i}@example.test`, ask: { fresh: false },
        start: () => mail.start({ retry_ms: 300 }),
        config: (fake, world) => ({ channel: 'email', address: 'service@sluice.test', domain: 'sluice.test', auto_answers: 1000, lmtp_listen: `127.0.0.1:${world.lmtpPort}`, smtp_url: `smtp://127.0.0.1:${fake.ports.smtp}`,
                                    secret: 'a token secret for tests 0123456789' }),
        aim: (fake, _url, world) => { fake.lmtp = `127.0.0.1:${world.lmtpPort}`; },
        trouble: [],
    },
};

export class DeliveryWorld extends World {
    constructor(options) {
        super({ partitions: 8, routers: 1, gateways: 2, bots: 0, agents: 1, lossyPercent: 0, ...options });
        this.channels = options.channels ?? Object.keys(CHANNELS);
    }

    get tags() { return [...super.tags, ...(this.channels ?? []).map(name => `send:${name}`)]; }

    async start() {
        this.fakes = {};
        for (const name of this.channels) this.fakes[name] = await CHANNELS[name].start(this);
        await super.start();
        this.aim(0);
    }

    // A gateway has a door of its own for mail; its lanes are free soon after it died.
    async addRole(kind, i) {
        this.lmtpPort = await freePort();
        await super.addRole(kind, i);
        this.processes.at(-1).lmtpPort = this.lmtpPort;
    }

    config(extra, url) {
        const lines = super.config(extra.map(line => (line === 'gateway:' ? 'gateway:\n  lease: 1s' : line)), url).split('\n'), at = lines.indexOf('agents:'), inboxes = [];
        for (const name of this.channels) {
            inboxes.push(`  ${name}:`);
            for (const [key, value] of Object.entries({ ...COMMON, ...CHANNELS[name].config(this.fakes[name], this), ...this.options.inbox }))
                inboxes.push(`    ${key}: ${typeof value === 'string' ? JSON.stringify(value) : value}`);
        }
        return [...lines.slice(0, at), ...inboxes, 'media:', `  dir: ${path.join(this.dir, 'media')}`, ...lines.slice(at)].join('\n');
    }

    env(kind) {
        const { mutant } = this.options;
        return kind === 'gateway' ? { SLUICE_FAULTS: '', ...(mutant ? { SLUICE_MUTANT: mutant } : {}) } : { ...(mutant ? { SLUICE_MUTANT: mutant } : {}) };
    }

    // Lanes belong to nobody until a gateway takes them, and no rules enter them.
    async allReady(deadlineMs) {
        const { channels } = this;
        this.channels = [];
        try {
            await super.allReady(deadlineMs);
        } finally {
            this.channels = channels;
        }
    }

    addOddBot() {
        this.addProcess('echobot', 'bot', process.execPath, [path.join(HERE, 'echo_bot.mjs'), this.url, this.bot]);
    }

    // Providers call one gateway; a front would choose for them.
    aim(i) {
        this.lmtpPort = this.of('gateway')[i].lmtpPort;
        for (const name of this.channels)
            CHANNELS[name].aim?.(this.fakes[name], `http://127.0.0.1:${this.gatewayPorts[i]}/${CHANNELS[name].hooks}/${name}`, this);
    }

    async end(options) {
        await super.end(options);
        await Promise.all(Object.values(this.fakes ?? {}).map(fake => fake.stop()));
    }
}
export { sleep };
