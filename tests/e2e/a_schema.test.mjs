// The golden files against the schemas: what proto/ writes is valid, what it must refuse is not.
import test from 'node:test';
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const Ajv = createRequire(import.meta.url)('ajv/dist/2020').default;
const root = new URL('../../', import.meta.url);
const golden = new URL('tests/vectors/proto/', root);

const read = (url) => JSON.parse(readFileSync(url, 'utf8'));
const ajv = new Ajv({ strict: true, strictRequired: false, strictTypes: false, strictTuple: false, allErrors: true });
for (const name of ['message', 'event', 'frame']) ajv.addSchema(read(new URL(`proto/schema/${name}.json`, root)));

/** Name of a golden file -> the validator it must pass. */
function schemaOf(file) {
  const [what, side] = file.split('.');
  if (what !== 'frame') return ajv.getSchema(`${what}.json`);
  return ajv.getSchema(`frame.json#/$defs/${side === 'server' ? 'server' : 'client'}`);
}
const jsonFiles = (folder) => readdirSync(folder).filter((name) => name.endsWith('.json'));
const explain = (validate) => ajv.errorsText(validate.errors, { separator: '\n' });

test('every golden file is valid', () => {
  const files = jsonFiles(golden);
  assert.ok(files.length >= 70, `only ${files.length} golden files`);
  for (const file of files) {
    const validate = schemaOf(file);
    assert.ok(validate(read(new URL(file, golden))), `${file}: ${explain(validate)}`);
  }
});

test('every bad file is refused', () => {
  const folder = new URL('bad/', golden);
  const files = jsonFiles(folder);
  assert.ok(files.length >= 90, `only ${files.length} bad files`);
  for (const file of files) assert.ok(!schemaOf(file)(read(new URL(file, folder))), `${file} was taken`);
});

test('every frame, event type and kind of message has a golden file', () => {
  const files = jsonFiles(golden);
  const frames = read(new URL('proto/schema/frame.json', root)).$defs;
  for (const name of Object.keys(frames).filter((n) => /^(client|server)\./.test(n)))
    assert.ok(files.some((f) => f.startsWith(`frame.${name}`)), `no file for frame ${name}`);
  for (const { const: type } of read(new URL('proto/schema/event.json', root)).properties.t.oneOf)
    assert.ok(files.includes(`event.${type}.json`), `no file for event ${type}`);
  for (const kind of read(new URL('proto/schema/message.json', root)).properties.kind.enum)
    assert.ok(files.includes(`message.${kind}.json`), `no file for message ${kind}`);
});

test('the schemas name what the headers name', () => {
  const header = readFileSync(new URL('proto/event.h', root), 'utf8');
  const { properties } = read(new URL('proto/schema/event.json', root));
  const fields = [...header.matchAll(/X\(\w+, "(\w+)", ([SI])\)/g)];
  assert.deepEqual(Object.keys(properties).sort(), ['t', ...fields.map((f) => f[1])].sort());
  const types = [...header.matchAll(/X\([A-Z_]+, "([a-z.]+)"\)/g)].map((t) => t[1]);
  assert.deepEqual(properties.t.oneOf.map((t) => t.const), types);
  const commands = [...readFileSync(new URL('proto/frame.h', root), 'utf8').matchAll(/X\([A-Z_]+, "([a-z]+\.[a-z]+)"\)/g)];
  assert.deepEqual(read(new URL('proto/schema/frame.json', root)).$defs['client.cmd'].properties.k.enum, commands.map((c) => c[1]));
});

test('every frame in docs/protocol.md is valid', () => {
  const page = readFileSync(new URL('docs/protocol.md', root), 'utf8');
  const either = ajv.getSchema('frame.json');
  const blocks = [...page.matchAll(/^```json\n(.*?)^```/gms)].flatMap((m) => m[1].trim().split('\n'));
  const lines = [...page.matchAll(/^([<>]) (.+)$/gm)];
  assert.ok(blocks.length >= 12 && lines.length >= 25, 'the page has lost its examples');
  const all = [...blocks.map((text) => [either, text]),
    ...lines.map(([, from, text]) => [ajv.getSchema(`frame.json#/$defs/${from === '<' ? 'server' : 'client'}`), text])];
  for (const [validate, text] of all) assert.ok(validate(JSON.parse(text)), `${text}\n${explain(validate)}`);
});
