// The simulators against themselves and against the published vectors: `node --test tests/fakes/fakes.test.mjs`.
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import test from 'node:test';
import { call, sleep } from './fake.mjs';
import * as mail from './mail.mjs';
import * as smsHttp from './sms_http.mjs';
import * as smsc from './smsc.mjs';
import * as wechat from './wechat.mjs';

const post = async (fake, path, body) => JSON.parse((await call('POST', fake.url + path, { body: JSON.stringify(body) })).body);

// A webhook that answers as it is told and keeps what it got.
async function hook(answers) {
    const got = [], server = http.createServer((rq, rs) => {
        let body = '';
        rq.on('data', c => { body += c; });
        rq.on('end', () => { const n = got.push({ url: rq.url, body, headers: rq.headers }); rs.writeHead(answers(n).status ?? 200).end(answers(n).body ?? ''); });
    });
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    return { got, url: `http://127.0.0.1:${server.address().port}/in`, stop: () => { server.closeAllConnections(); server.close(); } };
}

test('WeChat: a callback is sealed, repeated until it is answered, and read with the key', async () => {
    const inbox = await hook(n => (n < 3 ? { status: 500 } : { body: 'success' }));
    const fake = await wechat.start({ retry_ms: 20, products: { oa: { url: inbox.url } } });
    try {
        const { answer } = await post(fake, '/customer', { from: 'oA', text: '你好 ]]> <b>' });
        assert.equal(answer, 'accepted');
        assert.equal(inbox.got.length, 3);
        const { body, url } = inbox.got[2], query = new URL(url, 'http://x').searchParams, sealed = wechat.field(body, 'Encrypt'), p = fake.products.oa;
        assert.equal(query.get('msg_signature'), wechat.sign(p.token, query.get('timestamp'), query.get('nonce'), sealed));
        const plain = wechat.decrypt(p.aes_key, p.id, sealed);
        assert.match(plain, /<MsgId>\d+<\/MsgId>/);
        assert.match(plain, /你好 \]\]\]\]><!\[CDATA\[> <b>/);
        assert.throws(() => wechat.decrypt(p.aes_key, 'another', sealed), /not addressed/);
    } finally {
        await fake.stop();
        inbox.stop();
    }
});

test('WeChat: tokens, window, quota and idempotent kf sends are enforced', async () => {
    const inbox = await hook(() => ({ body: '' }));
    const fake = await wechat.start({ products: { oa: { url: inbox.url }, kf: { url: inbox.url } } });
    try {
        const p = fake.products.oa, ask = { grant_type: 'client_credential', appid: p.id, secret: p.secret };
        const { access_token } = await post(fake, '/cgi-bin/stable_token', ask), again = await post(fake, '/cgi-bin/stable_token', ask);
        assert.equal(access_token, again.access_token);
        const send = (touser, content, token = access_token) => post(fake, `/cgi-bin/message/custom/send?access_token=${token}`, { touser, msgtype: 'text', text: { content } });
        assert.equal((await send('oA', 'x', 'wrong')).errcode, 40001);
        assert.equal((await send('oA', 'x')).errcode, 40003);
        await post(fake, '/customer', { from: 'oA', text: 'hello' });
        for (let i = 0; i < 5; i++) assert.equal((await send('oA', `n${i}`)).errcode, 0);
        assert.equal((await send('oA', 'six')).errcode, 45047);
        await post(fake, '/do/expire_windows', {});
        assert.equal((await send('oA', 'late')).errcode, 45015);
        assert.equal((await send('oA', 'x'.repeat(2049))).errcode, 45002);
        await post(fake, '/do/revoke_token', {});
        assert.equal((await send('oA', 'x')).errcode, 40001);
        const kf = fake.products.kf, token = (await call('GET', `${fake.url}/cgi-bin/gettoken?corpid=${kf.id}&corpsecret=${kf.secret}`)).body;
        await post(fake, '/customer', { product: 'kf', from: 'wmA', text: 'hi' });
        const items = await post(fake, `/cgi-bin/kf/sync_msg?access_token=${JSON.parse(token).access_token}`, { open_kfid: kf.open_kfid });
        assert.equal(items.msg_list[0].text.content, 'hi');
        assert.equal(items.has_more, 0);
        for (let i = 0; i < 2; i++)
            await post(fake, `/cgi-bin/kf/send_msg?access_token=${JSON.parse(token).access_token}`, { touser: 'wmA', open_kfid: kf.open_kfid, msgid: 'k1', msgtype: 'text', text: { content: 'once' } });
        assert.equal(fake.phone('wmA').filter(e => e.text === 'once').length, 1);
        assert.equal(fake.seen.get('k1'), 2);
    } finally {
        await fake.stop();
        inbox.stop();
    }
});

