import { isCut } from "./actor.ts";
import type { Gate, SimEvent } from "./event-heap.ts";
import { SimRegister } from "./register.ts";
import { type Answer, type Receive, type SimSubscription, Subscriptions } from "./subscriptions.ts";
import { type SimOptions, SimWorld } from "./world.ts";

/** How long an operation on a register waits for its answer, ms. */
const REGISTER_TIMEOUT_MS = 500;

export type SimReply =
  | { readonly _tag: "Answer"; readonly payload: unknown }
  | { readonly _tag: "NoResponders" }
  | { readonly _tag: "Timeout" };

/** A connection of one actor to another. */
export interface SimStream {
  /** On its way in order, once; lost when the connection breaks before it arrives. */
  readonly send: (subject: string, payload: unknown) => void;
  /** What has not arrived is lost. */
  readonly cut: () => void;
}

/** What actors of a simulated world say to each other. Payloads are handed over as they are, not copied. */
export class SimNetwork extends SimWorld {
  readonly #registers = new Map<string, SimRegister>();
  readonly #subscriptions: Subscriptions;

  constructor(options: SimOptions) {
    super(options);
    this.#subscriptions = new Subscriptions(this.random);
  }

  /** Messages on `subject`, which may be a pattern, until the returned function is called or the actor crashes. */
  subscribe(actor: string, subject: string, receive: Receive, options: { readonly queue?: string } = {}): () => void {
    const owner = this.actor(actor);
    const subscription: SimSubscription = {
      actor: owner,
      subject,
      queue: options.queue ?? "",
      receive,
      gate: { open: owner.alive },
    };
    if (!owner.alive) return () => {};
    const release = () => {
      owner.releases.delete(release);
      this.#subscriptions.remove(subscription);
    };
    owner.releases.add(release);
    this.#subscriptions.add(subscription);
    return release;
  }

  /** To all who subscribe now. */
  send(from: string, subject: string, payload: unknown): void {
    const sender = this.actor(from);
    if (!sender.alive) return;
    for (const subscription of this.#subscriptions.receivers(subject)) {
      this.carry(
        sender,
        subscription.actor,
        subscription.gate,
        subscription.receive as SimEvent["run"],
        payload,
        subject,
      );
    }
  }

  /**
   * A connection between the present lives of two actors. What is sent comes to what the receiver has subscribed, in order and once, until
   * the connection breaks: by `cut`, by the faults of the moment, when the receiver crashes, or when something cannot pass between the two. Who sends is told of it
   * some time later, `noticeMs` at most, and loses until then whatever it sends, as into the memory of a socket.
   */
  stream(from: string, to: string, noticeMs: number, broken: () => void): SimStream {
    const [sender, receiver] = [this.actor(from), this.actor(to)];
    const { life } = receiver;
    const gate: Gate = { open: true };
    let lastMs = 0;
    const cut = () => {
      if (!gate.open) return;
      gate.open = false;
      this.counters.streamsBroken++;
      this.timer(from, this.random() * noticeMs, broken);
    };
    return {
      cut,
      send: (subject, payload) => {
        if (!sender.alive || !gate.open) return;
        if (!receiver.alive || receiver.life !== life) return cut();
        if (this.faults.breakRate > 0 && this.random() < this.faults.breakRate) return cut();
        lastMs = Math.max(lastMs, this.now() + this.delay());
        this.schedule(lastMs - this.now(), receiver, null, gate, () => {
          if (isCut(sender, receiver)) return cut();
          for (const each of this.#subscriptions.receivers(subject))
            if (each.actor === receiver) each.receive(payload, subject, undefined);
        });
      },
    };
  }

  /** Settles once: with the first answer, at once when nobody subscribes, or after `timeoutMs`. */
  request(from: string, subject: string, payload: unknown, timeoutMs: number, settle: (reply: SimReply) => void): void {
    const sender = this.actor(from);
    if (!sender.alive) return;
    const gate: Gate = { open: true };
    const settled = (reply: SimReply) => {
      gate.open = false;
      settle(reply);
    };
    this.schedule(timeoutMs, sender, null, gate, () => settled({ _tag: "Timeout" }));
    // A sender without a link cannot even be told that nobody subscribes.
    if (sender.disconnected) return;
    const receivers = this.#subscriptions.receivers(subject);
    if (receivers.length === 0) {
      this.schedule(this.delay(), sender, null, gate, () => settled({ _tag: "NoResponders" }));
    }
    for (const { actor, gate: alive, receive } of receivers) {
      const life = sender.life;
      const answer: Answer = (reply) => {
        if (sender.life !== life) return;
        this.carry(actor, sender, gate, () => settled({ _tag: "Answer", payload: reply }), undefined, subject);
      };
      this.carry(sender, actor, alive, receive as SimEvent["run"], payload, subject, answer);
    }
  }

  /** The bucket of this name; all actors share it. */
  register(name: string): SimRegister {
    let register = this.#registers.get(name);
    if (register === undefined) {
      register = new SimRegister(this, name, REGISTER_TIMEOUT_MS);
      this.#registers.set(name, register);
    }
    return register;
  }

  /**
   * A request to an actor that is part of the network itself, such as a register's server: `work` runs there when the request
   * lands, `settle` gets its result, or undefined when none came within `timeoutMs`. `work` may run after that.
   */
  ask<A>(
    from: string,
    to: string,
    work: () => A | undefined,
    options: { readonly timeoutMs: number; readonly lateMs: number },
    settle: (result: A | undefined) => void,
  ): void {
    const [asker, server] = [this.actor(from), this.actor(to)];
    if (!asker.alive) return;
    const gate: Gate = { open: true };
    const settled = (result: A | undefined) => {
      gate.open = false;
      settle(result);
    };
    this.schedule(options.timeoutMs, asker, null, gate, () => settled(undefined));
    if (isCut(asker, server)) {
      this.counters.cut++;
      return;
    }
    const { life } = asker;
    this.schedule(this.delay() + options.lateMs, server, asker, null, () => {
      const result = work();
      if (result === undefined || asker.life !== life) return;
      this.schedule(this.delay(), asker, server, gate, () => settled(result));
    });
  }
}
