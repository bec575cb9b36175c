import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Outbox } from '../src/outbox';

const settled = () => new Promise(resolve => setImmediate(resolve));

test('one thing is sent at a time, in order, with a pause after each', async () => {
  const sent: number[] = [];
  const pauses: (() => void)[] = [];
  const outbox = new Outbox<number>(
    async one => void sent.push(one),
    run => pauses.push(run)
  );
  [1, 2, 3].forEach(one => outbox.put(one));
  await settled();
  assert.deepEqual(sent, [1]);
  pauses.shift()!();
  await settled();
  assert.deepEqual(sent, [1, 2]);
});

test('more than a hundred that wait are dropped, and so are all that wait when one does not go', async () => {
  const sent: number[] = [];
  const pauses: { run: () => void; milliseconds: number }[] = [];
  let isDown = false;
  const outbox = new Outbox<number>(
    async one => {
      if (isDown) {
        throw new Error('429');
      }
      sent.push(one);
    },
    (run, milliseconds) => pauses.push({ run, milliseconds })
  );
  for (let one = 0; one < 500; one++) {
    outbox.put(one);
  }
  for (let at = 0; at < 200; at++) {
    await settled();
    pauses.shift()?.run();
  }
  assert.equal(sent.length, 101);
  isDown = true;
  outbox.put(1);
  outbox.put(2);
  await settled();
  assert.equal(pauses[0].milliseconds, 30_000);
  isDown = false;
  pauses.shift()!.run();
  await settled();
  outbox.put(3);
  await settled();
  assert.deepEqual(sent.slice(101), [3]);
});
