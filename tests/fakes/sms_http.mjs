// SMS providers over HTTP: one port that answers like Twilio, like Aliyun (SendSms, signature ACS3) and like Tencent Cloud (SendSms, signature
// TC3), and that calls the gateway back like each of them. Signatures of requests are computed again here, from the public documents:
// twilio.com/docs/usage/security, help.aliyun.com "V3 request structure and signature", cloud.tencent.com/document/api/382/52072.
//
// options: twilio {account, token, number, url, public_url}, aliyun {key, secret, url}, tencent {id, key, app, url}
// url is the gateway's webhook; public_url is what the provider was told, and what is signed.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { Fake, call, hex, main, sleep } from './fake.mjs';

const PUSH_TRIES = 20, STOP_WORDS = /^(stop|stopall|unsubscribe|cancel|end|quit)$/i, START_WORDS = /^(start|yes|unstop)$/i;
const DEFAULTS = {
    twilio: { account: 'ACfa4e0000000000000000000000000000', token: 'demo-auth-token', number: '+15005550006' },
    aliyun: { key: 'demo-access-key', secret: 'demo-access-secret', number: '10690002' },
    tencent: { id: 'demo-secret-id', key: 'demo-secret-key', app: '1400000000', number: '10690003' },
};
const sha256 = data => createHash('sha256').update(data).digest('hex');
const hmac = (key, data, form) => createHmac('sha256', key).update(data).digest(form);
const isSame = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));

export function twilioSignature(token, url, params) {
    const names = [...new Set(params.map(([k]) => k))].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    const text = names.map(name => [...new Set(params.filter(([k]) => k === name).map(([, v]) => v))].sort().map(v => name + v).join('')).join('');
    return createHmac('sha1', token).update(url + text).digest('base64');
}

const rfc3986 = text => encodeURIComponent(text).replace(/[!'()*]/g, c => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

// '' when the signature is right, else what is wrong with it.
export function acs3Wrong(rq, { key, secret }) {
    const match = /^ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})$/.exec(rq.headers.authorization ?? '');
    if (!match || match[1] !== key) return 'InvalidAccessKeyId.NotFound';
    const names = match[2].split(';'), owed = ['host', ...Object.keys(rq.headers).filter(h => h.startsWith('x-acs-'))];
    if (owed.some(h => !names.includes(h))) return 'IncompleteSignature';
    if (rq.headers['x-acs-content-sha256'] !== sha256(rq.body)) return 'InvalidContentHash';
    const query = [...rq.query].map(([k, v]) => [rfc3986(k), rfc3986(v)]).sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, v]) => `${k}=${v}`).join('&');
    const canonical = [rq.method, rq.path, query, names.map(n => `${n}:${(rq.headers[n] ?? '').trim()}\n`).join(''), match[2], sha256(rq.body)].join('\n');
    return isSame(hmac(secret, `ACS3-HMAC-SHA256\n${sha256(canonical)}`, 'hex'), match[3]) ? '' : 'SignatureDoesNotMatch';
}

export function tc3Wrong(rq, { id, key }, now = Date.now()) {
    const match = /^TC3-HMAC-SHA256 Credential=([^/]+)\/([^/]+)\/([^/]+)\/tc3_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(rq.headers.authorization ?? '');
    const at = Number(rq.headers['x-tc-timestamp']);
    if (!match || match[1] !== id) return 'AuthFailure.SecretIdNotFound';
    if (Math.abs(now / 1000 - at) > 300) return 'AuthFailure.SignatureExpire';
    const [, , date, service, signed, signature] = match;
    if (date !== new Date(at * 1000).toISOString().slice(0, 10)) return 'AuthFailure.SignatureFailure';
    const canonical = [rq.method, '/', '', signed.split(';').map(n => `${n}:${(rq.headers[n] ?? '').trim().toLowerCase()}\n`).join(''), signed, sha256(rq.body)].join('\n');
    const text = ['TC3-HMAC-SHA256', at, `${date}/${service}/tc3_request`, sha256(canonical)].join('\n');
    const derived = hmac(hmac(hmac(`TC3${key}`, date), service), 'tc3_request');
    return isSame(hmac(derived, text, 'hex'), signature) ? '' : 'AuthFailure.SignatureFailure';
}

