// The WeChat platform: Official Account, WeCom application and WeChat customer service (kf), from the provider's side.
//
// It signs and encrypts callbacks, repeats what is not answered within 5 s, checks our answers, hands out tokens that
// expire, and enforces the window and the quota of customer-service messages. Written from the public documents
// (developers.weixin.qq.com "Message Encryption and Decryption", "Customer Service Messages"; developer.work.weixin.qq.com 90930,
// 94670, 94677); no platform was contacted. Where the documents are silent, the choice is said in README.md.
//
// options: products {oa|wecom|kf: {url, id, secret, token, aes_key, mode, agentid, open_kfid}}, retry_ms, retries, token_life_s

import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { Fake, call, hex, main, sleep } from './fake.mjs';

const ANSWER_MS = 5000, HOURS_48_MS = 48 * 3600 * 1000, MINUTE_MS = 60000, DAYS_3_MS = 3 * 24 * 3600 * 1000;
const TEXT_MAX_BYTES = 2048, BLOCK = 32;
const GRANTS = { message: [5, HOURS_48_MS], click: [3, MINUTE_MS] };
export const DEMO_KEY = 'abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG';
const DEFAULTS = {
    oa: { id: 'wxfa4e00000000demo', account: 'gh_demo00000000', secret: 'demo-app-secret', token: 'demoToken', aes_key: DEMO_KEY, mode: 'safe' },
    wecom: { id: 'wwfa4e00000000demo', account: 'wwfa4e00000000demo', agentid: 1000002, secret: 'demo-corp-secret', token: 'demoToken', aes_key: DEMO_KEY, mode: 'safe' },
    kf: { id: 'wwfa4e00000000demo', account: 'wwfa4e00000000demo', open_kfid: 'wkDemo0001', secret: 'demo-kf-secret', token: 'demoToken', aes_key: DEMO_KEY, mode: 'safe' },
};

// ---- the envelope ----

export const sign = (...parts) => createHash('sha1').update([...parts].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))).join('')).digest('hex');

const keyOf = aes_key => Buffer.from(`${aes_key}=`, 'base64').subarray(0, 32);

export function encrypt(aes_key, id, text, random = randomBytes(16)) {
    const message = Buffer.from(text), length = Buffer.alloc(4);
    length.writeUInt32BE(message.length);
    const plain = Buffer.concat([random, length, message, Buffer.from(id)]), pad = BLOCK - plain.length % BLOCK;
    const key = keyOf(aes_key), cipher = createCipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false);
    return Buffer.concat([cipher.update(Buffer.concat([plain, Buffer.alloc(pad, pad)])), cipher.final()]).toString('base64');
}

export function decrypt(aes_key, id, base64) {
    const key = keyOf(aes_key), decipher = createDecipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false);
    const padded = Buffer.concat([decipher.update(Buffer.from(base64, 'base64')), decipher.final()]), pad = padded[padded.length - 1];
    if (pad < 1 || pad > BLOCK || padded.length - pad < 20) throw new Error('bad padding');
    const plain = padded.subarray(0, padded.length - pad), length = plain.readUInt32BE(16);
    if (20 + length > plain.length || plain.subarray(20 + length).toString() !== id) throw new Error('not addressed to this account');
    return plain.subarray(20, 20 + length).toString();
}

const cdata = text => `<![CDATA[${String(text).replaceAll(']]>', ']]]]><![CDATA[>')}]]>`;
const element = (name, value) => (typeof value !== 'string' ? `<${name}>${value}</${name}>` : `<${name}>${cdata(value)}</${name}>`);
export const xml = fields => `<xml>${Object.entries(fields).map(([k, v]) => element(k, v)).join('')}</xml>`;
export function field(text, name) {
    const inside = new RegExp(`<${name}>([\\s\\S]*?)</${name}>`).exec(text)?.[1];
    return inside === undefined ? undefined : inside.includes('<![CDATA[') ? inside.replaceAll(/<!\[CDATA\[([\s\S]*?)\]\]>/g, '$1').trim() : inside.trim();
}

// ---- the platform ----

