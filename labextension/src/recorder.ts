/**
 * What the page knows of the recorder: asked for at the start, now and then, and when an event says that something is new.
 */

import type { Event } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Api, ApiError, Trouble } from './api';
import type { IPolicy } from './contract';
import type { ISite } from './marks';

export const SCHEMAS = 'https://exec-events.org/schemas/';

const POLL_MS = 10_000;
const LAST_BACK_OFF_MS = 300_000;

export class Recorder implements IDisposable, ISite {
  constructor(
    readonly api: Api,
    private readonly stream: Event.Stream
  ) {
    this.poll = new Poll({
      name: 'exec-events:policy',
      auto: false,
      factory: () => this.ask(),
      frequency: { interval: POLL_MS, backoff: 2, max: LAST_BACK_OFF_MS },
      standby: 'when-hidden'
    });
    this.ready = new Promise(resolve => {
      this.isReady = resolve;
    });
    stream.connect(this.onEvent, this);
  }

  /** What the server does now; null before the first answer. */
  policy: IPolicy | null = null;
  /** How many events are in the server's spool. */
  spooled = 0;
  /** What is in the way of asking it. */
  trouble: Trouble | null = null;

  /** There was an answer, or it is known why not. */
  readonly ready: Promise<void>;

  /** The policy or the trouble is another one. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** There is a new event; of this cell, where it names one. */
  get recorded(): ISignal<this, string | null> {
    return this._recorded;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this.stream.disconnect(this.onEvent, this);
      this.poll.dispose();
      Signal.clearData(this);
    }
  }

  /** Ask for the policy now; it never rejects. */
  async refresh(): Promise<void> {
    try {
      await this.ask();
    } catch {
      // Noted as trouble, and the poll asks again.
    }
  }

  start(): void {
    void this.poll.start();
  }

  private async ask(): Promise<void> {
    try {
      const policy = await this.api.policy();
      const spooled = await this.api.spooled().catch(() => this.spooled);
      this.set(policy, null, spooled);
    } catch (error) {
      const trouble = error instanceof ApiError ? error.trouble : 'unreachable';
      if (trouble === 'absent' && this.policy === null) {
        // A server without the recorder: nothing is shown, and nothing is asked any more.
        void this.poll.stop();
        this.set(null, 'absent');
        return;
      }
      this.set(this.policy, trouble === 'absent' ? 'unreachable' : trouble);
      throw error;
    }
  }

  private set(policy: IPolicy | null, trouble: Trouble | null, spooled = this.spooled): void {
    const before = JSON.stringify([this.policy, this.trouble, this.spooled]);
    this.policy = policy;
    this.trouble = trouble;
    this.spooled = spooled;
    this.isReady();
    if (JSON.stringify([policy, trouble, spooled]) !== before) {
      this._changed.emit();
    }
  }

  private onEvent(_: unknown, emission: Event.Emission): void {
    if (this.policy === null || !String(emission.schema_id).startsWith(SCHEMAS)) {
      return;
    }
    const cell = emission.cell_id;
    this._recorded.emit(typeof cell === 'string' ? cell : null);
  }

  private readonly poll: Poll;
  private isReady: () => void = () => undefined;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _recorded = new Signal<this, string | null>(this);
  private _isDisposed = false;
}
