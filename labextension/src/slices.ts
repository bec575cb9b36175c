/**
 * Work on many cells, done in slices so short that the page stays at hand.
 */

const SLICE_MS = 4;

export class Slices {
  constructor(private readonly work: (id: string) => void) {}

  /** Do the work for these soon, once each. */
  add(ids: Iterable<string>): void {
    for (const id of ids) {
      this.waiting.add(id);
    }
    if (this.handle === null && this.waiting.size > 0) {
      this.handle = window.setTimeout(() => this.run(), 0);
    }
  }

  dispose(): void {
    this.waiting.clear();
    if (this.handle !== null) {
      window.clearTimeout(this.handle);
      this.handle = null;
    }
  }

  private run(): void {
    this.handle = null;
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
  private handle: number | null = null;
}