class WeChat extends Fake {
    constructor(options) {
        super('wechat', options);
        this.retry_ms = options.retry_ms ?? ANSWER_MS;
        this.retries = options.retries ?? 3;
        this.products = {};
        for (const [name, base] of Object.entries(DEFAULTS)) this.products[name] = { ...base, ...options.products?.[name], name };
        this.tokens = new Map();       // token -> {product, until}
        this.stable = new Map();       // product -> {token, until, forcedAt}
        this.media = new Map();
        this.people = new Map();       // customer -> {windows: [{left, until}], isGone}
        this.kfItems = [];
        this.kfTokens = new Map();
        this.kfState = new Map();
        this.ids = 23000000000000000n + BigInt(Date.now()) * 1000n;
        this.tokensMade = { token: 0, stable: 0, forced: 0, corp: 0 };
        this.api();
        this.actions = {
            revoke_token: () => { const n = this.tokens.size; for (const t of this.tokens.values()) t.isRevoked = true; this.stable.clear(); return { revoked: n }; },
            verify: rq => this.verify(rq.product ?? 'oa'),
            unsubscribe: rq => this.event('oa', rq.from, { Event: 'unsubscribe', EventKey: '' }),
            subscribe: rq => this.event('oa', rq.from, { Event: 'subscribe', EventKey: rq.scene ? `qrscene_${rq.scene}` : '' }),
            click: rq => this.event('oa', rq.from, { Event: 'CLICK', EventKey: rq.key ?? 'menu' }),
            enter: rq => this.kfEnter(rq.from),
            expire_windows: () => { for (const p of this.people.values()) p.windows = []; return {}; },
            point: rq => { for (const [name, url] of Object.entries(rq)) this.products[name].url = url; return {}; },
        };
    }

    nextId() { return String(++this.ids); }
    person(customer) {
        if (!this.people.has(customer)) this.people.set(customer, { windows: [], isGone: false });
        return this.people.get(customer);
    }

    grant(customer, kind) {
        const [count, ms] = GRANTS[kind], p = this.person(customer), until = Date.now() + ms;
        p.isGone = false;
        p.windows = p.windows.filter(w => w.kind !== kind && w.until > Date.now());
        p.windows.push({ kind, left: count, until });
    }

    // 0, or the platform's error code.
    spend(customer) {
        const p = this.people.get(customer);
        if (!p) return 40003;
        const open = p.windows.filter(w => w.until > Date.now()).sort((a, b) => a.until - b.until);
        if (p.isGone || open.length === 0) return 45015;
        const window = open.find(w => w.left > 0);
        if (!window) return 45047;
        window.left--;
        return 0;
    }

    left(customer) { return this.person(customer).windows.filter(w => w.until > Date.now()).reduce((n, w) => n + w.left, 0); }

    // ---- callbacks ----

    async customer({ product = 'oa', from, text, kind = 'text', menu_id, ...fields }) {
        if (!from || (kind === 'text' && !text)) throw Object.assign(new Error('from and text are needed'), { status: 400 });
        this.show(from, { by: 'customer', text: text ?? `[${kind}]`, kind });
        this.grant(from, menu_id ? 'click' : 'message');
        if (product === 'kf') return this.kfMessage(from, text, menu_id);
        const id = this.nextId(), p = this.products[product];
        const body = { ToUserName: p.account, FromUserName: from, CreateTime: Math.floor(Date.now() / 1000), MsgType: kind,
                       ...(kind === 'text' ? { Content: text } : {}), ...(menu_id ? { bizmsgmenuid: String(menu_id) } : {}), ...this.bring(kind, fields),
                       MsgId: BigInt(id), ...(product === 'wecom' ? { AgentID: p.agentid } : {}) };
        return { id, answer: await this.deliver(product, from, id, xml(body), text) };
    }

    // A picture has its bytes in the media API.
    bring(kind, fields) {
        if (!['image', 'voice', 'video'].includes(kind)) return fields;
        const MediaId = fields.MediaId ?? `m_${hex(12)}`;
        this.media.set(MediaId, { type: fields.type ?? 'image/png', bytes: Buffer.from(fields.base64 ?? '', 'base64'), until: Date.now() + DAYS_3_MS });
        return { ...(kind === 'image' ? { PicUrl: `${this.url}/media/${MediaId}` } : {}), MediaId };
    }

