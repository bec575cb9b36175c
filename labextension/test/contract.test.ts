import assert from 'node:assert/strict';
import { test } from 'node:test';

import { cellsOf, eventsOf, kindOf, policyOf, verificationOf } from '../src/contract';

const POLICY = {
  mode: 'consent',
  recording: true,
  consent: { version: '2', text: 'Read this.', given: true, at: null },
  identity: 'pseudonym',
  contents: 'none',
  required: false,
  retention_days: 30,
  sinks: [{ name: 'kafka', problem: null, lag: 2, delivered: 40 }],
  actions: false,
  subject: 'p:1',
  problems: [],
  recording_since: null
};

// What a broken or hostile server could answer in place of what belongs there.
const WRONG = [undefined, null, 7, 'text', true, [], [null], {}];

test('a policy is read member by member', () => {
  const policy = policyOf(POLICY);
  assert.equal(policy.mode, 'consent');
  assert.equal(policy.consent?.version, '2');
  assert.equal(policy.retentionDays, 30);
  assert.deepEqual(policy.sinks, [{ name: 'kafka', problem: null, lag: 2, delivered: 40 }]);
});

test('any JSON value in place of an answer, or of one of its members, is read or is a TypeError', () => {
  for (const read of [policyOf, cellsOf, eventsOf, verificationOf]) {
    for (const value of WRONG) {
      assert.throws(() => read(value), TypeError);
    }
  }
  for (const name of Object.keys(POLICY)) {
    for (const value of WRONG) {
      try {
        policyOf({ ...POLICY, [name]: value });
      } catch (error) {
        assert(error instanceof TypeError);
      }
    }
  }
});

test('a mode that is not known counts as audit, so that nobody is told of a choice that is none', () => {
  assert.equal(policyOf({ ...POLICY, mode: 'other', consent: null }).mode, 'audit');
});

test('the kind of an event is the name of its schema', () => {
  assert.equal(kindOf({ __schema__: 'https://exec-events.org/schemas/consent/v1' }), 'consent');
  assert.equal(kindOf({ __schema__: 5 }), '');
  assert.equal(kindOf({}), '');
});
