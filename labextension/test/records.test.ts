import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ApiError, ICellSource } from '../src/api';
import type { ICellRecord, ICellsAnswer } from '../src/contract';
import { Records } from '../src/records';

/** Time that passes when a test says so. */
class Clock {
  private at = 0;
  private waiting: { at: number; run: () => void }[] = [];

  now = () => this.at;
  set = (run: () => void, milliseconds: number) => {
    const one = { at: this.at + milliseconds, run };
    this.waiting.push(one);
    return one;
  };
  clear = (handle: unknown) => {
    this.waiting = this.waiting.filter(one => one !== handle);
  };

  async pass(milliseconds: number): Promise<void> {
    const until = this.at + milliseconds;
    for (;;) {
      await new Promise(resolve => setImmediate(resolve));
      const next = this.waiting.filter(one => one.at <= until).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) {
        break;
      }
      this.clear(next);
      this.at = next.at;
      next.run();
    }
    this.at = until;
  }
}

function record(executionId: string): ICellRecord {
  return {
    executionId,
    chain: 'c',
    seq: 1,
    hash: 'h',
    codeHash: null,
    outputsHash: null,
    status: 'ok',
    errorName: null,
    requestedAt: '',
    finishedAt: '',
    edited: false
  };
}

/** A Records, the requests it made, and the answer that each gets. */
function asking(answer: (cells: ICellSource[]) => Promise<ICellsAnswer>, source = 'x = 1') {
  const clock = new Clock();
  const requests: string[][] = [];
  const changed: string[] = [];
  const records = new Records(
    cells => {
      requests.push(cells.map(cell => cell.id));
      return answer(cells);
    },
    id => (id.startsWith('gone') ? null : source),
    ids => changed.push(...ids),
    clock
  );
  return { clock, requests, changed, records };
}

const nothing = async (): Promise<ICellsAnswer> => ({ cells: new Map(), pending: new Set() });

test('what is wanted together is asked in one request, and a cell that is gone is not asked about', async () => {
  const { clock, requests, changed, records } = asking(nothing);
  records.want('a', 0);
  records.want('b', 0);
  records.want('gone', 0);
  records.want('a', 0);
  await clock.pass(1000);
  assert.deepEqual(requests, [['a', 'b']]);
  assert.deepEqual(changed, ['a', 'b']);
  assert(records.known('a').asked && !records.known('gone').asked);
});

test('one request at most is under way, and what was wanted meanwhile follows it', async () => {
  let answerIt: (answer: ICellsAnswer) => void = () => undefined;
  const { clock, requests, records } = asking(() => new Promise(resolve => (answerIt = resolve)));
  records.want('a', 0);
  await clock.pass(1);
  for (let at = 0; at < 5; at++) {
    records.want('b', 0);
    records.want('c', 0);
    await clock.pass(5_000);
  }
  assert.deepEqual(requests, [['a']]);
  answerIt(await nothing());
  await clock.pass(1);
  assert.deepEqual(requests, [['a'], ['b', 'c']]);
});

test('a request has 100 cells and about 250,000 characters at most, and the others follow', async () => {
  const many = asking(nothing);
  many.records.renew(Array.from({ length: 220 }, (_, at) => `cell ${at}`));
  await many.clock.pass(10);
  assert.deepEqual(
    many.requests.map(ids => ids.length),
    [100, 100, 20]
  );
  const long = asking(nothing, 'x'.repeat(150_000));
  long.records.renew(['a', 'b', 'c']);
  await long.clock.pass(10);
  assert.deepEqual(long.requests, [['a', 'b'], ['c']]);
});

test('a failing server is asked ever less often, and answers are taken again when it is back', async () => {
  let isDown = true;
  const { clock, requests, records } = asking(async () => {
    if (isDown) {
      throw new ApiError('unreachable', 'down');
    }
    return { cells: new Map([['a', record('e1')]]), pending: new Set() };
  });
  records.want('a', 0);
  await clock.pass(600_000);
  assert(requests.length > 5 && requests.length < 15, String(requests.length));
  isDown = false;
  await clock.pass(120_000);
  assert.equal(records.known('a').record?.executionId, 'e1');
});

test('typing does not get past the back-off', async () => {
  const { clock, requests, records } = asking(async () => {
    throw new ApiError('unreachable', 'down');
  });
  for (let at = 0; at < 100; at++) {
    records.want('a', 0);
    await clock.pass(1_000);
  }
  assert(requests.length < 10, String(requests.length));
});

test('a cell that is being run is asked about until its record is there', async () => {
  let isOver = false;
  const { clock, requests, records } = asking(async () => ({
    cells: new Map(isOver ? [['a', record('e1')]] : []),
    pending: new Set(isOver ? [] : ['a'])
  }));
  records.want('a', 0);
  await clock.pass(60_000);
  assert(records.known('a').pending);
  assert(requests.length < 12, String(requests.length));
  isOver = true;
  await clock.pass(20_000);
  assert.deepEqual(records.known('a'), {
    record: record('e1'),
    asked: true,
    pending: false,
    expected: false,
    missing: false
  });
  const before = requests.length;
  await clock.pass(60_000);
  assert.equal(requests.length, before);
});

test('a run that ended is waited for, and counts as missing when its record does not come', async () => {
  let last = 'e1';
  const { clock, records } = asking(async () => ({
    cells: new Map([['a', record(last)]]),
    pending: new Set()
  }));
  records.want('a', 0);
  await clock.pass(1);
  records.expect('a');
  await clock.pass(5_000);
  last = 'e2';
  await clock.pass(10_000);
  assert.deepEqual(records.known('a').record?.executionId, 'e2');
  records.expect('a');
  await clock.pass(10_000);
  assert(records.known('a').expected && !records.known('a').missing);
  await clock.pass(30_000);
  assert(!records.known('a').expected);
  assert(records.known('a').missing);
  last = 'e3';
  records.want('a', 0);
  await clock.pass(1);
  assert(!records.known('a').missing);
});

test('runs of other cells do not shorten the time a run is waited for', async () => {
  const { clock, records } = asking(nothing);
  records.expect('a');
  for (let at = 0; at < 100; at++) {
    records.want(`cell ${at}`, 0);
    await clock.pass(100);
  }
  assert(!records.known('a').missing);
});

test('after its end it asks no more', async () => {
  const { clock, requests, records } = asking(nothing);
  records.want('a', 100);
  records.dispose();
  records.want('b', 0);
  await clock.pass(1_000);
  assert.deepEqual(requests, []);
});
