// The bot of the Node peer: XREADGROUP bot -> XADD the answer to in, XACK. node bot.cjs REDISPORT
const Redis = require('ioredis'); const rport = +process.argv[2];
const rd = new Redis({ port: rport }), wr = new Redis({ port: rport });
const answers = new Map([['营业时间是几点？', '我们每天九点到十八点营业。']]);
(async () => {
  try { await wr.xgroup('CREATE', 'bot', 'workers', '$', 'MKSTREAM'); } catch (e) { if (!/BUSYGROUP/.test(e.message)) throw e; }
  console.log('up');
  for (;;) {
    const r = await rd.xreadgroup('GROUP', 'workers', 'b' + process.pid, 'COUNT', 200, 'BLOCK', 5000, 'STREAMS', 'bot', '>');
    if (!r) continue;
    const p = wr.pipeline();
    for (const [id, f] of r[0][1]) {
      const m = JSON.parse(f[5]);
      m.from = 'bot'; m.text = answers.get(m.text) || '抱歉，没有找到答案。';
      p.xadd('in', 'MAXLEN', '~', 100000, '*', 'gw', f[1], 'conn', f[3], 'json', JSON.stringify(m));
      p.xack('bot', 'workers', id);
    }
    await p.exec();
  }
})();
