// The router of the Node peer: XREADGROUP in -> XADD bot or out:<gw>, XACK. node router.cjs REDISPORT
const Redis = require('ioredis'); const rport = +process.argv[2];
const rd = new Redis({ port: rport }), wr = new Redis({ port: rport });
(async () => {
  try { await wr.xgroup('CREATE', 'in', 'router', '$', 'MKSTREAM'); } catch (e) { if (!/BUSYGROUP/.test(e.message)) throw e; }
  console.log('up');
  for (;;) {
    const r = await rd.xreadgroup('GROUP', 'router', 'r' + process.pid, 'COUNT', 200, 'BLOCK', 5000, 'STREAMS', 'in', '>');
    if (!r) continue;
    const p = wr.pipeline();
    for (const [id, f] of r[0][1]) {
      const m = JSON.parse(f[5]);
      if (m.from === 'bot') p.xadd('out:' + f[1], 'MAXLEN', '~', 100000, '*', 'conn', f[3], 'json', JSON.stringify(m));
      else { m.route = 'bot'; p.xadd('bot', 'MAXLEN', '~', 100000, '*', 'gw', f[1], 'conn', f[3], 'json', JSON.stringify(m)); }
      p.xack('in', 'router', id);
    }
    await p.exec();
  }
})();
