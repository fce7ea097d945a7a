// A gateway that cannot start says why and ends, whatever its adapters have begun by then.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { startSluice, freePort, SECRET } from './lib/sluice.mjs';

const TELEGRAM = { channel: 'webhook', tenant: 'demo', scheme: 'telegram', secret: SECRET, access_token: '1:abcdefgh' };
const mail = listen => ({ channel: 'email', tenant: 'demo', secret: SECRET, address: 'support@shop.example', lmtp_listen: listen });

async function ends(s, name, extra, code, words) {
  const gateway = s.role(name, 'gateway', extra).start();
  const exit = await gateway.done;
  assert.deepEqual(exit, { code, signal: null }, gateway.output.slice(-3000));
  assert.match(gateway.output, words);
  assert.doesNotMatch(gateway.output, /Sanitizer|left open/);
  s.procs = s.procs.filter(p => p !== gateway); // it has ended already, and not with 0
}

test('a port that is taken: the words name it, nothing crashes', async () => {
  const s = await startSluice();
  try {
    const taken = `127.0.0.1:${s.gateways[0].port}`, other = `127.0.0.1:${await freePort()}`;
    await ends(s, 'front', { gateway: { listen: taken }, inboxes: { tg: TELEGRAM } }, 69, new RegExp(`gateway.listen ${taken}: cannot listen`));
    const media = { dir: `${s.dir}/media` };
    await ends(s, 'lmtp', { gateway: { listen: other }, media, inboxes: { a: mail(taken), tg: TELEGRAM } }, 78, new RegExp(`cannot listen on ${taken}`));
    await ends(s, 'last', { gateway: { listen: other }, media, inboxes: { tg: TELEGRAM, z: mail(taken) } }, 78, new RegExp(`cannot listen on ${taken}`));
  } finally {
    await s.stop();
  }
});
