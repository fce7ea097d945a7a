#!/usr/bin/env python3
"""Write a C header with one name for the content of some files: fingerprint.py OUTPUT NAME INPUT..."""
import hashlib
import sys

output, name, inputs = sys.argv[1], sys.argv[2], sys.argv[3:]
digest = hashlib.sha256()
for path in inputs:
    data = open(path, 'rb').read()
    digest.update(b'%d\n' % len(data) + data)
with open(output, 'w') as out:
    out.write('/* made by tools/fingerprint.py */\n#define %s "%s"\n' % (name, digest.hexdigest()[:12]))
