import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";

const Capabilities = Schema.Array(Schema.Struct({ capability: Schema.String, state: Schema.Boolean }));

const Parameters = Schema.Struct({
  "max-bandwidth": Schema.Number,
  "tls-creds": Schema.optionalKey(Schema.String),
  mode: Schema.optionalKey(Schema.String),
});

/** With these, QEMU sends and takes device state alone, and says when it is done. All others are off meanwhile. */
const CAPABILITIES: ReadonlySet<string> = new Set(["x-ignore-shared", "events"]);

/**
 * Runs `work` with QEMU's migration set for device state only, and puts back afterwards what was set before: the guest goes
 * on living in this QEMU, and an operator's own `migrate` with x-ignore-shared left on would lose its RAM without a word.
 * What cannot be put back (QEMU has ended meanwhile) is logged.
 */
export const withDeviceStateSettings = <A, E, R>(
  qmp: Qmp,
  work: Effect.Effect<A, E, R>,
): Effect.Effect<A, E | QmpError, R> =>
  Effect.acquireUseRelease(
    apply(qmp),
    () => work,
    (undo) =>
      undo.pipe(Effect.catch((error) => Effect.logWarning(`migration settings stay changed: ${error.message}`))),
  );

/** Changes the settings; the result changes them back. */
const apply = (qmp: Qmp): Effect.Effect<Effect.Effect<void, QmpError>, QmpError> =>
  Effect.gen(function* () {
    const before = yield* qmp.execute("query-migrate-capabilities", Capabilities);
    const changed = before.filter(({ capability, state }) => CAPABILITIES.has(capability) !== state);
    const parameters = yield* qmp.execute("query-migrate-parameters", Parameters);

    const setCapabilities = (capabilities: typeof changed) =>
      capabilities.length === 0
        ? Effect.void
        : qmp.execute("migrate-set-capabilities", Schema.Unknown, { capabilities });
    const setParameters = (values: Record<string, unknown>) =>
      qmp.execute("migrate-set-parameters", Schema.Unknown, values);

    yield* setCapabilities(changed.map(({ capability, state }) => ({ capability, state: !state })));
    const undoCapabilities = setCapabilities(changed);
    yield* setParameters({
      // Unlimited: the guest stands still, and the socket leads to a process of this host.
      "max-bandwidth": 0,
      ...(parameters["tls-creds"] ? { "tls-creds": "" } : {}),
      ...(parameters.mode === undefined || parameters.mode === "normal" ? {} : { mode: "normal" }),
    }).pipe(Effect.onError(() => Effect.ignore(undoCapabilities)));
    return Effect.andThen(setParameters(parameters), undoCapabilities).pipe(Effect.asVoid);
  });
