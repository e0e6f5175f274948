import { isCut, makeActor, type SimActor } from "./actor.ts";
import { noCounts, type SimCounters } from "./counters.ts";
import { EventHeap, type Gate, type SimEvent } from "./event-heap.ts";
import { type Faults, QUIET } from "./faults.ts";
import { type Random, seededRandom } from "./random.ts";
import type { Answer } from "./subscriptions.ts";

/** `what` happened to `actor`; equal seeds give equal sequences of these. */
export type Trace = (atMs: number, what: string, actor: string, detail: string) => void;

export interface SimOptions {
  readonly seed: number;
  readonly faults?: Partial<Faults>;
  readonly trace?: Trace;
}

/**
 * Time, actors and what can happen to both: many actors, one thread, virtual time. A run is a function of the seed. `step`
 * takes the earliest event and lets it happen; nothing else makes time pass.
 *
 * Actors are named by strings and exist, alive, from their first mention. What a callback throws leaves `step`: a bug in what
 * is being simulated must be seen.
 */
export class SimWorld {
  readonly counters: SimCounters = noCounts();
  /** May be changed at any time; `quiet()` ends all faults, so that a run can show that everything settles. */
  faults: Faults;
  /** For the choices of whatever is simulated, so that they too follow from the seed. */
  readonly random: Random;

  readonly #trace: Trace | undefined;
  readonly #heap = new EventHeap();
  readonly #actors = new Map<string, SimActor>();
  #nowMs = 0;
  #order = 0;

  constructor(options: SimOptions) {
    this.random = seededRandom(options.seed);
    this.faults = structuredClone({ ...QUIET, ...options.faults });
    this.#trace = options.trace;
  }

  /** Virtual time, ms. */
  now(): number {
    return this.#nowMs;
  }

  /** Lets the earliest event happen; false when there is none. */
  step(): boolean {
    const event = this.#heap.pop();
    if (event === undefined) return false;
    this.#nowMs = event.atMs;
    this.counters.events++;
    const { actor } = event;
    if (actor === null) event.run(event.argument, event.subject, event.answer);
    else if (actor.life === event.life && actor.alive) this.#happen(event, actor);
    return true;
  }

  /**
   * Steps until nothing is left, `untilMs` is reached (time then is `untilMs`) or `events` have happened; returns their number.
   * `check` is called after every step.
   */
  run(limits: { readonly untilMs?: number; readonly events?: number; readonly check?: () => void } = {}): number {
    const { untilMs = Number.POSITIVE_INFINITY, events = Number.POSITIVE_INFINITY, check } = limits;
    let count = 0;
    for (; count < events; count++) {
      const next = this.#heap.earliest();
      if (next === undefined || next.atMs > untilMs) {
        if (untilMs !== Number.POSITIVE_INFINITY) this.#nowMs = Math.max(this.#nowMs, untilMs);
        break;
      }
      this.step();
      check?.();
    }
    return count;
  }

  /** Calls back once after `delayMs`; held while the actor is paused, forgotten when it crashes. Returns how to cancel it. */
  timer(actor: string, delayMs: number, callback: () => void): () => void {
    const gate: Gate = { open: true };
    const owner = this.actor(actor);
    if (owner.alive) this.schedule(delayMs, owner, null, gate, callback);
    return () => {
      gate.open = false;
    };
  }

  /** Calls back after `delayMs`, whatever becomes of the actors: for the one who makes the faults. Returns how to cancel it. */
  after(delayMs: number, callback: () => void): () => void {
    const gate: Gate = { open: true };
    this.schedule(delayMs, null, null, null, () => {
      if (gate.open) callback();
    });
    return () => {
      gate.open = false;
    };
  }

  /** Runs `boot` now, and again after each crash with a restart. An actor that has crashed lives again. */
  start(actor: string, boot: () => void = () => {}): void {
    const owner = this.actor(actor);
    owner.boot = boot;
    this.#boot(owner);
  }

  /** Forgets the actor's subscriptions, timers and everything on its way to it; what it has sent still arrives. */
  crash(actor: string, restartAfterMs?: number): void {
    const owner = this.actor(actor);
    if (!owner.alive) return;
    this.counters.crashes++;
    this.trace("crash", actor, "");
    for (const release of owner.releases) release();
    owner.releases.clear();
    owner.linkListeners.clear();
    owner.held.length = 0;
    owner.alive = false;
    owner.paused = false;
    owner.life++;
    if (restartAfterMs !== undefined) {
      const { life } = owner;
      this.after(restartAfterMs, () => {
        if (owner.life === life) this.#boot(owner);
      });
    }
  }

  /** Messages and timers wait until `resume`, as for a process that is stopped; its writes on their way land. */
  pause(actor: string, forMs?: number): void {
    const owner = this.actor(actor);
    if (!owner.alive || owner.paused) return;
    this.counters.pauses++;
    this.trace("pause", actor, "");
    owner.paused = true;
    const { life } = owner;
    if (forMs !== undefined) {
      this.after(forMs, () => {
        if (owner.life === life) this.resume(actor);
      });
    }
  }

