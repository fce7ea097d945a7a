// A mail server with mailboxes: an SMTP submission sink (RFC 5321, 6409) that takes what the gateway sends, and an LMTP client (RFC 2033) that
// brings it customers' mail and, on demand, delivery reports (RFC 3464). What is not taken with 250 is kept and brought again, as a real mail
// server does.
//
// options: smtp_port, user, password (asked for when given), lmtp (host:port of the gateway), address (of the inbox), retry_ms
// ports.smtp is where to submit. /do/bounce {id} reports the failure of a sent mail; /do/point {lmtp} says where the gateway is.

import net from 'node:net';
import { Fake, hex, main, sleep } from './fake.mjs';

const LINE_MAX_BYTES = 65536, MAIL_MAX_BYTES = 30 << 20, PUSH_TRIES = 200, LMTP_WAIT_MS = 20000;

// ---- reading a mail, as far as a phone shows one ----

const WORD = /=\?([\w-]+)\?([bq])\?([^?]*)\?=(?:\s+(?==\?))?/gi;
const quoted = text => Buffer.from(text.replace(/=\r?\n/g, '').replace(/=([0-9a-f]{2})/gi, (_m, h) => String.fromCharCode(parseInt(h, 16))), 'latin1');
function words(text) {
    return text.replace(WORD, (_m, _charset, form, data) => (form.toLowerCase() === 'b' ? Buffer.from(data, 'base64') : quoted(data.replaceAll('_', ' '))).toString('utf8'));
}

export function readMail(source) {
    const raw = source.toString('latin1'), cut = raw.indexOf('\r\n\r\n'), head = cut < 0 ? raw : raw.slice(0, cut), rest = cut < 0 ? '' : raw.slice(cut + 4);
    const headers = {};
    for (const line of head.replace(/\r\n[ \t]+/g, ' ').split('\r\n')) {
        const colon = line.indexOf(':');
        if (colon > 0) headers[line.slice(0, colon).toLowerCase()] ??= words(Buffer.from(line.slice(colon + 1).trim(), 'latin1').toString('utf8'));
    }
    const type = headers['content-type'] ?? 'text/plain', boundary = /boundary="?([^";]+)"?/i.exec(type)?.[1];
    if (/^multipart\//i.test(type) && boundary) {
        const parts = `\r\n${rest}`.split(`\r\n--${boundary}`).slice(1, -1).map(p => readMail(Buffer.from(p.replace(/^[ \t]*\r\n/, ''), 'latin1')));
        return { headers, parts, text: (parts.find(p => /^text\/plain/i.test(p.headers['content-type'] ?? 'text/plain')) ?? parts.find(p => p.text) ?? { text: '' }).text };
    }
    const form = (headers['content-transfer-encoding'] ?? '').toLowerCase();
    const bytes = form === 'base64' ? Buffer.from(rest, 'base64') : form === 'quoted-printable' ? quoted(rest) : Buffer.from(rest, 'latin1');
    return { headers, parts: [], text: /^text\//i.test(type) ? bytes.toString('utf8').replaceAll('\r\n', '\n').trim() : '' };
}

// The names of what is attached, also in parts of parts.
export function attachments({ headers, parts }) {
    const [, isCoded, name] = /^attachment;.*\bfilename(\*=utf-8''|="?)([^";]+)/i.exec(headers['content-disposition'] ?? '') ?? [];
    return [...(name ? [isCoded.startsWith('*') ? quoted(name.replaceAll('%', '=')).toString('utf8') : name] : []), ...parts.flatMap(attachments)];
}

const encoded = text => (/^[\x20-\x7e]*$/.test(text) ? text : `=?UTF-8?B?${Buffer.from(text).toString('base64')}?=`);
const bare = address => /<([^<>]*)>/.exec(address)?.[1] ?? address.trim();

// ---- SMTP: one connection that submits ----

class Submission {
    constructor(mail, socket) {
        Object.assign(this, { mail, socket, rest: Buffer.alloc(0), from: null, to: [], isAuthorized: !mail.options.user });
        socket.on('error', () => {});
        socket.on('data', chunk => { this.rest = Buffer.concat([this.rest, chunk]); this.run(); });
        this.say('220 fake.mail ESMTP');
    }

    say(line) { if (!this.socket.destroyed) this.socket.write(`${line}\r\n`); }

