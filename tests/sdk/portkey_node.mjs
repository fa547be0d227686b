// portkey-ai for Node, unmodified, with Sidekey as its base URL (over TLS).

import { Portkey } from 'portkey-ai';

import { BASE_URL, CLIENT_KEY, FALLBACK, FIRST_FAILS, PING, TIMEOUT_MS, audio, batch, expect, gate, run, test, tokens } from './cases.mjs';

const portkey = (options = {}) =>
  new Portkey({ baseURL: `${BASE_URL}/v1`, apiKey: CLIENT_KEY, timeout: TIMEOUT_MS, ...options });

async function chat(client, model, options = {}) {
  const answer = await client.chat.completions.create({ model, messages: PING, ...options });
  expect(answer.choices[0].message.content, 'pong');
}

test('chat by provider slug', () => chat(portkey({ provider: '@openai-prod' }), 'gpt-4o-mini'));
test('chat by virtual key', () => chat(portkey({ virtualKey: 'openai-prod' }), 'gpt-4o-mini'));
test('chat by model slug', () => chat(portkey(), '@openai-prod/gpt-4o-mini'));

test('chat stream', async () => {
  const client = portkey({ provider: '@openai-prod' });
  const stream = await client.chat.completions.create({ model: 'gpt-4o-mini', messages: gate('portkey-node'), stream: true });
  expect(await tokens(stream, 'portkey-node'), ['token-0', 'token-1', 'token-2']);
});

test('chat by inline fallback config', () => chat(portkey({ config: FALLBACK }), FIRST_FAILS));
test('chat by stored config', () => chat(portkey({ config: 'pc-fallback-1a2b3c' }), FIRST_FAILS));
test('chat on Anthropic', () => chat(portkey(), '@anthropic-prod/claude-haiku', { max_tokens: 16 }));
test('chat on Bedrock', () => chat(portkey({ provider: '@bedrock-prod' }), 'amazon.nova-lite'));
test('chat on Azure OpenAI', () => chat(portkey({ provider: '@azure-prod' }), 'gpt-4o-mini'));

test('embeddings', async () => {
  const answer = await portkey().embeddings.create({
    model: '@openai-prod/text-embedding-3-small',
    input: 'ping',
    encoding_format: 'float',
  });
  expect(answer.data[0].embedding, [0.25, 0.5]);
});

test('responses', async () => {
  const answer = await portkey({ provider: '@openai-prod' }).responses.create({ model: 'gpt-4o-mini', input: 'ping' });
  expect(answer.output[0].content[0].text, 'pong');
});

test('transcription', async () => {
  const answer = await portkey().audio.transcriptions.create({ model: '@openai-prod/whisper-1', file: audio() });
  expect(answer.text, 'pong');
});

test('speech', async () => {
  const answer = await portkey({ provider: '@openai-prod' }).audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'ping' });
  expect(Buffer.from(await answer.arrayBuffer()).toString(), 'ID3pong');
});

test('images', async () => {
  const answer = await portkey().images.generate({ model: '@openai-prod/gpt-image-1', prompt: 'ping' });
  expect(answer.data[0].b64_json, 'cG9uZw==');
});

test('file upload', async () => {
  const answer = await portkey({ provider: '@openai-prod' }).files.create({ file: batch(), purpose: 'batch' });
  expect(answer.id, 'file-1');
});

test('models', async () => {
  const answer = await portkey({ provider: '@openai-prod' }).models.list();
  expect(answer.data.map((model) => model.id), ['gpt-4o-mini']);
});

await run();
