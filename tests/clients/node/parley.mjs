// Parley, and its own API for what a client does not see: how a generation ended.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';

export const url = process.env.PARLEY_URL;
export const key = process.env.PARLEY_KEY;
/** One whose limit is in the way until it was met twice. */
export const busyKey = process.env.PARLEY_BUSY_KEY;
export const ASK = [{ role: 'user', content: 'Why is the sky blue?' }];

const DEADLINE_MS = 60_000;
const TERMINAL = ['completed', 'failed', 'cancelled'];

/** What the scripted model is asked, so that it does as it is told. */
export const told = (script) => [{ role: 'user', content: `script: ${JSON.stringify(script)}` }];

/** Without end; each is one of its own. */
export const endless = () => told({ tokens: [`${crypto.randomUUID()} `, 'and '], hang_after: 2 });

async function got(path) {
  const response = await fetch(url + path, { headers: { authorization: `Bearer ${key}` } });
  const text = await response.text();
  assert.equal(response.status, 200, `${path}: ${text}`);
  return JSON.parse(text);
}

/** What `ask` gives once it `isIt`. */
async function eventually(ask, isIt) {
  for (const deadline = Date.now() + DEADLINE_MS; ; ) {
    const found = await ask();
    if (isIt(found)) return found;
    assert.ok(Date.now() < deadline, `still ${JSON.stringify(found)}`);
    await pause(20);
  }
}

/** How the generation ended. */
export async function ended(id) {
  const found = await eventually(
    () => got(`/v1/generations/${id}`),
    (one) => TERMINAL.includes(one.status),
  );
  return found.status;
}

/** The id of the generation that was asked with these messages, for who was told none. */
export async function asked([{ content }]) {
  const conversation = async () => {
    const { conversations } = await got('/v1/conversations');
    const shown = await Promise.all(conversations.map((one) => got(`/v1/conversations/${one.id}`)));
    return shown.find(({ messages }) => messages[0]?.content === content);
  };
  return (await eventually(conversation, (found) => found !== undefined)).messages.at(-1).id;
}

/** How it ended. */
export const endedOf = async (messages) => ended(await asked(messages));