  resume(actor: string): void {
    const owner = this.actor(actor);
    if (!owner.paused) return;
    this.trace("resume", actor, "");
    owner.paused = false;
    const held = owner.held.splice(0);
    for (const event of held) this.#heap.push({ ...event, atMs: this.#nowMs, order: this.#order++ });
  }

  /** Nothing passes between the two, either way, until `heal`. A register's server has the name `register:<name>`. */
  partition(a: string, b: string, forMs?: number): void {
    const [one, other] = [this.actor(a), this.actor(b)];
    one.cutFrom.add(other);
    other.cutFrom.add(one);
    this.trace("partition", a, b);
    if (forMs !== undefined) this.after(forMs, () => this.heal(a, b));
  }

  heal(a: string, b: string): void {
    const [one, other] = [this.actor(a), this.actor(b)];
    one.cutFrom.delete(other);
    other.cutFrom.delete(one);
    this.trace("heal", a, b);
  }

  /** Cuts the actor from everybody and tells its link listeners. */
  disconnect(actor: string, forMs?: number): void {
    this.#link(this.actor(actor), false);
    if (forMs !== undefined) this.after(forMs, () => this.reconnect(actor));
  }

  reconnect(actor: string): void {
    this.#link(this.actor(actor), true);
  }

  isConnected(actor: string): boolean {
    const owner = this.actor(actor);
    return owner.alive && !owner.disconnected;
  }

  /** Number of the actor's life, counted from 1, or 0 while it is dead. */
  life(actor: string): number {
    const owner = this.actor(actor);
    return owner.alive ? owner.life : 0;
  }

  /** Forgotten when the actor crashes. */
  onLink(actor: string, listener: (connected: boolean) => void): () => void {
    const { linkListeners } = this.actor(actor);
    linkListeners.add(listener);
    return () => linkListeners.delete(listener);
  }

  /** No faults from now on; partitions, disconnections and pauses end. */
  quiet(): void {
    this.faults = structuredClone(QUIET);
    for (const actor of this.#actors.values()) {
      actor.cutFrom.clear();
      if (actor.disconnected) this.#link(actor, true);
      this.resume(actor.name);
    }
  }

  trace(what: string, actor: string, detail: string): void {
    this.#trace?.(this.#nowMs, what, actor, detail);
  }

  protected actor(name: string): SimActor {
    let actor = this.#actors.get(name);
    if (actor === undefined) {
      actor = makeActor(name);
      this.#actors.set(name, actor);
    }
    return actor;
  }

  #boot(owner: SimActor): void {
    owner.alive = true;
    this.trace("start", owner.name, `life ${owner.life}`);
    owner.boot?.();
  }

  #link(owner: SimActor, connected: boolean): void {
    if (owner.disconnected !== connected) return;
    owner.disconnected = !connected;
    this.trace(connected ? "connect" : "disconnect", owner.name, "");
    for (const listener of owner.linkListeners) this.schedule(0, owner, null, null, () => listener(connected));
  }

  #happen(event: SimEvent, actor: SimActor): void {
    if (actor.paused) {
      actor.held.push(event);
      return;
    }
    if (event.gate !== null && !event.gate.open) return;
    if (event.from !== null) {
      if (isCut(event.from, actor)) {
        this.counters.cut++;
        return;
      }
      this.counters.delivered++;
      if (this.#trace !== undefined) this.trace("deliver", actor.name, `${event.subject} from ${event.from.name}`);
    }
    event.run(event.argument, event.subject, event.answer);
  }

  protected delay(): number {
    const { min, max } = this.faults.delayMs;
    return min + this.random() * (max - min);
  }

  /** One message on its way from one actor to another, with the faults of the moment. */
  protected carry(
    from: SimActor,
    to: SimActor,
    gate: Gate,
    run: SimEvent["run"],
    argument: unknown,
    subject: string,
    answer?: Answer,
  ): void {
    const { faults, random } = this;
    if (isCut(from, to)) {
      this.counters.cut++;
      return;
    }
    if (faults.dropRate > 0 && random() < faults.dropRate) {
      this.counters.dropped++;
      return;
    }
    let copies = 1;
    if (faults.duplicateRate > 0 && random() < faults.duplicateRate) {
      this.counters.duplicated++;
      copies = 2;
    }
    for (; copies > 0; copies--) {
      let atMs = this.#nowMs + this.delay();
      if (faults.reorderRate > 0 && random() < faults.reorderRate) {
        this.counters.reordered++;
        atMs += random() * faults.reorderMs;
      } else {
        const last = to.lastArrivalMs.get(from) ?? 0;
        if (atMs < last) atMs = last;
        to.lastArrivalMs.set(from, atMs);
      }
      this.#heap.push({
        atMs,
        order: this.#order++,
        actor: to,
        life: to.life,
        from,
        gate,
        run,
        argument,
        subject,
        answer,
      });
    }
  }

  protected schedule(
    delayMs: number,
    actor: SimActor | null,
    from: SimActor | null,
    gate: Gate | null,
    run: () => void,
  ): void {
    this.#heap.push({
      atMs: this.#nowMs + Math.max(0, delayMs),
      order: this.#order++,
      actor,
      life: actor?.life ?? 0,
      from,
      gate,
      run,
      argument: undefined,
      subject: "",
      answer: undefined,
    });
  }
}
