// Real mail servers for one test, in a folder of their own on free ports: Dovecot with one mailbox, Postfix that delivers over
// LMTP. Both want root, as Debian's packages do; where they cannot run, `why` says so.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { freePort, until } from './sluice.mjs';

const id = (flag, user) => Number(spawnSync('id', [flag, user], { encoding: 'utf8' }).stdout);
export function missing(...programs) {
  if (process.getuid() !== 0) return 'these mail servers need root';
  const absent = programs.filter(p => spawnSync('sh', ['-c', `command -v ${p}`]).status !== 0);
  return absent.length > 0 ? `not installed: ${absent.join(', ')}` : false;
}

// {port, user, password, put(raw), mails(), stop()}; tls: {key, cert}, paths: then it speaks TLS from the first byte
export async function dovecot({ tls } = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-dovecot-')), port = await freePort();
  const uid = id('-u', 'nobody'), gid = id('-g', 'nobody'), user = 'box', maildir = path.join(dir, 'mail', user);
  for (const name of ['', 'new', 'cur', 'tmp']) {
    fs.mkdirSync(path.join(maildir, name), { recursive: true });
    fs.chownSync(path.join(maildir, name), uid, gid);
  }
  fs.chownSync(path.join(dir, 'mail'), uid, gid);
  fs.chmodSync(dir, 0o755);
  fs.writeFileSync(path.join(dir, 'dovecot.conf'), `
base_dir = ${dir}/run
state_dir = ${dir}/state
log_path = ${dir}/log
protocols = imap
listen = 127.0.0.1
ssl = ${tls ? 'required' : 'no'}
${tls ? `ssl_cert = <${tls.cert}\nssl_key = <${tls.key}` : ''}
disable_plaintext_auth = no
mail_location = maildir:${dir}/mail/%u
first_valid_uid = 1
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=${uid} gid=${gid} home=${dir}/mail/%u
}
service imap-login {
  chroot =
  inet_listener imap {
    port = ${tls ? 0 : port}
  }
  inet_listener imaps {
    port = ${tls ? port : 0}
    ssl = yes
  }
}
service anvil {
  chroot =
}
`);
  let child, over;
  const start = () => {
    child = spawn('dovecot', ['-F', '-c', path.join(dir, 'dovecot.conf')], { stdio: 'ignore' });
    over = new Promise(resolve => child.on('exit', resolve));
  };
  // A session of Dovecot's outlives its master by half a minute, with the mailbox as it was.
  const end = async () => {
    const sessions = fs.readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
    child.kill('SIGTERM');
    await over;
    for (const pid of sessions) try { process.kill(pid, 'SIGKILL'); } catch { /* gone */ }
  };
  start();
  const log = () => fs.existsSync(`${dir}/log`) ? fs.readFileSync(`${dir}/log`, 'utf8').slice(-2000) : '';
  await until(() => `dovecot\n${log()}`, async () => log().includes('starting up'));
  let serial = 0;
  return {
    port, user, password: 'secret', log,
    put(raw) {
      const name = `${Date.now()}.${process.pid}_${++serial}.test`, tmp = path.join(maildir, 'tmp', name);
      fs.writeFileSync(tmp, raw);
      fs.chownSync(tmp, uid, gid);
      fs.renameSync(tmp, path.join(maildir, 'new', name));
    },
    // Names of the mails in the mailbox; a letter behind ":2," is a flag, lower case a keyword.
    mails: () => ['new', 'cur'].flatMap(d => fs.readdirSync(path.join(maildir, d))),
    // Makes the mailbox anew: another UIDVALIDITY, other UIDs.
    async renumber() {
      await end();
      for (const f of fs.readdirSync(maildir)) if (f.startsWith('dovecot')) fs.rmSync(path.join(maildir, f), { recursive: true });
      start();
    },
    async stop() {
      await end();
      fs.rmSync(dir, { recursive: true, force: true });
    },
  };
}

// A Postfix that takes mail by SMTP and gives what is for sluice.example to lmtp. {port, queue(), flush(), log(), stop()}
export async function postfix(lmtpPort) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-postfix-')), port = await freePort();
  const etc = path.join(dir, 'etc'), spool = path.join(dir, 'spool'), data = path.join(dir, 'data');
  for (const d of [etc, spool, data]) fs.mkdirSync(d);
  fs.chmodSync(dir, 0o755);
  fs.chownSync(data, id('-u', 'postfix'), id('-g', 'postfix'));
  fs.writeFileSync(path.join(etc, 'main.cf'), `
compatibility_level = 3.6
queue_directory = ${spool}
data_directory = ${data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = ${dir}/log
maillog_file_prefixes = ${os.tmpdir()}
myhostname = mx.sluice.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = sluice.example
virtual_transport = lmtp:inet:127.0.0.1:${lmtpPort}
recipient_delimiter = +
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 3s
alias_maps =
alias_database =
`);
  fs.writeFileSync(path.join(etc, 'master.cf'), [
    `127.0.0.1:${port} inet n - n - - smtpd`, 'pickup unix n - n 60 1 pickup', 'cleanup unix n - n - 0 cleanup', 'qmgr unix n - n 5 1 qmgr',
    'rewrite unix - - n - - trivial-rewrite', 'bounce unix - - n - 0 bounce', 'defer unix - - n - 0 bounce', 'trace unix - - n - 0 bounce',
    'verify unix - - n - 1 verify', 'flush unix n - n 1000? 0 flush', 'proxymap unix - - n - - proxymap', 'smtp unix - - n - - smtp',
    'lmtp unix - - n - - lmtp', 'anvil unix - - n - 1 anvil', 'scache unix - - n - 1 scache', 'postlog unix-dgram n - n - 1 postlogd',
    'error unix - - n - - error', 'retry unix - - n - - error', 'local unix - n n - - local', 'virtual unix - n n - - virtual', '',
  ].join('\n'));
  const run = (...args) => spawnSync(args[0], args.slice(1), { encoding: 'utf8' });
  const log = () => fs.existsSync(`${dir}/log`) ? fs.readFileSync(`${dir}/log`, 'utf8').slice(-4000) : '';
  const started = run('postfix', '-c', etc, 'start');
  if (started.status !== 0) throw new Error(`postfix: ${started.stdout}${started.stderr}${log()}`);
  return {
    port, log,
    queue: () => run('postqueue', '-c', etc, '-p').stdout,
    flush: () => run('postqueue', '-c', etc, '-f'),
    async stop() {
      run('postfix', '-c', etc, 'stop');
      await until(() => `postfix ended\n${log()}`, async () => run('postfix', '-c', etc, 'status').status !== 0);
      fs.rmSync(dir, { recursive: true, force: true });
    },
  };
}
