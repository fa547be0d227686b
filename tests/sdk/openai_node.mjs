// openai for Node, unmodified: the Portkey key as API key, Sidekey as base URL (over TLS, which its realtime client asks for).

import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';

import { BASE_URL, CLIENT_KEY, FALLBACK, FIRST_FAILS, PING, TIMEOUT_MS, audio, batch, expect, gate, run, test, tokens } from './cases.mjs';

const openai = (headers = {}) =>
  new OpenAI({
    baseURL: `${BASE_URL}/v1`,
    apiKey: CLIENT_KEY,
    timeout: TIMEOUT_MS,
    defaultHeaders: Object.fromEntries(Object.entries(headers).map(([name, value]) => [`x-portkey-${name}`, value])),
  });

async function chat(client, model, options = {}) {
  const answer = await client.chat.completions.create({ model, messages: PING, ...options });
  expect(answer.choices[0].message.content, 'pong');
}

test('chat by provider slug', () => chat(openai({ provider: '@openai-prod' }), 'gpt-4o-mini'));
test('chat by virtual key', () => chat(openai({ 'virtual-key': 'openai-prod' }), 'gpt-4o-mini'));
test('chat by model slug', () => chat(openai(), '@openai-prod/gpt-4o-mini'));

test('chat stream', async () => {
  const model = '@openai-prod/gpt-4o-mini';
  const stream = await openai().chat.completions.create({ model, messages: gate('openai-node'), stream: true });
  expect(await tokens(stream, 'openai-node'), ['token-0', 'token-1', 'token-2']);
});

test('chat by inline fallback config', () => chat(openai({ config: JSON.stringify(FALLBACK) }), FIRST_FAILS));
test('chat by stored config', () => chat(openai({ config: 'pc-fallback-1a2b3c' }), FIRST_FAILS));
test('chat on Anthropic', () => chat(openai(), '@anthropic-prod/claude-haiku', { max_tokens: 16 }));
test('chat on Bedrock', () => chat(openai(), '@bedrock-prod/amazon.nova-lite'));
test('chat on Azure OpenAI', () => chat(openai(), '@azure-prod/gpt-4o-mini'));

test('embeddings', async () => {
  const model = '@openai-prod/text-embedding-3-small';
  const answer = await openai().embeddings.create({ model, input: 'ping', encoding_format: 'float' });
  expect(answer.data[0].embedding, [0.25, 0.5]);
});

test('responses', async () => {
  const answer = await openai().responses.create({ model: '@openai-prod/gpt-4o-mini', input: 'ping' });
  expect(answer.output_text, 'pong');
});

test('transcription', async () => {
  const answer = await openai().audio.transcriptions.create({ model: '@openai-prod/whisper-1', file: audio() });
  expect(answer.text, 'pong');
});

test('speech', async () => {
  const answer = await openai().audio.speech.create({ model: '@openai-prod/tts-1', voice: 'alloy', input: 'ping' });
  expect(Buffer.from(await answer.arrayBuffer()).toString(), 'ID3pong');
});

test('images', async () => {
  const answer = await openai().images.generate({ model: '@openai-prod/gpt-image-1', prompt: 'ping' });
  expect(answer.data[0].b64_json, 'cG9uZw==');
});

test('file upload', async () => {
  const answer = await openai({ provider: '@openai-prod' }).files.create({ file: batch(), purpose: 'batch' });
  expect(answer.id, 'file-1');
});

test('models', async () => {
  const answer = await openai({ provider: '@openai-prod' }).models.list();
  expect(answer.data.map((model) => model.id), ['gpt-4o-mini']);
});

test('realtime', async () => {
  const session = new OpenAIRealtimeWS({ model: '@openai-prod/gpt-realtime' }, openai());
  const next = (type) =>
    new Promise((resolve, reject) => {
      session.once(type, resolve);
      session.once('error', reject);
    });
  await next('session.created');
  const done = next('response.done');
  session.send({ type: 'response.create' });
  await done;
  session.close();
});

await run();
