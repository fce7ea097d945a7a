// docs/write-a-channel.md does what it says: its commands, applied to a copy of the sources, add a channel that keeps the nine rules.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const isSource = from => !/^(\.git|build.*|node_modules)$/.test(path.basename(from)) || path.dirname(from) !== ROOT && path.basename(from) !== 'node_modules';

const commands = /```sh\n([\s\S]*?)```/.exec(fs.readFileSync(path.join(ROOT, 'docs/write-a-channel.md'), 'utf8'))[1];

test('each command of the document finds its place', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-channel-'));
  try {
    for (const part of ['channels', 'examples/channels', 'tests/contract', 'tools']) fs.cpSync(path.join(ROOT, part), path.join(dir, part), { recursive: true });
    const done = spawnSync('bash', ['-euc', commands], { cwd: dir, encoding: 'utf8' });
    assert.equal(done.status, 0, done.stderr);
    for (const [file, words] of Object.entries({ 'channels/registry.c': /^#include "channels\/pager\/pager\.h"$[^]*^static const struct chan_ops \*const adapters\[\] = {[^}]*&pager_ops,/m,
      'channels/meson.build': /'pager\/pager\.c',/, 'tools/check-symbols': /'pager_',/, 'tests/contract/channel_case.h': /pager_case/,
      'tests/contract/test_channels.c': /{[^{}]*&pager_case,[^{}]*}/, 'tests/contract/meson.build': /'pager_case\.c',/ }))
      assert.match(fs.readFileSync(path.join(dir, file), 'utf8'), words, file);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
});

test('a channel is added as the document says', { skip: process.env.SLUICE_LONG ? false : 'builds a copy of everything: tests/run e2e --long' }, () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-channel-')), copy = path.join(dir, 'sluice');
  try {
    fs.cpSync(ROOT, copy, { recursive: true, filter: isSource });
    const run = (what, ...args) => {
      const done = spawnSync(what, args, { cwd: copy, encoding: 'utf8', timeout: 300000, env: { ...process.env, SLUICE_BUILD: path.join(dir, 'build'), CMOCKA_MESSAGE_OUTPUT: 'TAP' } });
      assert.equal(done.status, 0, `${what} ${args.join(' ').slice(0, 60)}\n${done.stdout.slice(-3000)}${done.stderr.slice(-3000)}`);
      return done.stdout + done.stderr;
    };
    run('bash', '-euc', commands);
    run('tools/build', 'asan', 'tests/contract/contract_channels');
    const said = run(path.join(dir, 'build/asan/tests/contract/contract_channels'));
    assert.match(said, /^ok 8 - /m);
    assert.doesNotMatch(said, /^not ok/m);
    // ... and the rules are tried on it: without its acknowledgement the same tests fail.
    const file = path.join(copy, 'channels/pager/pager.c');
    fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('    pager_answer(w->request, result);\n', '    (void)result;\n'));
    run('tools/build', 'asan', 'tests/contract/contract_channels');
    const broken = spawnSync(path.join(dir, 'build/asan/tests/contract/contract_channels'), [], { encoding: 'utf8', timeout: 60000 });
    assert.notEqual(broken.status, 0);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
});
