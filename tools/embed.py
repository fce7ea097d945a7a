#!/usr/bin/env python3
"""Turn a file into a C array: embed.py INPUT OUTPUT NAME. The array ends with a NUL that NAME_len does not count."""
import sys

data = open(sys.argv[1], 'rb').read()
name = sys.argv[3]
rows = [', '.join(str(byte) for byte in data[i:i + 20]) for i in range(0, len(data), 20)]
with open(sys.argv[2], 'w') as out:
    out.write('/* made from %s by tools/embed.py */\n' % sys.argv[1].rsplit('/', 1)[-1])
    out.write('static const unsigned char %s[] = {\n%s, 0};\n' % (name, ',\n'.join(rows)))
    out.write('static const unsigned long %s_len = %d;\n' % (name, len(data)))