class SmsHttp extends Fake {
    constructor(options) {
        super('sms_http', options);
        for (const [name, base] of Object.entries(DEFAULTS)) this[name] = { ...base, ...options[name] };
        this.optedOut = new Set();
        this.serial = 0;
        this.on('POST', /^\/2010-04-01\/Accounts\/(\w+)\/Messages\.json$/, (rq, account) => this.twilioSend(rq, account));
        for (const method of ['POST', 'GET']) this.on(method, '/', rq => (rq.headers['x-tc-action'] ? this.tencentSend(rq) : this.aliyunSend(rq)));
        this.actions = { point: rq => { for (const [name, url] of Object.entries(rq)) this[name].url = url; return {}; } };
    }

    // ---- Twilio ----

    twilioSend(rq, account) {
        const { twilio } = this, wanted = `Basic ${Buffer.from(`${twilio.account}:${twilio.token}`).toString('base64')}`;
        if (account !== twilio.account || rq.headers.authorization !== wanted) return { status: 401, json: { code: 20003, message: 'Authenticate', status: 401 } };
        const form = new URLSearchParams(rq.text), to = form.get('To') ?? '', text = form.get('Body') ?? '', from = form.get('From') ?? form.get('MessagingServiceSid');
        const refuse = (status, code, message) => { this.note({ op: 'refused', dir: 'received', to, code }); return { status, json: { code, message, status } }; };
        return this.submit(rq, {
            broken: () => refuse(503, 20500, 'Internal Server Error'),
            slow_down: () => ({ ...refuse(429, 20429, 'Too Many Requests'), headers: { 'retry-after': String(this.knobs.retry_after_s) } }),
            go: async () => {
                if (!from) return refuse(400, 21603, "A 'From' phone number is required");
                if (!/^\+\d{7,15}$/.test(to)) return refuse(400, 21211, `Invalid 'To' Phone Number: ${to}`);
                if (text === '' && !form.has('MediaUrl')) return refuse(400, 21602, 'Message body is required');
                if ([...text].length > 1600) return refuse(400, 21617, 'The concatenated message body exceeds the 1600 character limit');
                if (this.optedOut.has(to)) return refuse(400, 21610, 'Attempt to send to unsubscribed recipient');
                const sid = `SM${hex(16)}`, callback = form.get('StatusCallback');
                this.accept({ id: sid, to, from, text: text || form.getAll('MediaUrl').join(' '), provider: 'twilio' });
                const tell = word => this.twilioStatus(sid, to, from, word, callback), words = this.hit('receipt_fail') ? ['sent', 'undelivered'] : ['sent', 'delivered'];
                if (callback && this.knobs.receipt === 'early') await tell(words[1]);
                else if (callback) this.receipts(words, tell);
                return { status: 201, json: { sid, status: 'queued', to, from, body: text, num_segments: '1', account_sid: account, error_code: null } };
            },
        });
    }

    async twilioStatus(sid, to, from, word, callback) {
        const id = this.hit('wrong_case') ? `SM${sid.slice(2).toUpperCase()}` : sid;
        const params = [['MessageSid', id], ['SmsSid', id], ['MessageStatus', word], ['SmsStatus', word], ['To', to], ['From', from], ['AccountSid', this.twilio.account], ['ApiVersion', '2010-04-01'],
                        ...(word === 'undelivered' ? [['ErrorCode', '30005']] : [])];
        return this.pushed({ op: 'receipt', id: sid, word, to: from, from: to }, () => this.twilioPost(callback, params), answer => answer.status >= 200 && answer.status < 300);
    }

    // What is signed is the URL the provider was told; where it is sent may be another (a proxy stands between them).
    twilioPost(told, params) {
        const { twilio } = this, url = twilio.public_url && told.startsWith(twilio.public_url) ? twilio.url + told.slice(twilio.public_url.length) : told;
        return call('POST', url, { headers: { 'content-type': 'application/x-www-form-urlencoded', 'x-twilio-signature': twilioSignature(twilio.token, told, params) },
                                   body: new URLSearchParams(params).toString(), timeout_ms: 15000 });
    }

    // ---- Aliyun ----

