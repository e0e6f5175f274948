/** What happens next: a plain loop over virtual time, ms. What is due at the same time happens in the order in which it was put there. */
export class Timeline {
  now = 0;
  private due: { readonly at: number; readonly order: number; readonly run: () => void }[] = [];
  private order = 0;

  after(ms: number, run: () => void): void {
    const entry = { at: this.now + Math.max(0, ms), order: this.order++, run };
    let index = this.due.length;
    while (index > 0 && this.due[index - 1]!.at > entry.at) index--;
    this.due.splice(index, 0, entry);
  }

  /** Runs until nothing is due, `isOver` holds, or `until` is reached; whether it is over. */
  run(until: number, isOver: () => boolean): boolean {
    for (let next = this.due.shift(); next !== undefined && next.at <= until; next = this.due.shift()) {
      this.now = next.at;
      next.run();
      if (isOver()) return true;
    }
    return isOver();
  }
}
