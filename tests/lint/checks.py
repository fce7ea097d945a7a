"""What can be said about the repository by reading it. Each check takes the root and returns its complaints."""
import ast
import json
import os
import re
import subprocess

SKIPPED_FOLDERS = {'.git', 'node_modules', '.cache', '__pycache__', 'third_party'}
SOURCE_FOLDERS = ('base', 'proto', 'safety', 'bus', 'channels', 'router', 'gateway', 'bot', 'cli')
BINARY_FOLDERS = ('tests/fuzz/corpus/', 'tests/vectors/')     # bytes on purpose
FORBIDDEN_CALLS = {
    'strcpy': 'sl_buf or snprintf', 'strcat': 'sl_buf or snprintf', 'sprintf': 'snprintf, and check the result',
    'vsprintf': 'vsnprintf', 'strtok': 'a loop over sl_str', 'atoi': 'strtoll with all its checks', 'gets': 'fgets',
}
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
LUA_COMMENT = re.compile(r'--\[\[.*?\]\]|--[^\n]*', re.S)


def is_skipped(root, directory, name):
    return name in SKIPPED_FOLDERS or (name.startswith('build') and os.path.samefile(directory, root))


def files(root, *suffixes, among=None):
    """Paths below root, from the root; build folders and packages left out."""
    for directory, names, found in os.walk(root):
        names[:] = sorted(n for n in names if not is_skipped(root, directory, n))
        for name in sorted(set(found) - {'.git'}):  # a file in a linked work tree
            path = os.path.relpath(os.path.join(directory, name), root)
            if name == '.git':       # of a worktree, a file
                continue
            if suffixes and not name.endswith(suffixes):
                continue
            if among is None or path.split(os.sep)[0] in among:
                yield path


def read(root, path):
    with open(os.path.join(root, path), encoding='utf-8', errors='replace') as f:
        return f.read()


def text_files(root):
    for path in files(root):
        if path.startswith(BINARY_FOLDERS) or os.path.islink(os.path.join(root, path)):
            continue
        with open(os.path.join(root, path), 'rb') as f:
            if b'\0' not in f.read(8192):
                yield path


def without_comments(text, keep_strings):
    """The same number of lines, so that line numbers stay right."""
    def blank(match):
        if keep_strings and match[0][0] in '"\'':
            return match[0]
        return ' ' + '\n' * match[0].count('\n')
    return COMMENT_OR_STRING.sub(blank, text)


def each_match(text, pattern):
    for match in re.finditer(pattern, text):
        yield text.count('\n', 0, match.start()) + 1, match


def first_line(root, path):
    with open(os.path.join(root, path), 'rb') as f:
        return f.readline(200).decode('utf-8', 'replace')


def scripts(root, interpreter, suffix):
    for path in files(root):
        if path.endswith(suffix) or re.match(r'#!.*\b(%s)\b' % interpreter, first_line(root, path)):
            yield path


def run(command, root):
    return subprocess.run(command, cwd=root, capture_output=True, text=True, errors='replace', check=False)


# ---- C -----------------------------------------------------------------------------------------------------

def c_format(root):
    """C files are formatted (clang-format-14 -i FILE)"""
    paths = list(files(root, '.c', '.h', among=SOURCE_FOLDERS + ('tests',)))
    if not paths:
        return ['no C file found']
    done = run(['clang-format-14', '--dry-run', '-Werror', *paths], root)
    places = re.findall(r'^(.+?):(\d+):\d+: error:', done.stderr, re.M)
    if done.returncode and not places:
        return [done.stderr]
    return ['%s:%s: not formatted, nor %d more places' % (path, next(line for p, line in places if p == path),
                                           sum(p == path for p, _ in places) - 1)
            for path in dict.fromkeys(p for p, _ in places)]


def forbidden_calls(root):
    """C code leaves unsafe calls alone"""
    names = '|'.join(FORBIDDEN_CALLS)
    for path in files(root, '.c', '.h', among=SOURCE_FOLDERS + ('tests',)):
        code = without_comments(read(root, path), keep_strings=False)
        for line, match in each_match(code, r'\b(%s)\s*\(' % names):
            yield '%s:%d: %s: use %s' % (path, line, match[1], FORBIDDEN_CALLS[match[1]])


def no_maxlen(root):
    """no log is trimmed by length (MINID past the slowest reader; a MAXLEN forgets what somebody still needs)"""
    for path in files(root, '.c', '.h', '.lua', among=SOURCE_FOLDERS):
        text = read(root, path)
        code = LUA_COMMENT.sub('', text) if path.endswith('.lua') else without_comments(text, keep_strings=True)
        if re.search(r'\bMAXLEN\b', code, re.I):
            yield '%s: MAXLEN: trim with MINID' % path


def headers(root):
    """a header says what it is, and has the guard FOLDER_FILE_H"""
    for path in files(root, '.h', among=SOURCE_FOLDERS):
        text = read(root, path)
        guard = re.sub(r'[/.\-]', '_', '/'.join(path.split('/')[-2:])).upper()
        if not text.startswith('/* %s - ' % path):
            yield '%s: begins with "/* %s - what it is"' % (path, path)
        if not re.search(r'^#ifndef (\w*%s)\n#define \1$' % guard, text, re.M):
            yield '%s: the guard is %s' % (path, guard)


def layers(root):
    """every include goes down the five floors (tools/check-layers)"""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return run([os.path.join(here, 'tools/check-layers'), root], root).stdout.splitlines()


# ---- scripts and data --------------------------------------------------------------------------------------