    // One command after the other: an answer may take its time.
    async run() {
        if (this.isBusy) return;
        this.isBusy = true;
        try {
            for (let end; !this.socket.destroyed;) {
                if (this.isData) {
                    const dot = this.rest.subarray(0, 3).equals(Buffer.from('.\r\n')) ? 0 : this.rest.indexOf('\r\n.\r\n');
                    if (dot < 0) { if (this.rest.length > MAIL_MAX_BYTES) this.socket.destroy(); break; }
                    const source = this.rest.subarray(0, dot === 0 ? 0 : dot + 2);
                    this.rest = this.rest.subarray(dot === 0 ? 3 : dot + 5);
                    this.isData = false;
                    await this.mail.submitted(this, Buffer.from(source.toString('latin1').replace(/^\.\./gm, '.'), 'latin1'));
                } else {
                    if ((end = this.rest.indexOf('\r\n')) < 0) { if (this.rest.length > LINE_MAX_BYTES) this.socket.destroy(); break; }
                    const line = this.rest.toString('utf8', 0, end);
                    this.rest = this.rest.subarray(end + 2);
                    await this.command(line);
                }
            }
        } finally {
            this.isBusy = false;
        }
    }

    async command(line) {
        const [verb] = line.toUpperCase().split(/[ :]/), { mail } = this;
        if (this.login) return this.loginStep(line);
        if (verb === 'EHLO') return this.socket.write(`250-fake.mail\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 26214400\r\n${mail.options.user ? '250-AUTH PLAIN LOGIN\r\n' : ''}250 ENHANCEDSTATUSCODES\r\n`);
        if (verb === 'HELO') return this.say('250 fake.mail');
        if (verb === 'NOOP') return this.say('250 2.0.0 ok');
        if (verb === 'RSET') { this.reset(); return this.say('250 2.0.0 ok'); }
        if (verb === 'QUIT') { this.say('221 2.0.0 bye'); return this.socket.end(); }
        if (verb === 'AUTH') return this.auth(line.slice(5).trim());
        if (!this.isAuthorized) return this.say('530 5.7.0 authentication required');
        if (verb === 'MAIL') {
            this.reset();
            this.from = bare(line.slice(line.indexOf(':') + 1).trim().split(' ')[0]);
            return mail.hit('fail_429') ? (this.from = null, this.say('450 4.7.1 too many messages, slow down')) : this.say('250 2.1.0 ok');
        }
        if (verb === 'RCPT') {
            const to = bare(line.slice(line.indexOf(':') + 1).trim().split(' ')[0]);
            if (this.from === null) return this.say('503 5.5.1 MAIL first');
            if (/^nobody@/i.test(to)) return this.say('550 5.1.1 no such user');
            this.to.push(to);
            return this.say('250 2.1.5 ok');
        }
        if (verb === 'DATA') {
            if (this.to.length === 0) return this.say('503 5.5.1 RCPT first');
            this.isData = true;
            return this.say('354 go ahead');
        }
        return this.say('502 5.5.2 command not known');
    }

    reset() { this.from = null; this.to = []; }

    auth(words) {
        const [form, data] = words.split(' ');
        if (form.toUpperCase() === 'LOGIN') { this.login = []; return this.say(`334 ${Buffer.from('Username:').toString('base64')}`); }
        if (form.toUpperCase() !== 'PLAIN') return this.say('504 5.5.4 mechanism not known');
        if (data === undefined) { this.login = 'plain'; return this.say('334 '); }
        const [, user, password] = Buffer.from(data, 'base64').toString().split('\0');
        return this.judge(user, password);
    }

    loginStep(line) {
        if (this.login === 'plain') { this.login = null; return this.auth(`PLAIN ${line}`); }
        this.login.push(Buffer.from(line, 'base64').toString());
        if (this.login.length === 1) return this.say(`334 ${Buffer.from('Password:').toString('base64')}`);
        const [user, password] = this.login;
        this.login = null;
        return this.judge(user, password);
    }

    judge(user, password) {
        this.isAuthorized = user === this.mail.options.user && password === this.mail.options.password;
        return this.say(this.isAuthorized ? '235 2.7.0 welcome' : '535 5.7.8 authentication failed');
    }
}

// ---- LMTP: the other direction ----

