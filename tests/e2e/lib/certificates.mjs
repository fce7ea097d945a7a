// A certificate authority of the test's own, and what it signs. Made anew in each run: nothing here ever expires by itself.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });

// {ca: path, cert(name, {names, isExpired}) -> {key, cert: paths}, remove()}
export function authority() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-ca-')), at = name => path.join(dir, name);
  fs.writeFileSync(at('ca.cnf'), `[ca]
default_ca = own
[own]
new_certs_dir = ${dir}
database = ${at('index')}
serial = ${at('serial')}
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[v3_ca]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
`);
  fs.writeFileSync(at('index'), '');
  fs.writeFileSync(at('serial'), '01\n');
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '30',
    '-subj', '/CN=sluice test authority', '-config', at('ca.cnf'), '-extensions', 'v3_ca');
  return {
    ca: at('ca.pem'),
    cert(name, { names = ['DNS:localhost', 'IP:127.0.0.1'], isExpired = false } = {}) {
      openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', at(`${name}.key`), '-out', at(`${name}.csr`),
        '-subj', `/CN=${name}`, '-addext', `subjectAltName=${names.join(',')}`, '-config', at('ca.cnf'));
      const span = isExpired ? ['-startdate', '20200101000000Z', '-enddate', '20200201000000Z'] : ['-days', '20'];
      openssl('ca', '-batch', '-config', at('ca.cnf'), '-cert', at('ca.pem'), '-keyfile', at('ca.key'), '-in', at(`${name}.csr`), '-out', at(`${name}.pem`), '-notext', ...span);
      return { key: at(`${name}.key`), cert: at(`${name}.pem`) };
    },
    remove: () => fs.rmSync(dir, { recursive: true, force: true }),
  };
}