    async event(product, from, fields) {
        const p = this.products[product], at = Math.floor(Date.now() / 1000);
        if (fields.Event === 'unsubscribe') this.person(from).isGone = true;
        else if (['subscribe', 'CLICK', 'SCAN'].includes(fields.Event)) this.grant(from, 'click');
        const body = { ToUserName: p.account, FromUserName: from, CreateTime: at, MsgType: 'event', ...fields, ...(product === 'wecom' ? { AgentID: p.agentid } : {}) };
        return { answer: await this.deliver(product, from, `${from}|${at}|${fields.Event}|${fields.EventKey ?? ''}`, xml(body)) };
    }

    async deliver(product, from, id, text, words) {
        return this.push(() => this.attempts(product, from, id, text, words));
    }

    // The platform's ladder: no proper answer within 5 s and the same callback comes again.
    async attempts(product, from, id, text, words) {
        for (let i = 0; i <= this.retries && !this.isStopped; i++) {
            const began = Date.now(), answer = await this.post(product, from, text);
            const verdict = this.judge(product, from, text, answer);
            this.note({ op: 'callback', dir: 'sent', product, id, from, text: words, attempt: i + 1, status: answer.status, ms: Date.now() - began, acknowledged: verdict === 'ok' });
            if (verdict === 'ok') return 'accepted';
            if (i < this.retries) await sleep(answer.error === 'timeout' ? 1 : Math.max(0, this.retry_ms - (Date.now() - began)));
        }
        this.show(from, { by: 'platform', text: '该公众号暂时无法提供服务，请稍后再试', kind: 'text' });
        return 'given up';
    }

    envelope(product, from, text) {
        const p = this.products[product], timestamp = String(Math.floor(Date.now() / 1000)), nonce = String(randomBytes(4).readUInt32BE());
        const query = new URLSearchParams({ signature: sign(p.token, timestamp, nonce), timestamp, nonce });
        if (product === 'oa') query.set('openid', from);
        else query.delete('signature');
        if (p.mode === 'plain') return { query, body: text };
        const sealed = encrypt(p.aes_key, p.id, text);
        query.set('msg_signature', sign(p.token, timestamp, nonce, sealed));
        if (product === 'oa') query.set('encrypt_type', 'aes');
        const inner = p.mode === 'compatible' ? text.slice('<xml>'.length, -'</xml>'.length) : element('ToUserName', p.account);
        return { query, body: `<xml>${inner}${product === 'oa' ? '' : element('AgentID', String(p.agentid ?? ''))}${element('Encrypt', sealed)}</xml>` };
    }

    post(product, from, text) {
        const { query, body } = this.envelope(product, from, text);
        return call('POST', `${this.products[product].url}?${query}`, { headers: { 'content-type': 'text/xml' }, body, timeout_ms: ANSWER_MS });
    }

    // "success" or nothing is an acknowledgement; XML is a passive answer, which must be addressed and sealed rightly.
    judge(product, from, asked, { status, body, error }) {
        if (error || status !== 200) return 'again';
        if (body === '' || body === 'success') return 'ok';
        const p = this.products[product];
        let text = body;
        try {
            if (p.mode === 'safe') {
                const sealed = field(body, 'Encrypt') ?? '';
                if (sign(p.token, field(body, 'TimeStamp') ?? '', field(body, 'Nonce') ?? '', sealed) !== field(body, 'MsgSignature')) throw new Error('its signature is wrong');
                text = decrypt(p.aes_key, p.id, sealed);
            }
            if (field(text, 'ToUserName') !== from || field(text, 'FromUserName') !== field(asked, 'ToUserName')) throw new Error('From and To are not swapped');
        } catch (why) {
            this.complain(`a passive answer is wrong: ${why.message}`);
            return 'again';
        }
        this.accept({ id: `passive-${this.nextId()}`, op: 'passive', to: from, text: field(text, 'Content') ?? '', kind: field(text, 'MsgType') });
        return 'ok';
    }

    async verify(product) {
        const p = this.products[product], timestamp = String(Math.floor(Date.now() / 1000)), nonce = hex(4), word = hex(8);
        const echo = product === 'oa' ? word : encrypt(p.aes_key, p.id, word);
        const query = new URLSearchParams(product === 'oa' ? { signature: sign(p.token, timestamp, nonce), timestamp, nonce, echostr: echo }
            : { msg_signature: sign(p.token, timestamp, nonce, echo), timestamp, nonce, echostr: echo });
        const began = Date.now(), answer = await call('GET', `${p.url}?${query}`);
        return { isVerified: answer.status === 200 && answer.body === word, status: answer.status, ms: Date.now() - began };
    }