class Lmtp {
    constructor(where) {
        const [host, port] = where.split(':');
        this.lines = [];
        this.text = '';
        this.socket = net.connect(Number(port), host);
        this.socket.setTimeout(LMTP_WAIT_MS, () => this.socket.destroy());
        this.socket.on('data', chunk => {
            this.text += chunk.toString('utf8');
            for (let end; (end = this.text.indexOf('\r\n')) >= 0; this.text = this.text.slice(end + 2)) this.lines.push(this.text.slice(0, end));
            this.wake?.();
        });
        for (const how of ['error', 'close']) this.socket.on(how, () => { this.isClosed = true; this.wake?.(); });
    }

    async reply() {
        for (;;) {
            while (this.lines.length > 0) { const line = this.lines.shift(); if (line[3] !== '-') return line; }
            if (this.isClosed) throw new Error('the connection ended');
            await new Promise(resolve => { this.wake = resolve; });
        }
    }

    async ask(line, wanted) {
        this.socket.write(`${line}\r\n`);
        const reply = await this.reply();
        if (!reply.startsWith(wanted)) throw new Error(reply);
        return reply;
    }

    async deliver(from, to, source) {
        await this.reply();
        await this.ask('LHLO fake.mail', '2');
        await this.ask(`MAIL FROM:<${from}>`, '2');
        await this.ask(`RCPT TO:<${to}>`, '2');
        await this.ask('DATA', '354');
        const text = source.toString('latin1').replace(/^\./gm, '..');
        this.socket.write(Buffer.from(`${text}${text.endsWith('\r\n') ? '' : '\r\n'}.\r\n`, 'latin1'));
        const reply = await this.reply();
        this.socket.end('QUIT\r\n');
        return reply;
    }
}

// ---- the server ----

class Mail extends Fake {
    constructor(options) {
        super('mail', options);
        this.address = options.address ?? 'service@sluice.test';
        this.lmtp = options.lmtp;
        this.sent = new Map();      // Message-ID -> {mail, from, to}
        this.last = new Map();      // customer -> the last mail she got, to answer it
        this.actions = {
            bounce: ({ id, to }) => this.bounce(id, to),
            point: ({ lmtp }) => { this.lmtp = lmtp; return {}; },
            raw: ({ from, to = this.address, base64 }) => this.bring({ op: 'raw', from, to }, from, to, Buffer.from(base64, 'base64')),
        };
        this.on('GET', /^\/mail\/(.+)$/, (_rq, id) => ({ raw: this.sent.get(decodeURIComponent(id))?.source ?? '', type: 'message/rfc822' }));
    }

    async listen(port) {
        this.tcp = net.createServer(socket => {
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            new Submission(this, socket);
        });
        this.sockets = new Set();
        await new Promise((resolve, reject) => this.tcp.once('error', reject).listen(this.options.smtp_port ?? 0, '127.0.0.1', resolve));
        this.ports = { smtp: this.tcp.address().port };
        return super.listen(port);
    }

    // The final dot has come.
    async submitted(connection, source) {
        const mail = readMail(source), id = (mail.headers['message-id'] ?? '').trim(), { from, to } = connection, { knobs } = this;
        connection.reset();
        if (knobs.latency_ms > 0) await sleep(knobs.latency_ms);
        const fault = name => { this.note({ op: 'fault', fault: name, id }); connection.socket.destroy(); };
        if (this.hit('drop_before')) return fault('drop_before');
        if (this.hit('fail_5xx')) return connection.say('451 4.3.0 temporary failure, try again');
        if (!/^<[^<>\s]+@[^<>\s]+>$/.test(id)) this.complain(`a mail without a proper Message-ID: ${id}`);
        for (const one of to) {
            const customer = bare(one).toLowerCase();
            this.accept({ id, key: `${id} ${customer}`, from, to: customer, text: mail.text, subject: mail.headers.subject, in_reply_to: mail.headers['in-reply-to'], more: { subject: mail.headers.subject, attachments: attachments(mail) } });
            this.last.set(customer, { id, subject: mail.headers.subject ?? '', references: mail.headers.references ?? '', reply_to: bare(mail.headers['reply-to'] ?? mail.headers.from ?? this.address) });
            this.sent.set(id, { source, mail, from, to: customer });
            if (this.knobs.receipt === 'early' && this.hit('receipt_fail')) await this.bounce(id, customer);
            else if (this.hit('receipt_fail')) this.later(this.knobs.receipt_ms, () => this.bounce(id, customer));
        }
        if (this.hit('hang_after')) { this.note({ op: 'fault', fault: 'hang_after', id }); return; }
        if (this.hit('drop_after')) return fault('drop_after');
        connection.say('250 2.0.0 queued');
    }