def shell_parses(root):
    """shell scripts parse, and stop at the first error (set -eu)"""
    for path in scripts(root, 'bash|sh|dash', '.sh'):
        done = run(['bash', '-n', path], root)
        if done.returncode:
            yield done.stderr.strip()
        if not re.search(r'^set -\w*e', read(root, path), re.M):
            yield '%s: has no "set -eu"' % path


def python_parses(root):
    """Python files parse"""
    for path in scripts(root, 'python3', '.py'):
        try:
            ast.parse(read(root, path))
        except SyntaxError as why:
            yield '%s:%s: %s' % (path, why.lineno, why.msg)


def javascript_parses(root):
    """JavaScript files parse"""
    for path in files(root, '.mjs', '.cjs'):
        done = run(['node', '--check', path], root)
        if done.returncode:
            yield '%s: %s' % (path, done.stderr.strip())


def json_parses(root):
    """JSON files parse"""
    for path in files(root, '.json'):
        if path.startswith(BINARY_FOLDERS):
            continue
        try:
            json.loads(read(root, path))
        except ValueError as why:
            yield '%s: %s' % (path, why)


def executable_bits(root):
    """a file that begins with #! is executable, and no other"""
    for path in files(root):
        full = os.path.join(root, path)
        if path.startswith(BINARY_FOLDERS) or os.path.islink(full):
            continue
        is_script = first_line(root, path).startswith('#!') and not path.endswith('.lua')  # Redis' own first line: #!lua name=
        if is_script != os.access(full, os.X_OK):
            yield '%s: chmod %sx' % (path, '+' if is_script else '-')


def npm_pins(root):
    """npm packages are pinned exactly, and the lock file names no host"""
    for path in files(root, 'package.json'):
        data = json.loads(read(root, path))
        for kind in ('dependencies', 'devDependencies'):
            for name, version in data.get(kind, {}).items():
                if not re.fullmatch(r'\d+\.\d+\.\d+', version):
                    yield '%s: %s: write one version, not %s' % (path, name, version)
    for path in files(root, 'package-lock.json'):
        for line, _ in each_match(read(root, path), r'"resolved"|https?://(?!(www\.)?(github|opencollective|patreon|tidelift|feross|ko-fi))'):
            yield '%s:%d: names a host: write it with omit-lockfile-registry-resolved' % (path, line)


# ---- words -------------------------------------------------------------------------------------------------

def whitespace(root):
    """text files end with one newline, without tabs in C, trailing blanks or CRLF"""
    for path in text_files(root):
        with open(os.path.join(root, path), 'rb') as f:
            text = f.read()
        for wrong, what in ((b'\r\n', 'CRLF'), (b' \n', 'a trailing blank')):
            if wrong in text:
                yield '%s:%d: %s' % (path, text[:text.index(wrong)].count(b'\n') + 1, what)
        if text and not text.endswith(b'\n'):
            yield '%s: no newline at its end' % path
        if path.endswith(('.c', '.h', '.lua', '.py', '.mjs')) and b'\t' in text:
            yield '%s:%d: a tab' % (path, text[:text.index(b'\t')].count(b'\n') + 1)


def spelling(root):
    """words are spelled right (a word that is right all the same goes to tests/lint/words.txt)"""
    words = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'words.txt')
    paths = [p for p in text_files(root) if not p.endswith(('package-lock.json', 'words.txt', 'LICENSE'))]
    return run(['codespell', '--ignore-words', words, *paths], root).stdout.splitlines() if paths else []


def heading_anchors(text):
    text = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
    found = re.findall(r'^#+ +(.+?) *$', text, re.M)
    return {re.sub(r'[^\w\- ]', '', re.sub(r'[`*]', '', h).lower()).replace(' ', '-') for h in found}


def links(root):
    """links between documents lead somewhere"""
    for path in files(root, '.md'):
        text = re.sub(r'^```.*?^```', lambda m: '\n' * m[0].count('\n'), read(root, path), flags=re.M | re.S)
        for line, match in each_match(text, r'\]\(<?([^)\s>]+)>?[^)]*\)|(?:src|href)="([^"]+)"'):
            target = match[1] or match[2]
            if re.match(r'[a-z][a-z0-9+.\-]*:', target):
                continue
            name, _, anchor = target.partition('#')
            full = os.path.normpath(os.path.join(root, os.path.dirname(path), name)) if name else os.path.join(root, path)
            if not os.path.exists(full):
                yield '%s:%d: %s is not there' % (path, line, target)
            elif anchor and full.endswith('.md') and anchor not in heading_anchors(read('', full)):
                yield '%s:%d: %s has no such heading' % (path, line, target)


def machine_paths(root):
    """nothing names a path of one machine"""
    anywhere = r'/wor[k]/|/tm[p]/b-|/hom[e]/[a-z]'
    for path in text_files(root):
        pattern = anywhere + r'|/tm[p]/|/roo[t]/' if path.endswith('.md') else anywhere
        for line, match in each_match(read(root, path), pattern):
            yield '%s:%d: %s: describe the place, or take it from an argument' % (path, line, match[0])


def folder_readmes(root):
    """each folder of sources that has files has a README.md"""
    for folder in SOURCE_FOLDERS + ('deploy', 'tests', 'tools'):
        if list(files(os.path.join(root, folder))) and not os.path.exists(os.path.join(root, folder, 'README.md')):
            yield '%s/README.md: what lives here, what it may include, where to start reading, how to test it' % folder


CHECKS = (c_format, forbidden_calls, no_maxlen, headers, layers, shell_parses, python_parses, javascript_parses,
          json_parses, executable_bits, npm_pins, whitespace, spelling, links, machine_paths, folder_readmes)
