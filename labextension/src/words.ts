/**
 * What the extension says: sentences and labels, of marks, policies, events and verdicts, in the user's language.
 */

import type { Trouble } from './api';
import { ICellRecord, IPolicy, ISealedEvent, kindOf } from './contract';
import type { Mark, Reason } from './marks';

/** The part of JupyterLab's TranslationBundle that is used here. */
export interface ITranslate {
  __(text: string, ...values: (string | number)[]): string;
  _n(one: string, many: string, count: number, ...values: (string | number)[]): string;
}

/** A sign that stands beside the words, so that no colour has to carry the meaning. */
export function signOf(mark: Mark): string {
  return { recorded: '✓', edited: '✎', recording: '…', unrecorded: '✗', unknown: '?' }[mark.kind];
}

export function titleOf(mark: Mark, trans: ITranslate): string {
  switch (mark.kind) {
    case 'recorded':
      return trans.__('Recorded');
    case 'edited':
      return trans.__('Edited since recorded');
    case 'recording':
      return trans.__('Recording');
    case 'unrecorded':
      return trans.__('Not recorded');
    case 'unknown':
      return trans.__('Record unknown');
  }
}

/** What stands behind a mark's title: the facts of a record in short, or why there is none. */
export function remarkOf(mark: Mark, trans: ITranslate): string {
  switch (mark.kind) {
    case 'recorded':
    case 'edited': {
      const { record } = mark;
      const parts = [clockTime(record.requestedAt), endedAs(record, trans)];
      if (record.codeHash !== null) {
        parts.push(trans.__('code %1', shortHash(record.codeHash)));
      }
      if (record.outputsHash !== null) {
        parts.push(trans.__('outputs %1', shortHash(record.outputsHash)));
      }
      parts.push(trans.__('no. %1', record.seq));
      return parts.filter(part => part !== '').join(' · ');
    }
    case 'recording':
      return '';
    default:
      return because(mark.reason, trans);
  }
}

/** Every fact of a record, in full, by its label. */
export function factsOf(record: ICellRecord, trans: ITranslate): [string, string][] {
  const missing = trans.__('none');
  const name = record.errorName === null ? '' : ` (${record.errorName})`;
  return [
    [trans.__('Run'), record.requestedAt],
    [trans.__('Finished'), record.finishedAt],
    [trans.__('Ended as'), record.status + name],
    [trans.__('Code'), record.codeHash ?? missing],
    [trans.__('Outputs'), record.outputsHash ?? missing],
    [trans.__('Chain'), record.chain],
    [trans.__('Number in chain'), String(record.seq)],
    [trans.__('Record'), record.hash],
    [trans.__('Execution'), record.executionId]
  ];
}

function because(reason: Reason, trans: ITranslate): string {
  switch (reason) {
    case 'consent':
      return trans.__('you have not agreed to being recorded');
    case 'off':
      return trans.__('the recorder is not recording');
    case 'no-record':
      return trans.__('this server has no record of a run of this cell by you');
    case 'last-run-missing':
      return trans.__('the last run is not in the record');
    case 'cannot-ask':
      return trans.__('the recorder does not answer');
  }
}

function endedAs(record: ICellRecord, trans: ITranslate): string {
  switch (record.status) {
    case 'ok':
      return '';
    case 'error':
      return record.errorName ?? trans.__('error');
    default:
      return record.status.replaceAll('_', ' ');
  }
}

/** The first eight digits of a hash, which has its algorithm and key before it. */
export function shortHash(hash: string): string {
  return hash.slice(hash.lastIndexOf(':') + 1).slice(0, 8);
}

/** The time of day where the reader is; the text as it came where it is no time. */
export function clockTime(time: string): string {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? time : at.toLocaleTimeString();
}

export interface IKnownState {
  policy: IPolicy | null;
  trouble: Trouble | null;
  spooled: number;
}

export interface IState {
  sign: string;
  text: string;
  detail: string;
}

/** Whether anything is recorded, in short and in a sentence. */
export function stateOf(recorder: IKnownState, trans: ITranslate): IState {
  const { policy, trouble, spooled } = recorder;
  if (trouble === 'refused') {
    return {
      sign: '?',
      text: trans.__('Recorder: no access'),
      detail: trans.__('This server does not let you ask what is recorded. Ask who runs it.')
    };
  }
  if (trouble !== null || policy === null) {
    return {
      sign: '?',
      text: trans.__('Recorder unreachable'),
      detail: trans.__('The recorder does not answer. Cells run as ever; this page asks again by itself.')
    };
  }
  const troubled = policy.problems.length > 0 || policy.sinks.some(sink => sink.problem !== null);
  if (policy.recording) {
    const detail = [
      policy.required
        ? trans.__('What you run is recorded. What cannot be recorded does not run.')
        : trans.__('What you run is recorded.'),
      ...deliveries(policy, trans)
    ].join(' ');
    return {
      sign: troubled ? '!' : '●',
      text: [
        trans.__('Recording'),
        trans._n('%1 event', '%1 events', spooled, spooled),
        delivered(policy, trans)
      ]
        .filter(part => part !== '')
        .join(' · '),
      detail
    };
  }
  const waits = policy.consent !== null && !policy.consent.given;
  return {
    sign: troubled ? '!' : '○',
    text: trans.__('Not recording'),
    detail: waits
      ? trans.__('Nothing is recorded: you have not agreed to it.')
      : trans.__('Nothing is recorded: the recorder is not running. Ask who runs this server.')
  };
}

