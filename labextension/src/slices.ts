/**
 * Work on many cells, done when the page has nothing better to do, in slices so short that it stays at hand.
 */

const SLICE_MS = 4;
/** A page that is busy all the time gets its slices too. */
const AT_LATEST_MS = 500;

export class Slices {
  constructor(private readonly work: (id: string) => void) {}

  /** Do the work for these soon, once each; all of it has to be done when `work` returns. */
  add(ids: Iterable<string>): void {
    for (const id of ids) {
      this.waiting.add(id);
    }
    if (this.cancel === null && this.waiting.size > 0) {
      this.cancel = whenIdle(() => this.run());
    }
  }

  dispose(): void {
    this.waiting.clear();
    this.cancel?.();
    this.cancel = null;
  }

  private run(): void {
    this.cancel = null;
    const until = performance.now() + SLICE_MS;
    for (const id of this.waiting) {
      this.waiting.delete(id);
      try {
        this.work(id);
      } catch (error) {
        console.warn('exec-events: a mark could not be shown', error);
      }
      if (performance.now() > until) {
        break;
      }
    }
    this.add([]);
  }

  private readonly waiting = new Set<string>();
  private cancel: (() => void) | null = null;
}

/** Run this once, when the page is idle; Safari cannot say when that is. */
function whenIdle(run: () => void): () => void {
  if (typeof window.requestIdleCallback === 'function') {
    const handle = window.requestIdleCallback(run, { timeout: AT_LATEST_MS });
    return () => window.cancelIdleCallback(handle);
  }
  const handle = window.setTimeout(run, 0);
  return () => window.clearTimeout(handle);
}
