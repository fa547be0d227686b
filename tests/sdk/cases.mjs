// What the Node scripts share: the talk with tests/real/sdk.rs, which checks what the provider received.
//
// A script names its cases with test() and ends with run(). After each one it prints a line of JSON and waits for a line on
// standard input, so that every request at the provider belongs to exactly one case.

import { createInterface } from 'node:readline';

/** Where Sidekey listens, without a path. */
export const BASE_URL = process.env.BASE_URL;
/** The Portkey API key of the client. */
export const CLIENT_KEY = process.env.CLIENT_KEY;
/** A config over two virtual keys, which have two references. */
export const FALLBACK = {
  strategy: { mode: 'fallback' },
  targets: [{ provider: '@openai-prod' }, { virtual_key: 'openai-backup' }],
};
/** The model that the provider refuses to the first of the two. */
export const FIRST_FAILS = 'first-fails';
export const PING = [{ role: 'user', content: 'ping' }];
export const TIMEOUT_MS = 30_000;

const cases = [];

/** 16 KiB that are no text, as a file. */
export const audio = () =>
  new File([Uint8Array.from({ length: 16384 }, (_, index) => index % 256)], 'ping.mp3', { type: 'audio/mpeg' });
export const batch = () => new File(['{"ping": 1}\n'], 'batch.jsonl', { type: 'application/jsonl' });

/** Registers a function as the case `name` of tests/real/sdk.rs. */
export const test = (name, body) => cases.push([name, body]);

/** Throws unless both are equal as JSON. */
export function expect(actual, wanted) {
  if (JSON.stringify(actual) !== JSON.stringify(wanted)) {
    throw new Error(`${JSON.stringify(actual)} instead of ${JSON.stringify(wanted)}`);
  }
}

/** A message whose answer streams one event per release(name). */
export const gate = (name) => [{ role: 'user', content: `gate:${name}` }];

/** Lets the provider send the next event of the stream behind gate(name). */
export const release = (name) => fetch(`http://provider.test/gate/${name}`, { method: 'POST' });

/** The texts of a chat stream, whose next event is only sent once the one before has come. */
export async function tokens(stream, name) {
  const texts = [];
  for await (const chunk of stream) {
    texts.push(...chunk.choices.map((choice) => choice.delta?.content).filter(Boolean));
    await release(name);
  }
  return texts;
}

/** Runs the cases in order. */
export async function run() {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  for (const [name, body] of cases) {
    let outcome = { case: name, ok: true };
    try {
      await body();
    } catch (error) {
      outcome = { case: name, ok: false, error: String(error?.stack ?? error) };
    }
    console.log(JSON.stringify(outcome));
    await lines.next();
  }
  process.exit(0);
}
