/**
 * The records of one notebook's cells: who is to be asked about, one request at a time, and what was answered.
 */

import { ApiError, ICellSource } from './api';
import type { ICellRecord, ICellsAnswer } from './contract';

/** Bounds of one request: its cells are put together, and its answer is taken, without a pause. */
const MOST_CELLS = 100;
const MOST_CHARACTERS = 250_000;

const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 15_000;
/** A run that is not in the record by then counts as not recorded. */
const RECORDED_WITHIN_MS = 20_000;

const FIRST_BACK_OFF_MS = 2_000;
const LAST_BACK_OFF_MS = 120_000;

export interface ITimer {
  set(run: () => void, milliseconds: number): unknown;
  clear(handle: unknown): void;
  now(): number;
}

export interface IKnown {
  record: ICellRecord | null;
  asked: boolean;
  pending: boolean;
  /** A run is over, and its record is waited for. */
  expected: boolean;
  missing: boolean;
}

interface IExpectation {
  /** The execution that was the last before the run that is waited for. */
  before: string | null;
  until: number;
  tries: number;
}

export class Records {
  /**
   * @param ask - asks the server.
   * @param sourceOf - the source of a cell, null where there is no such cell any more.
   * @param changed - called with the cells of which something else is known now.
   * @param timer - what waits.
   */
  constructor(
    private readonly ask: (cells: ICellSource[]) => Promise<ICellsAnswer>,
    private readonly sourceOf: (id: string) => string | null,
    private readonly changed: (ids: string[]) => void,
    private readonly timer: ITimer
  ) {}

  known(id: string): IKnown {
    return {
      record: this.records.get(id) ?? null,
      asked: this.asked.has(id),
      pending: this.pending.has(id),
      expected: this.expected.has(id),
      missing: this.missing.has(id)
    };
  }

  has(id: string): boolean {
    return this.records.has(id);
  }

  /** Ask about a cell, after some milliseconds at the earliest. */
  want(id: string, milliseconds: number): void {
    this.wanted.add(id);
    this.wake(milliseconds);
  }

  /** A run of a cell is over: ask until it is in the record, or counts as missing. */
  expect(id: string): void {
    const before = this.records.get(id)?.executionId ?? null;
    this.expected.set(id, { before, until: this.timer.now() + RECORDED_WITHIN_MS, tries: 0 });
    this.want(id, FIRST_RETRY_MS);
  }

  /** Ask about all these anew; what was known stays until there is an answer. */
  renew(ids: Iterable<string>): void {
    for (const id of ids) {
      this.wanted.add(id);
    }
    this.backOffMs = 0;
    this.wake(0);
  }

  forget(id: string): void {
    this.wanted.delete(id);
    this.expected.delete(id);
    this.records.delete(id);
    this.asked.delete(id);
    this.pending.delete(id);
    this.missing.delete(id);
  }

  dispose(): void {
    this.isDisposed = true;
    this.timer.clear(this.handle);
  }

  private wake(milliseconds: number): void {
    const at = this.timer.now() + Math.max(milliseconds, this.backOffMs);
    if (this.isDisposed || (this.handle !== null && this.wakesAt <= at)) {
      return;
    }
    this.timer.clear(this.handle);
    this.wakesAt = at;
    this.handle = this.timer.set(() => {
      this.handle = null;
      void this.askNow();
    }, at - this.timer.now());
  }

  private async askNow(): Promise<void> {
    if (this.inFlight) {
      this.isOverdue = true;
      return;
    }
    const cells = this.isDisposed ? [] : this.batch();
    if (cells.length === 0) {
      return;
    }
    this.inFlight = true;
    this.isOverdue = false;
    const others = this.wanted.size;
    let again: number;
    try {
      const answer = await this.ask(cells);
      this.backOffMs = 0;
      again = this.take(cells, answer);
      if (others > 0 || this.isOverdue) {
        again = 0;
      }
    } catch (error) {
      if (!(error instanceof ApiError)) {
        console.warn('exec-events: the marks of a notebook could not be renewed', error);
      }
      cells.forEach(cell => this.wanted.add(cell.id));
      this.backOffMs = Math.min(Math.max(2 * this.backOffMs, FIRST_BACK_OFF_MS), LAST_BACK_OFF_MS);
      again = this.backOffMs;
    }
    this.inFlight = false;
    if (this.wanted.size > 0) {
      this.wake(again);
    }
  }

  /** Some of those wanted, and no longer wanted after. */
  private batch(): ICellSource[] {
    const cells: ICellSource[] = [];
    let characters = 0;
    for (const id of this.wanted) {
      if (cells.length >= MOST_CELLS || characters >= MOST_CHARACTERS) {
        break;
      }
      this.wanted.delete(id);
      const source = this.sourceOf(id);
      if (source === null) {
        this.forget(id);
      } else {
        cells.push({ id, source });
        characters += source.length;
      }
    }
    return cells;
  }

  /** Note an answer; in how many milliseconds to ask again about those that have to wait. */
  private take(cells: ICellSource[], answer: ICellsAnswer): number {
    let again = LAST_RETRY_MS;
    for (const { id } of cells) {
      const record = answer.cells.get(id) ?? null;
      if (record === null) {
        this.records.delete(id);
      } else {
        this.records.set(id, record);
      }
      this.asked.add(id);
      const tries = this.waits(id, record, answer.pending.has(id));
      if (tries !== null) {
        this.wanted.add(id);
        again = Math.min(again, FIRST_RETRY_MS * 2 ** tries);
      }
    }
    this.changed(cells.map(cell => cell.id));
    return again;
  }

  /** How often a cell was asked about that has to wait for its record, null where it does not. */
  private waits(id: string, record: ICellRecord | null, pending: boolean): number | null {
    if (pending) {
      const tries = (this.pending.get(id) ?? 0) + 1;
      this.pending.set(id, tries);
      return tries;
    }
    this.pending.delete(id);
    const expectation = this.expected.get(id);
    if (expectation === undefined) {
      if (this.missing.has(id) && record !== null && record.executionId !== this.missing.get(id)) {
        this.missing.delete(id);
      }
      return null;
    }
    if (record !== null && record.executionId !== expectation.before) {
      this.expected.delete(id);
      this.missing.delete(id);
      return null;
    }
    if (this.timer.now() < expectation.until) {
      expectation.tries += 1;
      return expectation.tries;
    }
    this.expected.delete(id);
    this.missing.set(id, expectation.before);
    return null;
  }

  private readonly wanted = new Set<string>();
  private readonly expected = new Map<string, IExpectation>();
  private readonly records = new Map<string, ICellRecord>();
  private readonly asked = new Set<string>();
  private readonly pending = new Map<string, number>();
  private readonly missing = new Map<string, string | null>();
  private handle: unknown = null;
  private wakesAt = 0;
  private backOffMs = 0;
  private inFlight = false;
  private isOverdue = false;
  private isDisposed = false;
}
