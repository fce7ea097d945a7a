// Attachments in a bucket: a server that keeps objects and takes only requests that are signed as aws4 (npm) signs them.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import aws4 from 'aws4';
import { startSluice, API_TOKEN } from './lib/sluice.mjs';

const BYTES = Buffer.from('89504e470d0a1a0a00', 'hex');
const KEYS = { accessKeyId: 'sluice-test', secretAccessKey: 'a secret/of+the bucket' };
const objects = new Map();
let server, port, refused = 0;

function isSigned(rq, body) {
  const sha256 = crypto.createHash('sha256').update(body).digest('hex');
  if (rq.headers['x-amz-content-sha256'] !== sha256) return false;
  const { headers } = aws4.sign({
    service: 's3', region: 'cn-north-1', method: rq.method, host: rq.headers.host, path: rq.url,
    headers: { Host: rq.headers.host, 'X-Amz-Content-Sha256': sha256, 'X-Amz-Date': rq.headers['x-amz-date'] },
  }, KEYS);
  const parts = text => Object.fromEntries(text.replace(/^AWS4-HMAC-SHA256 /, '').split(/, ?/).map(x => x.split('=')));
  const wanted = parts(headers.Authorization), given = parts(rq.headers.authorization ?? '');
  const age = Math.abs(Date.now() - Date.parse(rq.headers['x-amz-date'].replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5')));
  return age < 60000 && wanted.SignedHeaders === given.SignedHeaders && wanted.Signature === given.Signature && wanted.Credential === given.Credential;
}

function serve(rq, rs) {
  const pieces = [];
  rq.on('data', piece => pieces.push(piece)).on('end', () => {
    const body = Buffer.concat(pieces);
    const answer = (status, bytes = '', headers = {}) => rs.writeHead(status, headers).end(bytes);
    if (!isSigned(rq, body)) {
      refused++;
      answer(403, '<Error><Code>SignatureDoesNotMatch</Code></Error>');
    } else if (rq.method === 'PUT') {
      objects.set(rq.url, { body, type: rq.headers['content-type'] });
      answer(200);
    } else if (objects.has(rq.url)) {
      answer(200, objects.get(rq.url).body, { 'content-type': objects.get(rq.url).type });
    } else {
      answer(404, '<Error><Code>NoSuchKey</Code></Error>');
    }
  });
}

const mediaConfig = secret => ({
  media: {
    s3_endpoint: `http://127.0.0.1:${port}`, s3_bucket: 'chat', s3_region: 'cn-north-1', s3_access_key: KEYS.accessKeyId, s3_secret_key: secret,
    secret: 'a secret of links',
  },
});
const upload = s => fetch(`${s.url()}/media?name=a.png`, { method: 'POST', body: BYTES, headers: { authorization: `Bearer ${API_TOKEN}` } });

before(async () => {
  server = http.createServer(serve);
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  ({ port } = server.address());
});
after(() => { server.closeAllConnections(); server.close(); });

test('what is uploaded lies in the bucket and is shown from there, by another gateway too', async () => {
  const s = await startSluice({ gateways: 2, config: mediaConfig(KEYS.secretAccessKey) });
  const answer = await upload(s);
  assert.equal(answer.status, 201);
  const { id, type, url } = await answer.json();
  assert.equal(type, 'image/png');
  assert.deepEqual(objects.get(`/chat/${id}`), { body: BYTES, type: 'image/png' });
  for (const i of [0, 1]) {
    const shown = await fetch(s.url(i) + url);
    assert.equal(shown.status, 200);
    assert.equal(shown.headers.get('content-type'), 'image/png');
    assert.deepEqual(Buffer.from(await shown.arrayBuffer()), BYTES);
  }
  const where = `${s.url()}/v1/media-link?id=${'0'.repeat(64)}&name=x`;
  const link = await (await fetch(where, { headers: { authorization: `Bearer ${API_TOKEN}` } })).json();
  assert.equal((await fetch(s.url() + link.url)).status, 404);
  assert.equal(refused, 0);
  await s.stop();
});

test('a wrong key is refused by the server, and nothing is said to be stored', async () => {
  const s = await startSluice({ config: mediaConfig('another secret') });
  assert.equal((await upload(s)).status, 503);
  assert.equal(refused, 1);
  await s.stop();
});