    aliyunSend(rq) {
        const wrong = acs3Wrong(rq, this.aliyun), form = new URLSearchParams([...rq.query, ...new URLSearchParams(rq.text)]);
        const answer = (status, Code, Message, more = {}) => ({ status, json: { Code, Message, RequestId: hex(16).toUpperCase(), ...more } });
        if (wrong) { this.complain(`Aliyun: ${wrong}`); return answer(403, wrong, 'signature'); }
        if (rq.headers['x-acs-action'] !== 'SendSms') return answer(404, 'InvalidAction.NotFound', 'action');
        const to = form.get('PhoneNumbers') ?? '', out = form.get('OutId') ?? '';
        return this.submit(rq, {
            broken: () => answer(503, 'ServiceUnavailable', 'The request has failed due to a temporary failure of the server.'),
            slow_down: () => answer(200, 'isv.BUSINESS_LIMIT_CONTROL', '触发小时级流控'),
            go: async () => {
                const values = JSON.parse(form.get('TemplateParam') || '{}'), text = Object.values(values).join(' ');
                if (!form.get('SignName')) return answer(200, 'isv.SMS_SIGNATURE_ILLEGAL', '短信签名不合法');
                if (!form.get('TemplateCode')) return answer(200, 'isv.SMS_TEMPLATE_ILLEGAL', '短信模版不合法');
                if (!/^\d{5,20}(,\d{5,20})*$/.test(to)) return answer(200, 'isv.MOBILE_NUMBER_ILLEGAL', '非法手机号');
                const BizId = `${Date.now()}${++this.serial}^0`;
                this.accept({ id: BizId, key: undefined, to, text, template: form.get('TemplateCode'), provider: 'aliyun' });
                const tell = word => this.aliyunReport(BizId, to, out, word), words = [this.hit('receipt_fail') ? 'failed' : 'delivered'];
                if (this.knobs.receipt === 'early') await tell(words[0]);
                else this.receipts(words, tell);
                return answer(200, 'OK', 'OK', { BizId });
            },
        });
    }

    aliyunReport(biz_id, phone_number, out_id, word) {
        if (!this.aliyun.url) return;
        const at = new Date().toISOString().slice(0, 19).replace('T', ' '), is_good = word === 'delivered';
        const body = JSON.stringify([{ phone_number, send_time: at, report_time: at, success: is_good, err_code: is_good ? 'DELIVERED' : 'MOBILE_NOT_ON_SERVICE', err_msg: is_good ? '用户接收成功' : '空号', sms_size: '1', biz_id, out_id }]);
        return this.jsonPush({ op: 'receipt', id: biz_id, word, from: phone_number }, `${this.aliyun.url}${this.aliyun.report_path ?? ''}`, body, a => a.code === 0, 700);
    }

    // ---- Tencent Cloud ----

    tencentSend(rq) {
        const wrong = tc3Wrong(rq, this.tencent), fail = (Code, Message = Code) => ({ Response: { Error: { Code, Message }, RequestId: hex(16) } });
        if (wrong) { this.complain(`Tencent: ${wrong}`); return fail(wrong); }
        if (rq.headers['x-tc-action'] !== 'SendSms' || rq.headers['x-tc-version'] !== '2021-01-11') return fail('InvalidAction');
        const ask = JSON.parse(rq.text);
        return this.submit(rq, {
            broken: () => ({ status: 503, json: fail('InternalError') }),
            slow_down: () => fail('RequestLimitExceeded'),
            go: async () => {
                if (ask.SmsSdkAppId !== this.tencent.app) return fail('FailedOperation.SdkAppIdNotExist');
                const set = [];
                for (const to of ask.PhoneNumberSet ?? []) {
                    const SerialNo = `2640:${++this.serial}${Date.now()}`, text = (ask.TemplateParamSet ?? []).join(' ');
                    const good = /^\+\d{7,15}$/.test(to);
                    if (good) this.accept({ id: SerialNo, to, text, template: ask.TemplateId, provider: 'tencent' });
                    const tell = word => this.tencentReport(SerialNo, to, word);
                    if (good && this.knobs.receipt === 'early') await tell('delivered');
                    else if (good) this.receipts([this.hit('receipt_fail') ? 'failed' : 'delivered'], tell);
                    set.push({ SerialNo: good ? SerialNo : '', PhoneNumber: to, Fee: 1, SessionContext: ask.SessionContext ?? '', Code: good ? 'Ok' : 'InvalidParameterValue.IncorrectPhoneNumber', Message: '', IsoCode: 'CN' });
                }
                return { Response: { SendStatusSet: set, RequestId: hex(16) } };
            },
        });
    }

