/** What the two agents have in common: a process with a number, an alarm, and a state machine that it feeds. */
import { must } from "./violation.ts";
import type { World } from "./world.ts";

/** Wakes at one and the same time: more of them, and the process does nothing else any more. */
const WAKES_AT_ONCE_MAX = 3;

export abstract class Process<E> {
  readonly world: World;
  incarnation: string;
  private lives = 0;
  private due = Number.POSITIVE_INFINITY;
  private wakeAt = 0;
  private wakes = 0;

  constructor(world: World, name: string) {
    this.world = world;
    this.incarnation = `${name}0`.padStart(16, "0");
  }

  /** Whether this is still the life in which something was begun. */
  protected inThisLife(run: () => void): () => void {
    const { lives } = this;
    return () => {
      if (lives === this.lives) run();
    };
  }

  /** Only the life that asked gets the answer. */
  protected answering(): (event: E) => void {
    const { lives } = this;
    return (event) => {
      if (lives === this.lives) this.dispatch(event);
    };
  }

  restart(): void {
    this.lives++;
    if (!this.world.breaks("a restarted agent goes on with a session it does not know"))
      this.incarnation = `${this.incarnation.slice(0, -1)}${this.lives}`;
    this.due = Number.POSITIVE_INFINITY;
    this.forget();
  }

  protected alarm(wanted: number): void {
    must(wanted >= this.world.now, "a wake in the past");
    // Clocks and timers count in whole ms.
    const at = Math.ceil(wanted);
    if (at >= this.due) return;
    this.due = at;
    this.world.timeline.after(
      at - this.world.now,
      this.inThisLife(() => {
        if (this.due !== at) return;
        this.due = Number.POSITIVE_INFINITY;
        this.wakes = this.wakeAt === this.world.now ? this.wakes + 1 : 1;
        this.wakeAt = this.world.now;
        must(this.wakes <= WAKES_AT_ONCE_MAX, "it wakes again and again at the same time");
        this.dispatch({ _tag: "Tick" } as E);
      }),
    );
  }

  abstract dispatch(event: E): void;
  protected abstract forget(): void;
}
