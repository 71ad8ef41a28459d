// OpenAI's SDK for Node.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { ASK, asked, busyKey, ended, endedOf, endless, key, told, url } from './parley.mjs';

const sdk = (options) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, ...options });
const client = sdk();
const chat = (request, options) => client.chat.completions.create({ model: 'script', messages: ASK, ...request }, options);

const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather of a city.',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};
const City = z.object({ name: z.string(), inhabitants: z.number().int() });

test('chat', async () => {
  const found = await chat({ messages: told({ tokens: ['a ', 'b'] }) });
  assert.equal(found.choices[0].message.content, 'a b');
  assert.equal(found.choices[0].finish_reason, 'stop');
  assert.equal(found.usage.completion_tokens, 2);
});

test('stream', async () => {
  const stream = await chat({
    messages: told({ tokens: ['a ', 'b'] }),
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await Array.fromAsync(stream);
  assert.equal(chunks.map((one) => one.choices[0]?.delta.content ?? '').join(''), 'a b');
  assert.equal(chunks.at(-1).usage.completion_tokens, 2);
});

test('tools are called and answered, whole and streamed', async () => {
  const request = { model: 'fast', tools: [WEATHER], tool_choice: 'required' };
  const { message, finish_reason } = (await chat(request)).choices[0];
  assert.equal(finish_reason, 'tool_calls');
  const [call] = message.tool_calls;
  assert.equal(call.function.name, 'get_weather');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'words' });
  const answered = await chat({
    ...request,
    tool_choice: 'auto',
    messages: [...ASK, message, { role: 'tool', tool_call_id: call.id, content: 'sunny' }],
  });
  assert.ok(answered.choices[0].message.content);
  const streamed = await client.chat.completions.stream({ ...request, messages: ASK }).finalChatCompletion();
  assert.deepEqual(
    streamed.choices[0].message.tool_calls.map((one) => one.function.arguments),
    [call.function.arguments],
  );
});

test('the SDK runs a tool by itself', async () => {
  const cities = [];
  const tool = {
    type: 'function',
    function: { ...WEATHER.function, parse: JSON.parse, function: ({ city }) => cities.push(city) && 'sunny' },
  };
  const tool_choice = { type: 'function', function: { name: 'get_weather' } };
  const runner = client.chat.completions.runTools({ model: 'fast', messages: ASK, tools: [tool], tool_choice });
  assert.equal(await runner.finalFunctionToolCallResult(), 'sunny');
  assert.deepEqual(cities, ['words']);
});

test('JSON schema', async () => {
  const found = await client.chat.completions.parse({
    model: 'fast',
    messages: ASK,
    response_format: zodResponseFormat(City, 'city'),
  });
  assert.deepEqual(found.choices[0].message.parsed, { name: 'words', inhabitants: 7 });
});

test('embeddings', async () => {
  const input = ['A cat sleeps.', 'A kitten naps.', 'The tax form is due.'];
  const found = await client.embeddings.create({ model: 'text-embedding-3-small', input });
  assert.deepEqual(found.data.map((one) => one.index), [0, 1, 2]);
  const [cat, kitten, tax] = found.data.map((one) => one.embedding);
  const alike = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
  assert.ok(alike(cat, kitten) > alike(cat, tax));
});

test('who goes away cancels: a stream', async () => {
  const stream = await chat({ messages: endless(), stream: true });
  let id;
  for await (const chunk of stream) {
    id = chunk.id;
    if (chunk.choices[0].delta.content) break;
  }
  assert.equal(await ended(id.replace('chatcmpl-', '')), 'cancelled');
});

test('who goes away cancels: an answer that does not stream', async () => {
  const leaving = new AbortController();
  const messages = endless();
  const asking = chat({ messages }, { signal: leaving.signal });
  const gone = assert.rejects(asking, OpenAI.APIUserAbortError);
  await asked(messages);
  leaving.abort();
  await gone;
  assert.equal(await endedOf(messages), 'cancelled');
});

test('errors are of their classes', async () => {
  await assert.rejects(chat({ model: 'gpt-17' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param], ['model_not_found', 'model']);
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(chat({ temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, 'temperature');
    return true;
  });
  await assert.rejects(sdk({ apiKey: 'sk-wrong' }).models.list(), OpenAI.AuthenticationError);
  const failing = told({ fail_after: 1, fail_kind: 'refused', fail_reason: 'invalid_request' });
  const stream = await chat({ messages: failing, stream: true });
  await assert.rejects(Array.fromAsync(stream), (error) => error instanceof OpenAI.APIError && error.code === 'invalid_request');
});

test('the SDK asks again where a limit is in the way', async () => {
  const ask = (maxRetries) =>
    sdk({ apiKey: busyKey, maxRetries }).chat.completions.create({ model: 'script', messages: ASK });
  await assert.rejects(ask(0), (error) => error instanceof OpenAI.RateLimitError && error.headers.has('retry-after'));
  assert.equal((await ask(20)).choices[0].finish_reason, 'stop');
});

test('responses: whole, with tools, and in a given shape', async () => {
  const found = await client.responses.create({ model: 'script', input: told({ tokens: ['a ', 'b'] }) });
  assert.deepEqual([found.status, found.output_text], ['completed', 'a b']);
  const tool = { type: 'function', ...WEATHER.function, strict: false };
  const called = await client.responses.create({ model: 'fast', input: ASK, tools: [tool], tool_choice: 'required' });
  const [call] = called.output.filter((one) => one.type === 'function_call');
  assert.deepEqual([call.name, JSON.parse(call.arguments)], ['get_weather', { city: 'words' }]);
  const answered = await client.responses.create({
    model: 'fast',
    previous_response_id: called.id,
    input: [{ type: 'function_call_output', call_id: call.call_id, output: 'sunny' }],
    tools: [tool],
  });
  assert.ok(answered.output_text);
  const shaped = await client.responses.parse({ model: 'fast', input: ASK, text: { format: zodTextFormat(City, 'city') } });
  assert.deepEqual(shaped.output_parsed, { name: 'words', inhabitants: 7 });
});

test('a stream of a response is taken up where it was left', async () => {
  const request = { model: 'script', input: told({ count: 40, delay_s: 0.02 }), background: true, stream: true };
  const seen = [];
  for await (const event of await client.responses.create(request)) {
    seen.push(event);
    if (seen.length === 12) break;
  }
  const [{ response }] = seen;
  const { sequence_number: starting_after } = seen.at(-1);
  const rest = await Array.fromAsync(await client.responses.retrieve(response.id, { stream: true, starting_after }));
  assert.deepEqual([...seen, ...rest].map((one) => one.sequence_number), [...Array(49).keys()]);
  const last = rest.at(-1);
  assert.deepEqual([last.type, last.response.output_text], ['response.completed', undefined]);
  const text = [...seen, ...rest].filter((one) => one.type === 'response.output_text.delta').map((one) => one.delta);
  assert.equal((await client.responses.retrieve(response.id)).output_text, text.join(''));
  // The SDK's own helper: the whole of it, read again from a place in the middle.
  const again = client.responses.stream({ response_id: response.id, starting_after });
  assert.equal((await again.finalResponse()).output_text, text.join(''));
});

test('a response in the background is cancelled', async () => {
  const found = await client.responses.create({ model: 'script', input: endless(), background: true });
  assert.equal((await client.responses.cancel(found.id)).status, 'cancelled');
  assert.equal(await ended(found.id.replace('resp_', '')), 'cancelled');
});
