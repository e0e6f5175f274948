import type { SimNetwork } from "./network.ts";

/** Values a key has had that a stale read may still show. */
const HISTORY_KEPT = 4;

/** As `CasOutcome` of the fabric. */
export type SimCasOutcome =
  | { readonly _tag: "Won"; readonly revision: number }
  | { readonly _tag: "Lost" }
  | { readonly _tag: "Unknown"; readonly reason: string };

export interface SimEntry {
  readonly value: unknown;
  readonly revision: number;
}

/** `Failed`: no answer in time. */
export type SimRead<A> =
  | { readonly _tag: "Read"; readonly found: A }
  | { readonly _tag: "Failed"; readonly reason: string };

const LOST: SimCasOutcome = { _tag: "Lost" };

/**
 * A bucket of linearizable registers, and the server that holds it: an actor named `register:<name>`, so that it can be paused,
 * partitioned from others or disconnected like them. It never forgets, so it is not crashed.
 *
 * Writes take effect where they land. An answer that is lost, or a landing after the author's timeout, is `Unknown` to the
 * author, dead or alive: also a crashed author's write still lands.
 */
export class SimRegister {
  readonly actor: string;
  readonly #network: SimNetwork;
  readonly #timeoutMs: number;
  readonly #histories = new Map<string, Array<SimEntry>>();
  #lastRevision = 0;

  constructor(network: SimNetwork, name: string, timeoutMs: number) {
    this.#network = network;
    this.#timeoutMs = timeoutMs;
    this.actor = `register:${name}`;
  }

  /** `revision` 0 creates the key. */
  compareAndSet(
    author: string,
    key: string,
    value: unknown,
    revision: number,
    settled: (outcome: SimCasOutcome) => void,
  ): void {
    const network = this.#network;
    const { register } = network.faults;
    const late = register.lateWriteRate > 0 && network.random() < register.lateWriteRate;
    if (late) network.counters.lateWrites++;
    network.ask(
      author,
      this.actor,
      () => {
        const outcome = this.#land(key, value, revision);
        network.trace("write", this.actor, `${key} ${outcome._tag}`);
        if (register.lostAnswerRate === 0 || network.random() >= register.lostAnswerRate) return outcome;
        network.counters.lostAnswers++;
        return undefined;
      },
      { timeoutMs: this.#timeoutMs, lateMs: late ? network.random() * register.lateMs : 0 },
      (outcome) => settled(outcome ?? { _tag: "Unknown", reason: `no answer within ${this.#timeoutMs} ms` }),
    );
  }

  /** The entry, or null when there is none; possibly an old one. */
  get(reader: string, key: string, settled: (read: SimRead<SimEntry | null>) => void): void {
    this.#read(reader, () => this.#stale(this.#histories.get(key)), settled);
  }

  keys(reader: string, settled: (read: SimRead<ReadonlyArray<string>>) => void): void {
    this.#read(reader, () => [...this.#histories.keys()], settled);
  }

  /** What is really there, for the checks of a simulation; actors cannot see this. */
  truth(key: string): SimEntry | null {
    return this.#histories.get(key)?.at(-1) ?? null;
  }

  #read<A>(reader: string, look: () => A, settled: (read: SimRead<A>) => void): void {
    this.#network.ask<SimRead<A>>(
      reader,
      this.actor,
      () => ({ _tag: "Read", found: look() }),
      { timeoutMs: this.#timeoutMs, lateMs: 0 },
      (read) => settled(read ?? { _tag: "Failed", reason: `no answer within ${this.#timeoutMs} ms` }),
    );
  }

  #stale(history: ReadonlyArray<SimEntry> | undefined): SimEntry | null {
    const last = history?.at(-1);
    if (history === undefined || last === undefined) return null;
    const { staleReadRate } = this.#network.faults.register;
    if (staleReadRate === 0 || this.#network.random() >= staleReadRate) return last;
    this.#network.counters.staleReads++;
    return history[Math.floor(this.#network.random() * history.length)] ?? last;
  }

  #land(key: string, value: unknown, revision: number): SimCasOutcome {
    const history = this.#histories.get(key) ?? [];
    if ((history.at(-1)?.revision ?? 0) !== revision) return LOST;
    this.#lastRevision++;
    history.push({ value, revision: this.#lastRevision });
    if (history.length > HISTORY_KEPT) history.shift();
    this.#histories.set(key, history);
    return { _tag: "Won", revision: this.#lastRevision };
  }
}