    async customer({ from, text, subject, fresh = false, to }) {
        if (!from || !text) throw Object.assign(new Error('from and text are needed'), { status: 400 });
        const address = bare(from).toLowerCase(), last = fresh ? undefined : this.last.get(address), id = `<${hex(12)}@customer.test>`;
        const title = subject ?? (last ? `Re: ${last.subject.replace(/^re: */i, '')}` : 'A question');
        this.show(address, { by: 'customer', text, kind: 'text', more: { subject: title } });
        const quote = last ? `\r\n\r\nOn ${new Date().toUTCString()} ${this.address} wrote:\r\n> (what you wrote)\r\n` : '';
        const target = to ?? last?.reply_to ?? this.address;
        const source = [`From: ${from.includes('<') ? from : `<${from}>`}`, `To: <${target}>`, `Subject: ${encoded(title)}`, `Message-ID: ${id}`, `Date: ${new Date().toUTCString().replace('GMT', '+0000')}`,
                        ...(last ? [`In-Reply-To: ${last.id}`, `References: ${`${last.references} ${last.id}`.trim()}`] : []), 'MIME-Version: 1.0', 'Content-Type: text/plain; charset=utf-8',
                        'Content-Transfer-Encoding: base64', '', Buffer.from(text + quote).toString('base64').replace(/(.{76})/g, '$1\r\n'), ''].join('\r\n');
        return { id, answer: await this.bring({ op: 'mo', id, from: address, to: target, text }, address, target, Buffer.from(source, 'latin1')) ? 'accepted' : 'given up' };
    }

    // Kept and tried again until the gateway has answered 250 or 5xx.
    bring(entry, from, to, source) {
        return this.push(async () => {
            for (let i = 1; i <= PUSH_TRIES && !this.isStopped; i++) {
                if (!this.lmtp) throw Object.assign(new Error('nobody said where the gateway listens for LMTP'), { status: 400 });
                const reply = await new Lmtp(this.lmtp).deliver(from, to, source).catch(error => error.message), acknowledged = reply.startsWith('250');
                this.note({ dir: 'sent', ...entry, attempt: i, status: reply, acknowledged });
                if (acknowledged) return true;
                if (reply.startsWith('5')) return false;
                await sleep(this.options.retry_ms ?? Math.min(200 * i, 3000));
            }
            return false;
        });
    }

    // A delivery report to the envelope sender of a mail that was sent.
    bounce(id, to) {
        const one = this.sent.get(id) ?? [...this.sent.values()].filter(s => !to || s.to === to).pop();
        if (!one) throw Object.assign(new Error('no such mail was sent'), { status: 404 });
        const boundary = `b-${hex(8)}`, message_id = one.mail.headers['message-id'];
        const source = ['From: MAILER-DAEMON@fake.mail', `To: <${one.from}>`, 'Subject: Undelivered Mail Returned to Sender', `Message-ID: <${hex(10)}@fake.mail>`, `Date: ${new Date().toUTCString().replace('GMT', '+0000')}`,
            'Auto-Submitted: auto-replied', 'MIME-Version: 1.0', `Content-Type: multipart/report; report-type=delivery-status; boundary="${boundary}"`, '',
            `--${boundary}`, 'Content-Type: text/plain', '', 'The mail could not be delivered.', '',
            `--${boundary}`, 'Content-Type: message/delivery-status', '', 'Reporting-MTA: dns; fake.mail', `Arrival-Date: ${new Date().toUTCString().replace('GMT', '+0000')}`, '',
            `Final-Recipient: rfc822; ${one.to}`, 'Action: failed', 'Status: 5.1.1', 'Diagnostic-Code: smtp; 550 5.1.1 mailbox does not exist', '',
            `--${boundary}`, 'Content-Type: text/rfc822-headers', '', `Message-ID: ${message_id}`, `To: <${one.to}>`, '', `--${boundary}--`, ''].join('\r\n');
        return this.bring({ op: 'receipt', id: message_id, word: 'failed', to: one.from }, '', one.from, Buffer.from(source, 'latin1'));
    }

    async stop() {
        for (const socket of this.sockets) socket.destroy();
        this.tcp.close();
        await super.stop();
    }
}

export async function start(options = {}) { return new Mail(options).listen(options.port ?? 0); }
await main(import.meta, start);
