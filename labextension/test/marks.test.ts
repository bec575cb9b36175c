import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ICellRecord, IPolicy } from '../src/contract';
import { ICellState, ISite, Mark, markOf } from '../src/marks';
import { remarkOf, shortHash, signOf, titleOf } from '../src/words';

const RECORD: ICellRecord = {
  executionId: 'e1',
  chain: 'recorder/subject',
  seq: 12,
  hash: 'sha256:00',
  codeHash: 'hmac-sha256:deadbeef:0123456789abcdef',
  outputsHash: 'sha256:fedcba9876543210',
  status: 'error',
  errorName: 'ValueError',
  requestedAt: 'no time',
  finishedAt: '',
  edited: false
};
const POLICY: IPolicy = {
  mode: 'audit',
  recording: true,
  consent: null,
  identity: 'pseudonym',
  contents: 'none',
  required: false,
  retentionDays: 30,
  sinks: [],
  actions: false,
  subject: 'p:1',
  problems: [],
  recordingSince: null
};
const CELL: ICellState = { executed: true, running: false, asked: true, missing: false, record: null };
const SITE: ISite = { policy: POLICY, trouble: null };
const REFUSED = { version: '1', text: '', given: false, at: null };
const trans = {
  __: (text: string, ...values: (string | number)[]) =>
    text.replace(/%(\d)/g, (_, at) => String(values[at - 1])),
  _n: (one: string, many: string, count: number) => (count === 1 ? one : many)
};

test('a server without the recorder, and one that did not answer yet, give no cell a mark', () => {
  assert.equal(markOf({ ...CELL, record: RECORD, running: true }, { policy: null, trouble: 'absent' }), null);
  assert.equal(markOf(CELL, { policy: null, trouble: null }), null);
});

test('a cell that was never run has no mark', () => {
  assert.equal(markOf({ ...CELL, executed: false }, SITE), null);
});

test('a cell that was run and not asked about yet has none, unless asking is not possible', () => {
  assert.equal(markOf({ ...CELL, asked: false }, SITE), null);
  assert.deepEqual(markOf({ ...CELL, asked: false }, { ...SITE, trouble: 'unreachable' }), {
    kind: 'unknown',
    reason: 'cannot-ask'
  });
});

test('a record is shown, as edited where the server says so, also when the server is away afterwards', () => {
  for (const trouble of [null, 'unreachable', 'refused'] as const) {
    const site = { ...SITE, trouble };
    assert.equal(markOf({ ...CELL, record: RECORD }, site)?.kind, 'recorded');
    assert.equal(markOf({ ...CELL, record: { ...RECORD, edited: true } }, site)?.kind, 'edited');
    assert.equal(markOf({ ...CELL, record: { ...RECORD, edited: null } }, site)?.kind, 'recorded');
  }
});

test('a cell without a record says why: no consent, no recorder, no record, or the last run is missing', () => {
  const reason = (cell: ICellState, policy: IPolicy) =>
    (markOf(cell, { policy, trouble: null }) as { reason?: string }).reason;
  assert.equal(reason(CELL, { ...POLICY, recording: false, consent: REFUSED }), 'consent');
  assert.equal(reason(CELL, { ...POLICY, recording: false }), 'off');
  assert.equal(reason(CELL, POLICY), 'no-record');
  assert.equal(reason({ ...CELL, missing: true, record: RECORD }, POLICY), 'last-run-missing');
  assert.equal(reason({ ...CELL, running: true }, { ...POLICY, recording: false }), 'off');
});

test('a running cell is being recorded, or nobody knows while the recorder does not answer', () => {
  const running = { ...CELL, running: true };
  assert.deepEqual(markOf(running, { ...SITE, trouble: 'unreachable' }), {
    kind: 'unknown',
    reason: 'cannot-ask'
  });
  assert.deepEqual(markOf({ ...CELL, running: true, record: RECORD }, SITE), { kind: 'recording' });
});

test('no two kinds of mark have one sign or one title, so that colour carries nothing', () => {
  const marks: Mark[] = [
    { kind: 'recorded', record: RECORD },
    { kind: 'edited', record: RECORD },
    { kind: 'recording' },
    { kind: 'unrecorded', reason: 'off' },
    { kind: 'unknown', reason: 'cannot-ask' }
  ];
  assert.equal(new Set(marks.map(signOf)).size, marks.length);
  assert.equal(new Set(marks.map(mark => titleOf(mark, trans))).size, marks.length);
});

test('a remark has the end of the run, the first digits of both hashes, and the number in the chain', () => {
  const remark = remarkOf({ kind: 'recorded', record: RECORD }, trans);
  assert.equal(remark, 'no time · ValueError · code 01234567 · outputs fedcba98 · no. 12');
  assert.equal(shortHash('sha256:00ff'), '00ff');
});
