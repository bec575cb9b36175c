/**
 * Things to send, one at a time, with a pause between them; what is too much, or does not go, is dropped.
 */

const MOST_WAITING = 100;
const PAUSE_MS = 250;
const PAUSE_AFTER_FAILURE_MS = 30_000;

export class Outbox<T> {
  constructor(
    private readonly send: (thing: T) => Promise<void>,
    private readonly after: (run: () => void, milliseconds: number) => unknown
  ) {}

  put(thing: T): void {
    if (this.waiting.length < MOST_WAITING) {
      this.waiting.push(thing);
    }
    if (!this.isBusy) {
      this.isBusy = true;
      void this.sendNext();
    }
  }

  private async sendNext(): Promise<void> {
    const thing = this.waiting.shift();
    if (thing === undefined) {
      this.isBusy = false;
      return;
    }
    let pause = PAUSE_MS;
    try {
      await this.send(thing);
    } catch {
      // The server refused it, or is away. None of it is worth a second try, nor a word to the user.
      this.waiting.length = 0;
      pause = PAUSE_AFTER_FAILURE_MS;
    }
    this.after(() => void this.sendNext(), pause);
  }

  private readonly waiting: T[] = [];
  private isBusy = false;
}