    // ---- tokens ----

    makeToken(product) {
        const token = `${product}_${hex(40)}`, life_s = this.options.token_life_s ?? 7200;
        this.tokens.set(token, { product, until: Date.now() + life_s * 1000 });
        return { access_token: token, expires_in: life_s };
    }

    // 0, or the code for a token that is not (any longer) good.
    tokenError(rq, product) {
        // WeCom says 40014 of a token that is not the latest; its 40001 is a wrong secret
        const known = this.tokens.get(rq.query.get('access_token') ?? '');
        if (!known || known.isRevoked) return product === undefined || product === 'oa' ? 40001 : 40014;
        if (product !== undefined && known.product !== product) return 40014;
        return known.until < Date.now() ? 42001 : 0;
    }

    isApp(appid, secret) { const { id, secret: own } = this.products.oa; return appid !== id ? 40013 : secret !== own ? 40125 : 0; }

    stableToken(rq) {
        const ask = JSON.parse(rq.text), bad = this.isApp(ask.appid, ask.secret);
        if (bad) return problem(bad);
        const now = Date.now(), held = this.stable.get('oa');
        if (ask.force_refresh) {
            if (held?.forcedAt > now - 30000) return problem(45009);      // at least 30 s apart
            this.tokensMade.forced++;
            if (held) this.tokens.get(held.access_token).isRevoked = true;
        } else if (held && this.tokens.get(held.access_token).until > now + 1000) {
            return { access_token: held.access_token, expires_in: Math.floor((this.tokens.get(held.access_token).until - now) / 1000) };
        }
        this.tokensMade.stable++;
        const made = this.makeToken('oa');
        this.stable.set('oa', { ...made, forcedAt: ask.force_refresh ? now : held?.forcedAt });
        return made;
    }

    plainToken(rq) {
        const bad = this.isApp(rq.query.get('appid'), rq.query.get('secret'));
        if (bad) return problem(bad);
        for (const t of this.tokens.values()) if (t.product === 'oa' && t.isPlain) t.until = Math.min(t.until, Date.now() + 300000);
        this.tokensMade.token++;
        const made = this.makeToken('oa');
        this.tokens.get(made.access_token).isPlain = true;
        return made;
    }

    corpToken(rq) {
        const product = ['wecom', 'kf'].find(n => this.products[n].id === rq.query.get('corpid') && this.products[n].secret === rq.query.get('corpsecret'));
        if (!product) return problem(40001);
        const held = [...this.tokens].find(([, t]) => t.product === product && !t.isRevoked && t.until > Date.now() + 1000);
        if (held) return { errcode: 0, errmsg: 'ok', access_token: held[0], expires_in: Math.floor((held[1].until - Date.now()) / 1000) };
        this.tokensMade.corp++;
        return { errcode: 0, errmsg: 'ok', ...this.makeToken(product) };
    }

    // ---- the API ----

    api() {
        const guarded = (path, product, fn) => this.on('POST', path, rq => {
            const bad = this.tokenError(rq, product);
            if (bad) { this.note({ op: 'refused', dir: 'received', path, code: bad }); return problem(bad); }
            return fn.call(this, rq);
        });
        this.on('POST', '/cgi-bin/stable_token', rq => this.stableToken(rq));
        this.on('GET', '/cgi-bin/token', rq => this.plainToken(rq));
        this.on('GET', '/cgi-bin/gettoken', rq => this.corpToken(rq));
        this.on('GET', '/cgi-bin/getcallbackip', () => ({ ip_list: ['127.0.0.1'] }));
        this.on('GET', '/cgi-bin/user/info', rq => ({ subscribe: 1, openid: rq.query.get('openid') }));
        guarded('/cgi-bin/message/custom/send', 'oa', this.customSend);
        guarded('/cgi-bin/message/custom/typing', 'oa', this.typing);
        guarded('/cgi-bin/message/template/send', 'oa', this.templateSend);
        guarded('/cgi-bin/message/subscribe/bizsend', 'oa', this.templateSend);
        guarded('/cgi-bin/message/send', 'wecom', this.corpSend);
        guarded('/cgi-bin/kf/sync_msg', 'kf', this.kfSync);
        guarded('/cgi-bin/kf/send_msg', 'kf', this.kfSend);
        guarded('/cgi-bin/kf/send_msg_on_event', 'kf', this.kfWelcome);
        guarded('/cgi-bin/kf/service_state/get', 'kf', rq => ({ errcode: 0, errmsg: 'ok', service_state: this.kfState.get(JSON.parse(rq.text).external_userid) ?? 0 }));
        guarded('/cgi-bin/kf/service_state/trans', 'kf', this.kfTransfer);
        guarded('/cgi-bin/media/upload', undefined, this.upload);
        this.on('GET', '/cgi-bin/media/get', rq => (this.tokenError(rq) ? problem(this.tokenError(rq)) : this.mediaGet(rq.query.get('media_id'))));
        this.on('GET', /^\/media\/(\w+)$/, (_rq, id) => this.mediaGet(id));
    }

