"""Proves that each check can fail: a small good tree passes them all, and each of these changes fails its check."""
import os
import shutil
import subprocess
import sys
import tempfile

import checks

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.path.join(os.path.dirname(os.path.dirname(HERE)), 'tools')
READMES = {'%s/README.md' % folder: '# %s\n' % folder for folder in ('base', 'bus', 'router', 'tests', 'tools')}
HEADER = '/* base/a.h - an example. */\n#ifndef BASE_A_H\n#define BASE_A_H\n\nint sl_a(void);\n\n#endif\n'
GOOD = {
    **READMES,
    'base/a.h': HEADER,
    'base/a.c': '#include "base/a.h"\n\n/* not strcpy( */\nint sl_a(void)\n{\n    return 1;\n}\n',
    'bus/f.lua': '-- never MAXLEN\nreturn 1\n',
    'router/r.c': '#include "bus/b.h"\n\n#include "base/a.h"\n',
    'tools/t.sh': '#!/bin/bash\nset -eu\necho fine\n',
    'tools/t.py': '#!/usr/bin/env python3\nprint(1)\n',
    'tests/t.mjs': 'export const one = 1;\n',
    'tests/package.json': '{"devDependencies": {"ws": "8.23.0"}}\n',
    'tests/package-lock.json': '{"packages": {}}\n',
    'docs/page.md': '# A page\n\nSee [base](../base/README.md) and [here](#a-page).\n',
}
BAD = (
    ('c_format', 'base/a.c', 'int sl_a( void ) { return 1; }\n'),
    ('forbidden_calls', 'base/a.c', 'int sl_a(void)\n{\n    return atoi("1");\n}\n'),
    ('no_maxlen', 'bus/f.lua', "redis.call('XTRIM', k, 'MAXLEN', 5)\n"),
    ('no_maxlen', 'bus/trim.c', 'static const char *how = "maxlen";\n'),
    ('headers', 'base/a.h', HEADER.replace('BASE_A_H', 'A_H')),
    ('headers', 'base/a.h', HEADER.replace('/* base/a.h - an example. */\n', '')),
    ('layers', 'base/a.c', '#include "bus/b.h"\n'),
    ('layers', 'channels/c.c', '#include "bus/b.h"\n'),
    ('layers', 'router/r.c', '#include "channels/channel.h"\n'),
    ('layers', 'router/r.c', '#include "gateway/g.h"\n'),
    ('layers', 'router/r.c', '#include "bus/bus_priv.h"\n'),
    ('layers', 'router/r.c', '#include <hiredis/hiredis.h>\n'),
    ('layers', 'safety/s.c', '#include "proto/p.h"\n'),
    ('layers', 'base/a.c', '#include "a.h"\n'),
    ('shell_parses', 'tools/t.sh', '#!/bin/bash\nset -eu\nif true; then\n'),
    ('shell_parses', 'tools/t.sh', '#!/bin/bash\necho on\n'),
    ('python_parses', 'tools/t.py', '#!/usr/bin/env python3\nprint(\n'),
    ('javascript_parses', 'tests/t.mjs', 'export const = 1;\n'),
    ('json_parses', 'tests/x.json', '{"a": 1,}\n'),
    ('executable_bits', 'docs/run.txt', '#!/bin/bash\n'),
    ('npm_pins', 'tests/package.json', '{"devDependencies": {"ws": "^8.23.0"}}\n'),
    ('npm_pins', 'tests/package-lock.json', '{"resolved": "https://registry.example/ws.tgz"}\n'),
    ('whitespace', 'base/a.c', 'int sl_a(void); \n'),
    ('whitespace', 'base/a.c', '\tint sl_a(void);\n'),
    ('whitespace', 'docs/page.md', '# A page\r\n'),
    ('whitespace', 'docs/page.md', '# A page'),
    ('spelling', 'docs/page.md', '# A page\n\n%s the messages.\n' % ('Recei' + 'eve')),
    ('links', 'docs/page.md', '# A page\n\n[gone](gone.md)\n'),
    ('links', 'docs/page.md', '# A page\n\n[gone](#no-such-heading)\n'),
    ('machine_paths', 'docs/page.md', 'It lies in %sx.\n' % ('/tm' + 'p/')),
    ('machine_paths', 'base/a.c', '/* %smain */\n' % ('/wor' + 'k/')),
    ('folder_readmes', 'gateway/g.c', '\n'),
)


def write(root, path, text):
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, 'w', encoding='utf-8', newline='') as f:
        f.write(text)
    if text.startswith('#!') and path.startswith('tools/'):
        os.chmod(full, 0o755)


def good_tree():
    root = tempfile.mkdtemp()
    shutil.copy(os.path.join(os.path.dirname(TOOLS), '.clang-format'), root)
    for path, text in GOOD.items():
        write(root, path, text)
    return root


def source_checks():
    root = good_tree()
    for check in checks.CHECKS:
        for complaint in check(root):
            yield '%s complains about the good tree: %s' % (check.__name__, complaint)
    shutil.rmtree(root)
    untried = {check.__name__ for check in checks.CHECKS} - {name for name, _, _ in BAD}
    for name in sorted(untried):
        yield 'no bad file tries %s: add one to tests/lint/selftest.py' % name
    for name, path, text in BAD:
        root = good_tree()
        write(root, path, text)
        if not list(getattr(checks, name)(root)):
            yield '%s did not find what is wrong with %s: %r' % (name, path, text)
        shutil.rmtree(root)


def symbols_of(code):
    with tempfile.TemporaryDirectory() as build:
        os.mkdir(os.path.join(build, 'bus'))
        subprocess.run(['gcc', '-x', 'c', '-c', '-', '-o', os.path.join(build, 'bus/x.o')], input=code, text=True, check=True)
        return subprocess.run([sys.executable, os.path.join(TOOLS, 'check-symbols'), build], capture_output=True, check=False).returncode


def symbol_check():
    if symbols_of('static int helper; int bus_x(void) { return helper; }') != 0:
        yield 'check-symbols complains about a good object'
    if symbols_of('int helper(void) { return 1; }') != 1:
        yield 'check-symbols did not find a symbol without prefix'


def selftest(_root):
    """each check finds what it is made to find"""
    return list(source_checks()) + list(symbol_check())
