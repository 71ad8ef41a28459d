// Anthropic's SDK for Node.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { ASK, asked, busyKey, ended, endedOf, endless, key, told, url } from './parley.mjs';

const sdk = (options) => new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, ...options });
const client = sdk();
const request = { model: 'script', max_tokens: 256, messages: ASK };
const create = (more, options) => client.messages.create({ ...request, ...more }, options);

const WEATHER = {
  name: 'get_weather',
  description: 'The weather of a city.',
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

test('chat', async () => {
  const found = await create({ messages: told({ tokens: ['a ', 'b'] }) });
  assert.deepEqual(found.content.map((one) => [one.type, one.text]), [['text', 'a b']]);
  assert.equal(found.stop_reason, 'end_turn');
  assert.equal(found.usage.output_tokens, 2);
});

test('stream', async () => {
  const messages = told({ tokens: ['a ', 'b'] });
  const events = await Array.fromAsync(await create({ messages, stream: true }));
  assert.deepEqual([events[0].type, events.at(-1).type], ['message_start', 'message_stop']);
  const stream = client.messages.stream({ ...request, messages });
  const texts = [];
  stream.on('text', (text) => texts.push(text));
  const final = await stream.finalMessage();
  assert.equal(await stream.finalText(), 'a b');
  assert.deepEqual([texts.join(''), final.usage.output_tokens], ['a b', 2]);
});

for (const model of ['claude', 'fast'])
  test(`tools are called and answered, whole and streamed: ${model}`, async () => {
    const asking = { model, tools: [WEATHER], tool_choice: { type: 'any' } };
    const found = await create(asking);
    assert.equal(found.stop_reason, 'tool_use');
    const call = found.content.find((one) => one.type === 'tool_use');
    assert.deepEqual([call.name, call.input], ['get_weather', { city: 'words' }]);
    const result = { type: 'tool_result', tool_use_id: call.id, content: 'sunny' };
    const messages = [...ASK, { role: 'assistant', content: found.content }, { role: 'user', content: [result] }];
    const answered = await create({ ...asking, tool_choice: { type: 'auto' }, messages });
    assert.equal(answered.stop_reason, 'end_turn');
    const streamed = await client.messages.stream({ ...request, ...asking }).finalMessage();
    assert.deepEqual(streamed.content.find((one) => one.type === 'tool_use').input, { city: 'words' });
  });

test('the SDK runs a tool by itself', async () => {
  const cities = [];
  const tool = betaZodTool({
    name: 'get_weather',
    description: 'The weather of a city.',
    inputSchema: z.object({ city: z.string() }),
    run: ({ city }) => {
      cities.push(city);
      return 'sunny';
    },
  });
  const asking = { ...request, model: 'claude', tools: [tool], tool_choice: { type: 'any' }, max_iterations: 2 };
  const answers = await Array.fromAsync(client.beta.messages.toolRunner(asking));
  // The second one was asked with what the tool said.
  assert.deepEqual(answers.map((one) => one.stop_reason), ['tool_use', 'tool_use']);
  assert.equal(cities[0], 'words');
});

test('JSON schema', async () => {
  const City = z.object({ name: z.string(), inhabitants: z.number().int() });
  for (const model of ['claude', 'fast']) {
    const format = zodOutputFormat(City);
    const found = await client.messages.parse({ ...request, model, output_config: { format } });
    assert.deepEqual(found.parsed_output, { name: 'words', inhabitants: 7 });
  }
});

test('tokens are counted', async () => {
  const { input_tokens } = await client.messages.countTokens({ model: 'script', messages: ASK });
  assert.ok(input_tokens > 0);
});

test('models are listed', async () => {
  const models = await Array.fromAsync(client.models.list({ limit: 2 }));
  assert.ok(models.some((one) => one.id === 'claude'));
});

test('who goes away cancels: a stream', async () => {
  const stream = client.messages.stream({ ...request, messages: endless() });
  for await (const event of stream) if (event.type === 'content_block_delta') break;
  assert.equal(await ended(stream.currentMessage.id.replace('msg_', '')), 'cancelled');
});

test('who goes away cancels: an answer that does not stream', async () => {
  const leaving = new AbortController();
  const messages = endless();
  const gone = assert.rejects(create({ messages }, { signal: leaving.signal }), Anthropic.APIUserAbortError);
  await asked(messages);
  leaving.abort();
  await gone;
  assert.equal(await endedOf(messages), 'cancelled');
});

test('errors are of their classes', async () => {
  const of = (kind, type) => (error) => {
    assert.ok(error instanceof kind, `${error}`);
    assert.equal(error.type, type);
    assert.ok(error.requestID);
    return true;
  };
  await assert.rejects(create({ model: 'claude-2' }), of(Anthropic.NotFoundError, 'not_found_error'));
  await assert.rejects(create({ tools: [WEATHER] }), of(Anthropic.BadRequestError, 'invalid_request_error'));
  await assert.rejects(
    sdk({ apiKey: 'sk-ant-wrong' }).messages.create(request),
    of(Anthropic.AuthenticationError, 'authentication_error'),
  );
  const messages = told({ fail_after: 1, fail_kind: 'refused', fail_reason: 'invalid_request' });
  await assert.rejects(client.messages.stream({ ...request, messages }).finalMessage(), Anthropic.APIError);
});

test('the SDK asks again where a limit is in the way', async () => {
  const messages = told({ tokens: ['a'] });
  const ask = (maxRetries) => sdk({ apiKey: busyKey, maxRetries }).messages.create({ ...request, messages });
  await assert.rejects(ask(0), Anthropic.RateLimitError);
  assert.equal((await ask(20)).stop_reason, 'end_turn');
});