    mediaGet(id) {
        const m = this.media.get(id);
        return m && m.until > Date.now() ? { raw: m.bytes, type: m.type, headers: { 'content-disposition': `attachment; filename="${id}"` } } : problem(40007);
    }

    upload(rq) {
        const boundary = /boundary=("?)([^";]+)\1/.exec(rq.headers['content-type'] ?? '')?.[2];
        const at = boundary ? rq.body.indexOf('\r\n\r\n') : -1, end = at < 0 ? -1 : rq.body.indexOf(`\r\n--${boundary}`, at);
        const head = at < 0 ? '' : rq.body.subarray(0, at).toString();
        if (end < 0 || !/name="media"/.test(head)) return problem(41005);
        const media_id = `up_${hex(16)}`, bytes = rq.body.subarray(at + 4, end);
        if (bytes.length <= 5) return problem(40006);
        this.media.set(media_id, { bytes, type: /content-type:\s*([^\r\n]+)/i.exec(head)?.[1] ?? 'application/octet-stream', until: Date.now() + DAYS_3_MS });
        this.note({ op: 'upload', dir: 'received', id: media_id, bytes: bytes.length });
        return { errcode: 0, errmsg: 'ok', type: rq.query.get('type'), media_id, created_at: Math.floor(Date.now() / 1000) };
    }

    // What a customer sees of a body, and what is wrong with it: {text, kind, code, more}.
    read(b) {
        const inner = b[b.msgtype], missing = !inner || typeof inner !== 'object';
        const known = ['text', 'image', 'voice', 'video', 'file', 'music', 'news', 'mpnews', 'msgmenu', 'wxcard', 'miniprogrampage', 'link', 'miniprogram', 'location', 'markdown', 'textcard'];
        if (!known.includes(b.msgtype)) return { code: 40008 };
        if (missing) return { code: 44004 };
        if (b.msgtype === 'text')
            return !inner.content ? { code: 44004 } : Buffer.byteLength(inner.content) > TEXT_MAX_BYTES ? { code: 45002 } : { text: inner.content, kind: 'text' };
        if (['image', 'voice', 'video', 'file'].includes(b.msgtype))
            return this.media.has(inner.media_id) ? { text: `[${b.msgtype}]`, kind: b.msgtype, more: { media_id: inner.media_id } } : { code: 40007 };
        if (b.msgtype === 'msgmenu')
            return { text: [inner.head_content, ...(inner.list ?? []).map(o => `[${o.id ?? o.click?.id}] ${o.content ?? o.click?.content}`), inner.tail_content].filter(Boolean).join('\n'),
                     kind: 'menu', more: { options: (inner.list ?? []).map(o => ({ id: o.id ?? o.click?.id, text: o.content ?? o.click?.content })) } };
        if (b.msgtype === 'news') return { text: (inner.articles ?? []).map(a => `${a.title}\n${a.description ?? ''}\n${a.url}`).join('\n'), kind: 'card' };
        return { text: inner.title ?? inner.content ?? `[${b.msgtype}]`, kind: b.msgtype };
    }

    parse(rq) {
        if (/\\u[0-9a-fA-F]{4}/.test(rq.text.replaceAll('\\\\', ''))) return { bad: 40033 };
        try { return { body: JSON.parse(rq.text) }; } catch { return { bad: 47001 }; }
    }

    customSend(rq) {
        const { body, bad } = this.parse(rq);
        if (bad) return problem(bad);
        const seen = this.read(body);
        return this.submit(rq, {
            broken: () => problem(-1),
            slow_down: () => problem(45011),
            go: () => {
                const code = seen.code ?? this.spend(body.touser);
                if (code) { this.note({ op: 'refused', dir: 'received', to: body.touser, code }); return problem(code); }
                this.accept({ id: this.nextId(), to: body.touser, text: seen.text, kind: seen.kind, more: seen.more, product: 'oa' });
                return problem(0);
            },
        });
    }

    typing(rq) {
        const { touser, command } = JSON.parse(rq.text);
        this.note({ op: 'typing', dir: 'received', to: touser, command });
        if (!['Typing', 'CancelTyping'].includes(command)) return problem(45072);
        for (const wake of this.watchers) wake();
        return problem(0);
    }

    templateSend(rq) {
        const { body, bad } = this.parse(rq);
        if (bad) return problem(bad);
        return this.submit(rq, {
            broken: () => problem(-1), slow_down: () => problem(45009),
            go: () => {
                if (!this.people.has(body.touser)) return problem(40003);
                if (!body.template_id || typeof body.data !== 'object') return problem(47001);
                const msgid = Number(this.ids++ % 1000000000n) + 200000000, key = body.client_msg_id;
                const text = Object.values(body.data).map(v => v.value).join(' ');
                const isNew = this.accept({ id: String(msgid), key, dedupe: key !== undefined, to: body.touser, text, kind: 'template', product: 'oa' });
                if (isNew && rq.path.includes('/template/'))
                    this.later(this.knobs.receipt_ms, () => this.event('oa', body.touser, { Event: 'TEMPLATESENDJOBFINISH', MsgID: msgid, Status: this.hit('receipt_fail') ? 'failed:user block' : 'success' }));
                return { ...problem(0), msgid };
            },
        });
    }

    corpSend(rq) {
        const { body, bad } = this.parse(rq);
        if (bad) return problem(bad);
        const seen = this.read(body), p = this.products.wecom;
        if (String(body.agentid) !== String(p.agentid)) return problem(40056);
        return this.submit(rq, {
            broken: () => problem(-1), slow_down: () => problem(45009),
            go: () => {
                if (seen.code) return problem(seen.code);
                const users = String(body.touser ?? '').split('|'), good = users.filter(u => this.people.has(u));
                if (good.length === 0) return { ...problem(81013), invaliduser: users.join('|') };
                // enable_duplicate_check: the same content within the interval is dropped
                const interval = body.enable_duplicate_check ? (body.duplicate_check_interval ?? 1800) * 1000 : 0, msgid = hex(16);
                for (const u of good) {
                    const key = interval ? `${u} ${rq.text} ${Math.floor(Date.now() / interval)}` : undefined;
                    this.accept({ id: msgid, key, dedupe: interval > 0, to: u, text: seen.text, kind: seen.kind, more: seen.more, product: 'wecom' });
                }
                return { ...problem(0), invaliduser: users.filter(u => !good.includes(u)).join('|'), msgid };
            },
        });
    }

    // ---- kf: the callback is a hint, the messages wait to be fetched ----

    async kfPut(item) {
        const p = this.products.kf;
        this.kfItems.push({ msgid: item.msgid ?? `kf${hex(12)}`, open_kfid: p.open_kfid, send_time: Math.floor(Date.now() / 1000), ...item });
        const token = `ENC${hex(16)}`;
        this.kfTokens.set(token, Date.now() + 600000);
        const body = { ToUserName: p.account, CreateTime: Math.floor(Date.now() / 1000), MsgType: 'event', Event: 'kf_msg_or_event', Token: token, OpenKfId: p.open_kfid };
        return this.deliver('kf', item.external_userid, token, xml(body));
    }

    async kfMessage(from, text, menu_id) {
        const msgid = `kf${hex(12)}`;
        this.note({ op: 'kf_item', dir: 'sent', id: msgid, from, text });
        if (!this.kfState.has(from)) this.kfState.set(from, 1);
        const answer = await this.kfPut({ msgid, external_userid: from, origin: 3, msgtype: 'text', text: { content: text, ...(menu_id ? { menu_id: String(menu_id) } : {}) } });
        return { id: msgid, answer };
    }

    kfEnter(from) {
        const welcome_code = hex(16);
        (this.welcomes ??= new Map()).set(welcome_code, { from, until: Date.now() + 20000 });
        this.person(from);
        return this.kfPut({ external_userid: from, origin: 4, msgtype: 'event', event: { event_type: 'enter_session', open_kfid: this.products.kf.open_kfid, external_userid: from, scene: 'demo', welcome_code } });
    }

    kfSync(rq) {
        const { cursor = '', token = '', limit = 1000, open_kfid } = JSON.parse(rq.text);
        if (cursor.length > 64 || token.length > 128 || limit > 1000) return problem(40058);
        if (token && !(this.kfTokens.get(token) > Date.now())) return problem(95007);
        const from = cursor === '' ? 0 : Number(cursor.replace('cur', '')), most = Math.min(limit, this.options.kf_page ?? 1000);
        if (!Number.isInteger(from) || from > this.kfItems.length) return problem(95000);
        const page = this.kfItems.slice(from, from + most);
        this.note({ op: 'sync', dir: 'received', from, count: page.length });
        return { ...problem(0), next_cursor: `cur${from + page.length}`, has_more: from + page.length < this.kfItems.length ? 1 : 0, msg_list: page.filter(i => !open_kfid || i.open_kfid === open_kfid) };
    }

    kfSend(rq) {
        const { body, bad } = this.parse(rq);
        if (bad) return problem(bad);
        const seen = this.read(body), key = body.msgid;
        if (key !== undefined && !/^[0-9a-zA-Z_-]{1,32}$/.test(key)) return problem(95014);
        return this.submit(rq, {
            broken: () => problem(-1), slow_down: () => problem(45009),
            go: () => {
                if (body.open_kfid !== this.products.kf.open_kfid) return problem(95001);
                if (![0, 1].includes(this.kfState.get(body.touser) ?? 0)) return problem(95018);
                const isRepeat = key !== undefined && this.seen.has(key), code = seen.code ?? (isRepeat ? 0 : this.spend(body.touser));
                if (code) { this.note({ op: 'refused', dir: 'received', to: body.touser, code }); return problem(code); }
                const id = key ?? `kf${hex(12)}`;
                const isNew = this.accept({ id, key, dedupe: key !== undefined, to: body.touser, text: seen.text, kind: seen.kind, more: seen.more, product: 'kf' });
                if (isNew && this.hit('receipt_fail')) this.later(this.knobs.receipt_ms, () => this.kfFail(id, body));
                return { ...problem(0), msgid: id };
            },
        });
    }

    // It waits to be fetched like a message; fetched is what comes after a cursor beyond it.
    kfFail(id, { touser, open_kfid }) {
        const item = { external_userid: touser, origin: 4, msgtype: 'event', event: { event_type: 'msg_send_fail', open_kfid, external_userid: touser, fail_msgid: id, fail_type: 4 } };
        this.note({ op: 'receipt', dir: 'sent', id, word: 'failed', to: touser, acknowledged: true });
        return this.kfPut(item);
    }

    kfWelcome(rq) {
        const body = JSON.parse(rq.text), w = this.welcomes?.get(body.code), seen = this.read(body);
        if (!w || w.until < Date.now()) return problem(95016);
        this.welcomes.delete(body.code);
        if (seen.code) return problem(seen.code);
        this.accept({ id: body.msgid ?? hex(12), to: w.from, text: seen.text, kind: seen.kind, product: 'kf' });
        return { ...problem(0), msgid: body.msgid ?? '' };
    }

    kfTransfer(rq) {
        const { external_userid, service_state } = JSON.parse(rq.text);
        this.kfState.set(external_userid, service_state);
        return problem(0);
    }
}

const WORDS = { 0: 'ok', '-1': 'system busy', 40001: 'invalid credential, access_token is invalid or not latest', 40003: 'invalid openid', 40007: 'invalid media_id', 40008: 'invalid message type',
                40013: 'invalid appid', 40014: 'invalid access_token', 40033: 'invalid charset', 40125: 'invalid appsecret', 42001: 'access_token expired', 44004: 'empty content',
                45002: 'content size out of limit', 45009: 'reach max api daily quota limit', 45011: 'api minute-quota reach limit', 45015: 'response out of time limit or subscription is canceled',
                45047: 'out of response count limit', 45072: 'invalid command', 47001: 'data format error', 81013: 'user & party & tag all invalid', 95018: 'invalid session status' };
const problem = errcode => ({ errcode, errmsg: WORDS[errcode] ?? 'error' });

export async function start(options = {}) { return new WeChat(options).listen(options.port ?? 0); }
await main(import.meta, start);
