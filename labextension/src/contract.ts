/**
 * What the server answers: its types, and functions that make them of any JSON value, or throw a TypeError.
 */

export type Mode = 'audit' | 'consent';

export interface IConsent {
  version: string;
  text: string;
  given: boolean;
  at: string | null;
}

export interface ISink {
  name: string;
  problem: string | null;
  lag: number;
  delivered: number;
}

export interface IPolicy {
  mode: Mode;
  recording: boolean;
  consent: IConsent | null;
  identity: string;
  contents: string;
  required: boolean;
  retentionDays: number;
  sinks: ISink[];
  actions: boolean;
  subject: string;
  problems: string[];
  recordingSince: string | null;
}

export interface ICellRecord {
  executionId: string;
  chain: string;
  seq: number;
  hash: string;
  codeHash: string | null;
  outputsHash: string | null;
  status: string;
  errorName: string | null;
  requestedAt: string;
  finishedAt: string;
  edited: boolean | null;
}

export interface ICellsAnswer {
  cells: Map<string, ICellRecord>;
  pending: Set<string>;
}

export interface ISealedEvent {
  chain: string;
  seq: number;
  hash: string;
  event: Json;
}

export interface ICellVerdict {
  index: number;
  id: string | null;
  result: string;
  detail: string;
}

export interface IVerification {
  cells: ICellVerdict[];
  summary: [string, number][];
  chainsOk: boolean;
  chainProblems: string[];
}

export type Json = { [name: string]: unknown };

export function policyOf(value: unknown): IPolicy {
  const json = object(value);
  return {
    mode: json.mode === 'consent' ? 'consent' : 'audit',
    recording: json.recording === true,
    consent: json.consent ? consentOf(json.consent) : null,
    identity: text(json.identity),
    contents: text(json.contents),
    required: json.required === true,
    retentionDays: number(json.retention_days),
    sinks: list(json.sinks).map(sinkOf),
    actions: json.actions === true,
    subject: text(json.subject),
    problems: list(json.problems).map(text),
    recordingSince: textOrNull(json.recording_since)
  };
}

export function consentOf(value: unknown): IConsent {
  const json = object(value);
  return {
    version: text(json.version),
    text: text(json.text),
    given: json.given === true,
    at: textOrNull(json.at)
  };
}

/** Of the answer of `GET status`: how many events are spooled, 0 where it does not say. */
export function spooledOf(value: unknown): number {
  return number(object(value).spooled ?? 0);
}

export function cellsOf(value: unknown): ICellsAnswer {
  const json = object(value);
  const cells = new Map<string, ICellRecord>();
  for (const [id, record] of Object.entries(object(json.cells))) {
    cells.set(id, recordOf(record));
  }
  return { cells, pending: new Set(list(json.pending).map(text)) };
}

export function eventsOf(value: unknown): ISealedEvent[] {
  return list(object(value).events).map(item => {
    const json = object(item);
    return {
      chain: text(json.chain),
      seq: number(json.seq),
      hash: text(json.hash),
      event: object(json.event)
    };
  });
}

export function verificationOf(value: unknown): IVerification {
  const json = object(value);
  const chains = object(json.chains);
  return {
    cells: list(json.cells).map(item => {
      const cell = object(item);
      return {
        index: number(cell.index),
        id: textOrNull(cell.id),
        result: text(cell.result),
        detail: textOrNull(cell.detail) ?? ''
      };
    }),
    summary: Object.entries(object(json.summary)).map(([result, count]) => [result, number(count)]),
    chainsOk: chains.ok === true,
    chainProblems: list(chains.problems).map(text)
  };
}

/** The name of a schema in an event, `cell_execution` for example; an empty string where there is none. */
export function kindOf(event: Json): string {
  const schema = event['__schema__'];
  return typeof schema === 'string' ? (schema.split('/').at(-2) ?? '') : '';
}

function sinkOf(value: unknown): ISink {
  const json = object(value);
  return {
    name: text(json.name),
    problem: textOrNull(json.problem),
    lag: number(json.lag),
    delivered: number(json.delivered)
  };
}

function recordOf(value: unknown): ICellRecord {
  const json = object(value);
  return {
    executionId: text(json.execution_id),
    chain: text(json.chain),
    seq: number(json.seq),
    hash: text(json.hash),
    codeHash: textOrNull(json.code_hash),
    outputsHash: textOrNull(json.outputs_hash),
    status: text(json.status),
    errorName: textOrNull(json.error_name),
    requestedAt: text(json.requested_at),
    finishedAt: text(json.finished_at),
    edited: typeof json.edited === 'boolean' ? json.edited : null
  };
}

function object(value: unknown): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError('the server answered something else than an object');
  }
  return value as Json;
}

function list(value: unknown): unknown[] {
  if (!Array.isArray(value)) {
    throw new TypeError('the server answered something else than a list');
  }
  return value;
}

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new TypeError('the server answered something else than a text');
  }
  return value;
}

function number(value: unknown): number {
  if (typeof value !== 'number') {
    throw new TypeError('the server answered something else than a number');
  }
  return value;
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}