test('Twilio: the documented example signs as published', () => {
    const params = Object.entries({ CallSid: 'CA1234567890ABCDE', Caller: '+12349013030', Digits: '1234', From: '+12349013030', To: '+18005551212' });
    assert.equal(smsHttp.twilioSignature('12345', 'https://mycompany.com/myapp.php?foo=1&bar=2', params), '0/KCTR6DLpKmkAf8muzZqo1nDgQ=');
});

test('Aliyun and Tencent: signatures that others made are accepted, and refused after one change', () => {
    // outputs of @alicloud/openapi-util 0.3.3 and tencentcloud-sdk-nodejs-common 4.1.220 on inputs of our own
    const acs = { method: 'POST', path: '/', query: new URLSearchParams(), body: Buffer.from('PhoneNumbers=13800138000&SignName=%E9%98%BF%E9%87%8C%E4%BA%91&TemplateCode=SMS_1&TemplateParam=%7B%22code%22%3A%221%202%22%7D'),
                  headers: {'host': 'dysmsapi.aliyuncs.com',
                             'x-acs-action': 'SendSms',
                             'x-acs-version': '2017-05-25',
                             'x-acs-date': '2024-01-01T00:00:00Z',
                             'x-acs-signature-nonce': '3156853299f313e23d1673dc12e1703d',
                             'x-acs-content-sha256': '86a154774fe08c6044bd09539ee6e4987b89c0adb59432ee126c478b0fd89e42',
                             'content-type': 'application/x-www-form-urlencoded',
                             'authorization': 'ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=59fdb8237cc01dfe7496410f98ff66cdb26db9f6c3efe3516e64e182088b4e9a'} };
    const owner = { key: 'YourAccessKeyId', secret: 'YourAccessKeySecret' };
    assert.equal(smsHttp.acs3Wrong(acs, owner), '');
    assert.equal(smsHttp.acs3Wrong({ ...acs, body: Buffer.from('PhoneNumbers=1') }, owner), 'InvalidContentHash');
    assert.equal(smsHttp.acs3Wrong({ ...acs, method: 'GET' }, owner), 'SignatureDoesNotMatch');
    const tc = { method: 'POST', body: Buffer.from('{"Limit":1,"Filters":[{"Values":["未命名"],"Name":"instance-name"}]}'),
                 headers: { host: 'sms.tencentcloudapi.com', 'content-type': 'application/json', 'x-tc-timestamp': '1551113065',
                            authorization: 'TC3-HMAC-SHA256 Credential=AKIDEXAMPLE/2019-02-25/sms/tc3_request, SignedHeaders=content-type;host, Signature=3a008764845cce1c1cf4ca7cfe1f45721c88530cfdf0fd4825249a5a1d6cd44c' } };
    const account = { id: 'AKIDEXAMPLE', key: 'SKEXAMPLE' };
    assert.equal(smsHttp.tc3Wrong(tc, account, 1551113065000), '');
    assert.equal(smsHttp.tc3Wrong({ ...tc, body: Buffer.from('{}') }, account, 1551113065000), 'AuthFailure.SignatureFailure');
    assert.equal(smsHttp.tc3Wrong(tc, account), 'AuthFailure.SignatureExpire');
});

test('Twilio: sends, receipts before the answer, opt-out, knobs by HTTP', async () => {
    const inbox = await hook(() => ({}));
    const fake = await smsHttp.start({ twilio: { url: inbox.url } });
    try {
        const { account, token } = fake.twilio, authorization = `Basic ${Buffer.from(`${account}:${token}`).toString('base64')}`;
        const send = Body => call('POST', `${fake.url}/2010-04-01/Accounts/${account}/Messages.json`, { headers: { authorization },
            body: new URLSearchParams({ To: '+8613800000001', From: '+15005550006', Body, StatusCallback: `${inbox.url}/status` }).toString() });
        await post(fake, '/knobs', { receipt: 'early', fail_429: { next: 1 } });
        assert.equal((await send('a')).status, 429);
        assert.equal((await send('b')).status, 201);
        assert.equal(inbox.got.length, 1);      // before the answer
        await post(fake, '/knobs', { drop_after: { next: 1 }, receipt: 'none' });
        assert.equal((await send('c')).status, 0);
        assert.deepEqual(fake.phone('+8613800000001').map(e => e.text), ['b', 'c']);
        await post(fake, '/customer', { from: '+8613800000001', text: 'STOP' });
        assert.equal(JSON.parse((await send('d')).body).code, 21610);
        assert.equal((await call('POST', `${fake.url}/knobs`, { body: '{"nonsense":1}' })).status, 400);
    } finally {
        await fake.stop();
        inbox.stop();
    }
});