function delivered(policy: IPolicy, trans: ITranslate): string {
  if (policy.sinks.length === 0) {
    return '';
  }
  if (policy.sinks.some(sink => sink.problem !== null)) {
    return trans.__('delivery failing');
  }
  const lag = Math.max(...policy.sinks.map(sink => sink.lag));
  return lag === 0 ? trans.__('all delivered') : trans.__('%1 to deliver', lag);
}

/** A sentence on each place records go to. */
export function deliveries(policy: IPolicy, trans: ITranslate): string[] {
  return policy.sinks.map(sink => {
    if (sink.problem !== null) {
      return trans.__(
        '%1 does not take records (%2); %3 wait on this server.',
        sink.name,
        sink.problem,
        sink.lag
      );
    }
    return trans.__('%1: %2 delivered, %3 behind.', sink.name, sink.delivered, sink.lag);
  });
}

/** What is collected, as this server is configured. */
export function collected(policy: IPolicy, trans: ITranslate): string[] {
  const said = [
    trans.__('Of each cell you run: when, for how long, in which kernel, and how it ended.'),
    trans.__(
      'Sizes and fingerprints (hashes) of its code and outputs. They tell whether something was changed.'
    )
  ];
  if (policy.contents === 'code') {
    said.push(trans.__('The code itself.'));
  } else if (policy.contents === 'code+outputs') {
    said.push(trans.__('The code and the outputs themselves.'));
  }
  said.push(
    policy.identity === 'plain'
      ? trans.__('Your user name and the path of the notebook, as they are.')
      : trans.__('Pseudonyms for you and for the notebook. Who has the key of this site can resolve them.')
  );
  if (policy.actions) {
    said.push(
      trans.__(
        'In this page: when you open, save, show, hide or close a notebook, and add, move, paste or remove cells.'
      )
    );
  }
  return said;
}

/** What is not collected, as this server is configured. */
export function notCollected(policy: IPolicy, trans: ITranslate): string[] {
  const said = [];
  if (policy.contents === 'none') {
    said.push(trans.__('Your code and its outputs: they cannot be read from a record.'));
  } else if (policy.contents === 'code') {
    said.push(trans.__('The outputs of your code: they cannot be read from a record.'));
  }
  said.push(trans.__('What you type and do not run, and text cells.'));
  if (!policy.actions) {
    said.push(trans.__('What you do in this page, other than running cells.'));
  }
  said.push(trans.__('Terminals, files, passwords and the environment of the server.'));
  return said;
}

/** How long records stay. */
export function kept(policy: IPolicy, trans: ITranslate): string {
  const days = policy.retentionDays;
  if (days === 0 || policy.sinks.length === 0) {
    return trans.__('Records stay on this server.');
  }
  return trans._n(
    'Records stay on this server for about %1 day after their delivery; elsewhere as long as the site decides.',
    'Records stay on this server for about %1 days after their delivery; elsewhere as long as the site decides.',
    days,
    days
  );
}

/** One event in a line. */
export function eventLine({ event }: ISealedEvent, trans: ITranslate): string {
  const word = (name: string): string => {
    const value = event[name];
    return typeof value === 'string' ? value.replaceAll('_', ' ') : '';
  };
  switch (kindOf(event)) {
    case 'cell_execution': {
      const count = event['execution_count'];
      const cell = typeof count === 'number' ? trans.__('Cell run [%1]', count) : trans.__('Cell run');
      return `${cell}: ${word('error_name') || word('status')}`;
    }
    case 'late_output':
      return trans.__('Outputs after the end of a run');
    case 'kernel_lifecycle':
      return trans.__('Kernel: %1', word('action'));
    case 'consent':
      return trans.__('Consent: %1', word('action'));
    case 'notebook_action':
      return trans.__('In the page: %1', word('action'));
    default:
      return kindOf(event).replaceAll('_', ' ');
  }
}

/** A verdict of the server's, in words and with a sign. */
export function verdictWords(result: string, trans: ITranslate): string {
  switch (result) {
    case 'recorded':
      return `✓ ${trans.__('as recorded')}`;
    case 'edited since':
      return `✎ ${trans.__('edited since')}`;
    case 'output differs':
      return `✗ ${trans.__('other outputs than recorded')}`;
    case 'never run here':
      return `○ ${trans.__('never run here')}`;
    case 'cannot tell':
      return `? ${trans.__('cannot tell')}`;
    default:
      return `? ${result}`;
  }
}
