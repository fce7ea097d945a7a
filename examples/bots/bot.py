# A bot for Sluice in Python (redis-py). docs/write-a-bot.md explains every line.
import os, time, redis

store = redis.Redis.from_url(os.environ.get('SLUICE_STORE', 'redis://127.0.0.1:6379'), decode_responses=True)
tasks, me = 'bot:' + os.environ.get('SLUICE_BOT', 'echo'), os.environ.get('SLUICE_WORKER', 'python-1')
try:
    store.xgroup_create(tasks, 'workers', id='0', mkstream=True)
except redis.ResponseError:
    pass                                                      # the group is there already
while True:
    batch = store.xautoclaim(tasks, 'workers', me, 10000, count=16)[1]      # what dead workers left
    for _, new in store.xreadgroup('workers', me, {tasks: '>'}, count=16, block=1000):
        batch += new
    for entry, task in batch:
        if time.time() * 1000 < int(task['due']):             # else the turn has gone on without us
            answer = {'t': 'answer', 'c': task['c'], 'ce': task['ce'], 'tn': task['tn']}
            store.xadd(task['rt'], {**answer, 'x': 'You said: ' + task['x']})
        store.xack(tasks, 'workers', entry)
