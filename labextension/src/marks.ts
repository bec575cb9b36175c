/**
 * What is known of a cell goes in, the mark it gets comes out, or null where it gets none.
 */

import type { Trouble } from './api';
import type { ICellRecord, IPolicy } from './contract';

export interface ICellState {
  /** The notebook shows that it was run. */
  executed: boolean;
  /** It is being run, as this page or the server says, or was a moment ago, and its record is waited for. */
  running: boolean;
  /** The server was asked about it, and answered. */
  asked: boolean;
  /** Its last run ended in this page, and is not in the record. */
  missing: boolean;
  record: ICellRecord | null;
}

export interface ISite {
  policy: IPolicy | null;
  trouble: Trouble | null;
}

export type Reason = 'consent' | 'off' | 'no-record' | 'last-run-missing' | 'cannot-ask';

export type Mark =
  | { kind: 'recorded' | 'edited'; record: ICellRecord }
  | { kind: 'recording' }
  | { kind: 'unrecorded' | 'unknown'; reason: Reason };

export function markOf(cell: ICellState, site: ISite): Mark | null {
  if (site.trouble === 'absent' || (site.policy === null && site.trouble === null)) {
    return null;
  }
  if (cell.running) {
    if (site.trouble !== null) {
      return { kind: 'unknown', reason: 'cannot-ask' };
    }
    const reason = whyNothingIsRecorded(site.policy);
    return reason === null ? { kind: 'recording' } : { kind: 'unrecorded', reason };
  }
  if (cell.record !== null && !cell.missing) {
    return { kind: cell.record.edited ? 'edited' : 'recorded', record: cell.record };
  }
  if (!cell.executed && !cell.missing) {
    return null;
  }
  if (!cell.asked) {
    return site.trouble === null ? null : { kind: 'unknown', reason: 'cannot-ask' };
  }
  const reason = whyNothingIsRecorded(site.policy) ?? (cell.missing ? 'last-run-missing' : 'no-record');
  return { kind: 'unrecorded', reason };
}

function whyNothingIsRecorded(policy: IPolicy | null): Reason | null {
  if (policy === null || policy.recording) {
    return null;
  }
  return policy.consent !== null && !policy.consent.given ? 'consent' : 'off';
}
