import { isPattern, matchesSubject } from "../subject.ts";
import type { SimActor } from "./actor.ts";
import type { Gate } from "./event-heap.ts";
import type { Random } from "./random.ts";

/** Answers a request; absent for a plain message. The first answer counts. */
export type Answer = (payload: unknown) => void;
export type Receive = (payload: unknown, subject: string, answer: Answer | undefined) => void;

export interface SimSubscription {
  readonly actor: SimActor;
  readonly subject: string;
  /** Members of a queue share its messages; empty: no queue. */
  readonly queue: string;
  readonly receive: Receive;
  readonly gate: Gate;
}

/** Who gets what is sent on a subject: exact subjects by look-up, patterns by trying each. */
export class Subscriptions {
  readonly #exact = new Map<string, Array<SimSubscription>>();
  #patterns: Array<SimSubscription> = [];
  #queued = 0;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  add(subscription: SimSubscription): void {
    if (subscription.queue !== "") this.#queued++;
    if (isPattern(subscription.subject)) {
      this.#patterns = [...this.#patterns, subscription];
      return;
    }
    // Lists are replaced, not changed: a receiver may subscribe while `receivers` is being walked.
    const list = this.#exact.get(subscription.subject) ?? [];
    this.#exact.set(subscription.subject, [...list, subscription]);
  }

  remove(subscription: SimSubscription): void {
    if (!subscription.gate.open) return;
    subscription.gate.open = false;
    if (subscription.queue !== "") this.#queued--;
    const without = (list: ReadonlyArray<SimSubscription>) => list.filter((other) => other !== subscription);
    if (isPattern(subscription.subject)) {
      this.#patterns = without(this.#patterns);
      return;
    }
    const rest = without(this.#exact.get(subscription.subject) ?? []);
    if (rest.length > 0) this.#exact.set(subscription.subject, rest);
    else this.#exact.delete(subscription.subject);
  }

  /** In order of subscription; of each queue one member, chosen by the seed. */
  receivers(subject: string): ReadonlyArray<SimSubscription> {
    let found: ReadonlyArray<SimSubscription> = this.#exact.get(subject) ?? [];
    if (this.#patterns.length > 0) {
      const matching = this.#patterns.filter((subscription) => matchesSubject(subscription.subject, subject));
      if (matching.length > 0) found = [...found, ...matching];
    }
    return this.#queued === 0 ? found : this.#onePerQueue(found);
  }

  #onePerQueue(found: ReadonlyArray<SimSubscription>): ReadonlyArray<SimSubscription> {
    const queues = new Map<string, Array<SimSubscription>>();
    for (const subscription of found) {
      if (subscription.queue === "") continue;
      const members = queues.get(subscription.queue);
      if (members) members.push(subscription);
      else queues.set(subscription.queue, [subscription]);
    }
    const chosen = new Set<SimSubscription>();
    for (const members of queues.values()) {
      chosen.add(members[Math.floor(this.#random() * members.length)] as SimSubscription);
    }
    return found.filter((subscription) => subscription.queue === "" || chosen.has(subscription));
  }
}
