/**
 * The recorder's REST routes: each call ends within a bound, with a value of the contract or an ApiError.
 */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import {
  cellsOf,
  eventsOf,
  ICellsAnswer,
  IPolicy,
  ISealedEvent,
  IVerification,
  policyOf,
  spooledOf,
  verificationOf
} from './contract';

const ROOT = 'exec-events';
const ANSWER_MS = 10_000;
const VERIFY_MS = 120_000;

/** absent: this server has no such route. refused: it has, and said no. unreachable: anything else. */
export type Trouble = 'absent' | 'refused' | 'unreachable';

export class ApiError extends Error {
  constructor(
    readonly trouble: Trouble,
    message: string
  ) {
    super(message);
  }
}

export interface ICellSource {
  id: string;
  source: string;
}

export class Api {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  async policy(): Promise<IPolicy> {
    return this.call('GET', 'policy', policyOf);
  }

  /** How many events are in this server's spool. */
  async spooled(): Promise<number> {
    return this.call('GET', 'status', spooledOf);
  }

  async cells(path: string, cells: ICellSource[]): Promise<ICellsAnswer> {
    return this.call('POST', 'cells', cellsOf, { path, cells });
  }

  async events(limit: number): Promise<ISealedEvent[]> {
    return this.call('GET', `events?limit=${limit}`, eventsOf);
  }

  async verify(path: string, notebook: unknown): Promise<IVerification> {
    return this.call('POST', 'verify', verificationOf, { path, notebook }, VERIFY_MS);
  }

  async giveConsent(version: string): Promise<void> {
    await this.call('PUT', 'consent', () => undefined, { version });
  }

  async withdrawConsent(): Promise<void> {
    await this.call('DELETE', 'consent', () => undefined);
  }

  private async call<T>(
    method: string,
    route: string,
    read: (answer: unknown) => T,
    body?: unknown,
    milliseconds = ANSWER_MS
  ): Promise<T> {
    const url = URLExt.join(this.settings.baseUrl, ROOT) + `/${route}`;
    const init: RequestInit = {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(milliseconds)
    };
    let response: Response;
    let answer: unknown;
    try {
      response = await ServerConnection.makeRequest(url, init, this.settings);
      answer = await response.json().catch(() => null);
    } catch (error) {
      throw new ApiError('unreachable', String(error));
    }
    if (!response.ok) {
      const message = (answer as { message?: unknown } | null)?.message;
      throw new ApiError(
        troubleOf(response.status),
        typeof message === 'string' ? message : `${response.status} ${response.statusText}`
      );
    }
    try {
      return read(answer);
    } catch (error) {
      throw new ApiError('unreachable', String(error));
    }
  }
}

function troubleOf(status: number): Trouble {
  if (status === 404) {
    return 'absent';
  }
  return status >= 400 && status < 500 ? 'refused' : 'unreachable';
}
