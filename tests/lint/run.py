#!/usr/bin/env python3
"""tests/lint/run.py [--long] [check...] - the lint suite; `tests/run lint` calls it.

Without names it does everything; with names only these checks of checks.py (no building).
--long adds clang-tidy, which warns and never fails. The last line is "N passed, N failed".
"""
import os
import subprocess
import sys

import checks
import selftest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get('SLUICE_BUILD', os.path.join(ROOT, 'build'))
COMPLAINTS_SHOWN = 40


def builds(name):
    """The complaints of a compiler; none when everything compiles without a warning."""
    done = checks.run([os.path.join(ROOT, 'tools/build'), name], ROOT)
    if done.returncode == 0:
        return []
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if not line.startswith(('[', 'ninja: Entering'))]


def build_clang(_root):
    """everything compiles with clang 14, without a warning"""
    return builds('clang')


def build_test(_root):
    """everything compiles with gcc as a test build, without a warning"""
    return builds('test')


def build_release(_root):
    """everything compiles with gcc as a release, without a warning"""
    return builds('release')


def symbols(root):
    """symbols that are not static carry their folder's prefix (tools/check-symbols)"""
    done = checks.run([os.path.join(ROOT, 'tools/check-symbols'), os.path.join(BUILD, 'test')], root)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


BUILT = (build_clang, build_test, build_release, symbols)


def report(check):
    complaints = list(check(ROOT))
    print('%sok - %s' % ('not ' if complaints else '', check.__doc__), flush=True)
    for complaint in complaints[:COMPLAINTS_SHOWN]:
        print('    ' + complaint, flush=True)
    if len(complaints) > COMPLAINTS_SHOWN:
        print('    and %d more' % (len(complaints) - COMPLAINTS_SHOWN), flush=True)
    return not complaints


def tidy():
    sources = [p for p in checks.files(ROOT, '.c', among=checks.SOURCE_FOLDERS)]
    print('clang-tidy (advice, not counted):', flush=True)
    subprocess.run(['clang-tidy-14', '--quiet', '-p', os.path.join(BUILD, 'clang'), *sources], cwd=ROOT,
                   stderr=subprocess.DEVNULL, check=False)


def chosen(names):
    everything = checks.CHECKS + (selftest.selftest,)
    if not names:
        return everything + BUILT
    known = {check.__name__: check for check in everything + BUILT}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit('there is no check %s; there are: %s' % (unknown[0], ' '.join(known)))
    return [known[name] for name in names]


def main():
    names = [a for a in sys.argv[1:] if a != '--long']
    results = [report(check) for check in chosen(names)]
    if '--long' in sys.argv:
        tidy()
    print('%d passed, %d failed' % (results.count(True), results.count(False)))
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
