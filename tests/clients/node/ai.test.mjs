// Vercel's AI SDK, with its provider for servers that are like OpenAI's.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embedMany, generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { ASK, asked, busyKey, endedOf, endless, key, told, url } from './parley.mjs';

const provider = (apiKey) =>
  createOpenAICompatible({
    name: 'parley',
    baseURL: `${url}/v1`,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const parley = provider(key);
const request = { model: parley('script'), messages: ASK, maxRetries: 0 };

const weather = (cities) => ({
  get_weather: tool({
    description: 'The weather of a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      cities.push(city);
      return 'sunny';
    },
  }),
});
const toolsFirst = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'auto' });

test('chat', async () => {
  const found = await generateText({ ...request, messages: told({ tokens: ['a ', 'b'] }) });
  assert.deepEqual([found.text, found.finishReason, found.usage.outputTokens], ['a b', 'stop', 2]);
});

test('stream', async () => {
  const stream = streamText({ ...request, messages: told({ tokens: ['a ', 'b'] }) });
  assert.equal((await Array.fromAsync(stream.textStream)).join(''), 'a b');
  assert.deepEqual([await stream.finishReason, (await stream.usage).outputTokens], ['stop', 2]);
});

test('tools are called, run and answered', async () => {
  const cities = [];
  const found = await generateText({
    ...request,
    model: parley('fast'),
    tools: weather(cities),
    prepareStep: toolsFirst,
    stopWhen: stepCountIs(3),
  });
  assert.deepEqual(cities, ['words']);
  assert.deepEqual(found.steps.map((one) => one.finishReason), ['tool-calls', 'stop']);
  assert.ok(found.text);
});

test('tools are called, run and answered in a stream', async () => {
  const cities = [];
  const stream = streamText({
    ...request,
    model: parley('fast'),
    tools: weather(cities),
    prepareStep: toolsFirst,
    stopWhen: stepCountIs(3),
  });
  await stream.consumeStream();
  assert.deepEqual(cities, ['words']);
  assert.equal((await stream.steps).length, 2);
  assert.ok(await stream.text);
});

test('JSON schema', async () => {
  const output = Output.object({ schema: z.object({ name: z.string(), inhabitants: z.number().int() }) });
  const found = await generateText({ ...request, model: parley('fast'), output });
  assert.deepEqual(found.output, { name: 'words', inhabitants: 7 });
  const stream = streamText({ ...request, model: parley('fast'), output });
  await stream.consumeStream();
  assert.deepEqual(await stream.output, { name: 'words', inhabitants: 7 });
});

test('embeddings', async () => {
  const { embeddings, usage } = await embedMany({
    model: parley.embeddingModel('text-embedding-3-small'),
    values: ['A cat sleeps.', 'The tax form is due.'],
  });
  assert.deepEqual(embeddings.map((one) => one.length), [384, 384]);
  assert.ok(usage.tokens > 0);
});

test('who goes away cancels: a stream', async () => {
  const leaving = new AbortController();
  const messages = endless();
  const stream = streamText({ ...request, messages, abortSignal: leaving.signal });
  const kinds = [];
  for await (const part of stream.fullStream) {
    kinds.push(part.type);
    if (part.type === 'text-delta') leaving.abort();
  }
  assert.equal(kinds.at(-1), 'abort');
  assert.equal(await endedOf(messages), 'cancelled');
});

test('who goes away cancels: an answer that does not stream', async () => {
  const leaving = new AbortController();
  const messages = endless();
  const gone = assert.rejects(generateText({ ...request, messages, abortSignal: leaving.signal }), { name: 'AbortError' });
  await asked(messages);
  leaving.abort();
  await gone;
  assert.equal(await endedOf(messages), 'cancelled');
});

test('errors are told with their status and message', async () => {
  const failed = (status, message) => (error) => {
    assert.ok(APICallError.isInstance(error), `${error}`);
    assert.deepEqual([error.statusCode, error.isRetryable], [status, false]);
    assert.match(error.message, message);
    return true;
  };
  await assert.rejects(generateText({ ...request, model: parley('gpt-17') }), failed(404, /gpt-17/));
  await assert.rejects(generateText({ ...request, temperature: 3 }), failed(400, /temperature/));
  await assert.rejects(generateText({ ...request, model: provider('sk-wrong')('script') }), failed(401, /key/i));
  const messages = told({ fail_after: 1, fail_kind: 'refused', fail_reason: 'invalid_request' });
  const parts = await Array.fromAsync(streamText({ ...request, messages, onError: () => {} }).fullStream);
  assert.ok(parts.some((one) => one.type === 'error'));
});

test('the SDK asks again where a limit is in the way', async () => {
  const ask = (maxRetries) => generateText({ ...request, model: provider(busyKey)('script'), maxRetries });
  await assert.rejects(ask(0), (error) => APICallError.isInstance(error) && error.statusCode === 429 && error.isRetryable);
  assert.equal((await ask(20)).finishReason, 'stop');
});