    tencentReport(sid, to, word) {
        if (!this.tencent.url) return;
        const body = JSON.stringify([{ user_receive_time: new Date().toISOString().slice(0, 19).replace('T', ' '), nationcode: '86', mobile: to.replace(/^\+86/, ''),
                                       report_status: word === 'delivered' ? 'SUCCESS' : 'FAIL', errmsg: word === 'delivered' ? 'DELIVRD' : 'UNDELIV', description: '', sid }]);
        return this.jsonPush({ op: 'receipt', id: sid, word, from: to }, `${this.tencent.url}${this.tencent.report_path ?? ''}`, body, a => a.result === 0, 5000);
    }

    // ---- pushes ----

    jsonPush(entry, url, body, isGood, timeout_ms) {
        const good = answer => { try { return answer.status === 200 && isGood(JSON.parse(answer.body)); } catch { return false; } };
        return this.pushed(entry, () => call('POST', url, { headers: { 'content-type': 'application/json' }, body, timeout_ms }), good);
    }

    // Repeated until it is acknowledged (Aliyun and Tencent do so; of Twilio it is asked for, so that a restarting gateway loses nothing).
    pushed(entry, go, isGood) {
        return this.push(async () => {
            for (let i = 1; i <= PUSH_TRIES && !this.isStopped; i++) {
                const answer = await go(), acknowledged = isGood(answer);
                this.note({ dir: 'sent', ...entry, attempt: i, status: answer.status || answer.error, acknowledged });
                if (acknowledged) return true;
                await sleep(Math.min(150 * i, 2000));
            }
            return false;
        });
    }

    async customer({ provider = 'twilio', from, text, media = [] }) {
        if (!from || !text) throw Object.assign(new Error('from and text are needed'), { status: 400 });
        const p = this[provider], id = provider === 'twilio' ? `SM${hex(16)}` : String(++this.serial);
        if (!p?.url) throw Object.assign(new Error(`${provider}: nobody said where the gateway is`), { status: 400 });
        this.show(from, { by: 'customer', text, kind: 'text' });
        if (provider === 'twilio' && STOP_WORDS.test(text.trim())) this.optedOut.add(from);
        if (provider === 'twilio' && START_WORDS.test(text.trim())) this.optedOut.delete(from);
        const entry = { op: 'mo', id, from, to: p.number, text };
        const good = await { twilio: () => this.twilioMessage(entry, media), aliyun: () => this.aliyunMessage(entry), tencent: () => this.tencentMessage(entry) }[provider]();
        return { id, answer: good ? 'accepted' : 'given up' };
    }

    twilioMessage(entry, media) {
        const { twilio } = this, params = [['MessageSid', entry.id], ['SmsSid', entry.id], ['SmsMessageSid', entry.id], ['AccountSid', twilio.account], ['From', entry.from], ['To', twilio.number],
            ['Body', entry.text], ['NumMedia', String(media.length)], ['NumSegments', '1'], ['SmsStatus', 'received'], ['ApiVersion', '2010-04-01'], ['FromCountry', 'US'],
            ...media.flatMap((m, i) => [[`MediaUrl${i}`, m.url], [`MediaContentType${i}`, m.type]])];
        return this.pushed(entry, () => this.twilioPost(twilio.public_url ?? twilio.url, params), a => a.status >= 200 && a.status < 300);
    }

    aliyunMessage(entry) {
        const body = JSON.stringify([{ phone_number: entry.from, content: entry.text, send_time: new Date().toISOString().slice(0, 19).replace('T', ' '), dest_code: entry.to, sequence_id: entry.id, sign_name: 'demo' }]);
        return this.jsonPush(entry, `${this.aliyun.url}${this.aliyun.up_path ?? ''}`, body, a => a.code === 0, 700);
    }

    tencentMessage(entry) {
        const body = JSON.stringify({ extend: '', mobile: entry.from.replace(/^\+86/, ''), nationcode: '86', sign: 'demo', text: entry.text, time: Math.floor(Date.now() / 1000) });
        return this.jsonPush(entry, `${this.tencent.url}${this.tencent.up_path ?? ''}`, body, a => a.result === 0, 5000);
    }
}

export async function start(options = {}) { return new SmsHttp(options).listen(options.port ?? 0); }
await main(import.meta, start);
