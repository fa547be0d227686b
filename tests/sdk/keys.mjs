// An application that is told line by line which SDK to use with which key, and says what came of it.
//
// A line in is {"sdk", "key", "call", "headers"}; a line out {"text"}, or {"status", "code"} of the error that the SDK threw.
// See tests/real/api_keys.rs.

import { createInterface } from 'node:readline';

import OpenAI from 'openai';
import { Portkey } from 'portkey-ai';

import { BASE_URL, PING, TIMEOUT_MS } from './cases.mjs';

const camel = (name) => name.replace('x-portkey-', '').replace(/-(.)/g, (_, letter) => letter.toUpperCase());

const sdks = {
  portkey: (apiKey, headers) =>
    new Portkey({
      baseURL: `${BASE_URL}/v1`,
      apiKey,
      timeout: TIMEOUT_MS,
      ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [camel(name), value])),
    }),
  openai: (apiKey, headers) =>
    new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey, timeout: TIMEOUT_MS, defaultHeaders: headers }),
};

const calls = {
  async chat(client) {
    const answer = await client.chat.completions.create({ model: 'gpt-4o', messages: PING });
    return answer.choices[0].message.content;
  },
  async stream(client) {
    const texts = [];
    for await (const chunk of await client.chat.completions.create({ model: 'gpt-4o', messages: PING, stream: true })) {
      texts.push(...chunk.choices.map((choice) => choice.delta?.content ?? ''));
    }
    return texts.join('');
  },
  async embeddings(client) {
    const asked = { model: 'text-embedding-3-small', input: 'ping', encoding_format: 'float' };
    return JSON.stringify((await client.embeddings.create(asked)).data[0].embedding);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { sdk, key, call, headers } = JSON.parse(line);
  let outcome;
  try {
    outcome = { text: await calls[call](sdks[sdk](key, headers)) };
  } catch (error) {
    const named = error.headers ?? error.response?.headers;
    const code = named?.get?.('x-sidekey-error') ?? named?.['x-sidekey-error'] ?? null;
    outcome = { error: String(error), status: error.status ?? error.response?.status ?? null, code };
  }
  console.log(JSON.stringify(outcome));
}