test('SMSC: bind, submit, receipt, a customer\'s long text in parts', async () => {
    const fake = await smsc.start({ message_ids: 'dec' });
    const socket = net.connect(fake.ports.smpp, '127.0.0.1'), got = [];
    let rest = Buffer.alloc(0);
    socket.on('data', chunk => {
        rest = Buffer.concat([rest, chunk]);
        for (; rest.length >= 16 && rest.length >= rest.readUInt32BE(0); rest = rest.subarray(rest.readUInt32BE(0))) {
            const one = { id: rest.readUInt32BE(4), status: rest.readUInt32BE(8), sequence: rest.readUInt32BE(12), body: Buffer.from(rest.subarray(16, rest.readUInt32BE(0))) };
            got.push(one);
            if (one.id === 5) socket.write(smsc.pdu(0x80000005, 0, one.sequence, Buffer.alloc(1)));
        }
    });
    try {
        const z = t => Buffer.from(`${t}\0`), body = Buffer.concat([z(''), Buffer.from([1, 1]), z('106'), Buffer.from([1, 1]), z('138001'), Buffer.from([0, 0, 0]), z(''), z(''), Buffer.from([1, 0, 8, 0, 4]), Buffer.from('4f60597d', 'hex')]);
        socket.write(smsc.pdu(9, 0, 1, Buffer.concat([z('sluice'), z('secret'), z(''), Buffer.from([0x34, 0, 0]), z('')])));
        socket.write(smsc.pdu(4, 0, 2, body));
        socket.write(smsc.pdu(4, 0, 3, body.subarray(0, 20)));
        await sleep(250);
        assert.deepEqual(got.filter(p => p.id > 0x80000000).map(p => [p.id - 0x80000000, p.status]), [[9, 0], [4, 0], [4, 2]]);
        assert.equal(fake.phone('138001')[0].text, '你好');
        const reports = got.filter(p => p.id === 5).map(p => p.body.toString('latin1'));
        assert.match(reports[0], /stat:ACCEPTD/);
        assert.match(reports[1], /stat:DELIVRD/);
        await post(fake, '/customer', { from: '138001', text: '长'.repeat(100) });
        assert.equal(got.filter(p => p.id === 5).length, 4);
        assert.equal(fake.complaints.length, 1);
    } finally {
        socket.destroy();
        await fake.stop();
    }
});

test('mail: submission, a mailbox, LMTP with a refusal that is tried again, a bounce', async () => {
    const taken = [];
    let refusals = 1;
    const lmtp = net.createServer(socket => {
        let text = '', isData = false, rcpt = '';
        socket.write('220 x\r\n');
        socket.on('data', chunk => {
            text += chunk;
            for (let end; (end = text.indexOf(isData ? '\r\n.\r\n' : '\r\n')) >= 0;) {
                const line = text.slice(0, end);
                text = text.slice(end + (isData ? 5 : 2));
                if (isData) { isData = false; if (refusals-- > 0) socket.write('451 later\r\n'); else { taken.push({ rcpt, line }); socket.write('250 ok\r\n'); } }
                else if (line === 'DATA') { isData = true; socket.write('354 go\r\n'); }
                else { if (line.startsWith('RCPT')) rcpt = line; socket.write('250 ok\r\n'); }
            }
        });
    });
    await new Promise(resolve => lmtp.listen(0, '127.0.0.1', resolve));
    const fake = await mail.start({ lmtp: `127.0.0.1:${lmtp.address().port}`, retry_ms: 10 });
    const socket = net.connect(fake.ports.smtp, '127.0.0.1');
    let answers = '';
    socket.on('data', c => { answers += c; });
    try {
        socket.write('EHLO me\r\nMAIL FROM:<b+1@x>\r\nRCPT TO:<Anna@Customer.test>\r\nDATA\r\nMessage-ID: <m1@x>\r\nSubject: =?utf-8?B?5L2g5aW9?=\r\nFrom: <s@x>\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n5L2g5aW9\r\n.\r\n');
        await sleep(100);
        assert.match(answers, /250 2.0.0 queued/);
        assert.deepEqual(fake.phone('anna@customer.test').map(e => [e.text, e.more.subject]), [['你好', '你好']]);
        assert.equal((await post(fake, '/customer', { from: 'anna@customer.test', text: 'Thank you' })).answer, 'accepted');
        assert.match(taken[0].line, /In-Reply-To: <m1@x>/);
        await post(fake, '/do/bounce', { id: '<m1@x>' });
        assert.match(taken[1].rcpt, /b\+1@x/);
    } finally {
        socket.destroy();
        lmtp.close();
        await fake.stop();
    }
});
