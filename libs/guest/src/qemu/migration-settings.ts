import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Schema from "effect/Schema";
import type { Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";

const Capabilities = Schema.Array(Schema.Struct({ capability: Schema.String, state: Schema.Boolean }));

const Parameters = Schema.Struct({
  "max-bandwidth": Schema.Number,
  "tls-creds": Schema.optionalKey(Schema.String),
  mode: Schema.optionalKey(Schema.String),
});

/** What a QEMU's migration is set to for a while. */
export interface MigrationSettings {
  /** Those that are on; all others are off meanwhile. */
  readonly capabilities: ReadonlySet<string>;
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** With these, QEMU sends and takes device state alone, and says when it is done. */
export const DEVICE_STATE: MigrationSettings = {
  capabilities: new Set(["x-ignore-shared", "events"]),
  parameters: {},
};
/** With these, it takes a plain stream, leaves the pages alone that are not in it, and says when it is done. */
export const PLAIN_STREAM: MigrationSettings = { capabilities: new Set(["events"]), parameters: {} };

/** Sets QEMU's migration for device state only, for work that is bracketed by somebody else. */
export const setForDeviceState = (qmp: Qmp): Effect.Effect<ChangeBack, QmpError> => changeSettings(qmp, DEVICE_STATE);

/** How the settings of before are put back once the work has succeeded: at once, or by somebody whom nobody waits for. */
export type PutBack = (changeBack: ChangeBack) => Effect.Effect<void>;

/**
 * Puts back afterwards what was set before: the guest goes on living in this QEMU, and an operator's own `migrate` with
 * x-ignore-shared left on would lose its RAM without a word. What cannot be put back (QEMU has ended meanwhile) is logged.
 */
export const withMigrationSettings = <A, E, R>(
  qmp: Qmp,
  settings: MigrationSettings,
  work: Effect.Effect<A, E, R>,
  putBack: PutBack = (changeBack) => changeBack(qmp),
): Effect.Effect<A, E | QmpError, R> =>
  Effect.acquireUseRelease(
    changeSettings(qmp, settings),
    () => work,
    // Where the work has failed, somebody may try again at once, who must find what was set before and not what was changed.
    (changeBack, exit) => (Exit.isSuccess(exit) ? putBack(changeBack) : changeBack(qmp)),
  );

/** Changes them back; the connection may be another one. */
export type ChangeBack = (qmp: Qmp) => Effect.Effect<void>;

/** For work that outlasts a connection to the monitor. */
export const changeSettings = (qmp: Qmp, settings: MigrationSettings): Effect.Effect<ChangeBack, QmpError> =>
  Effect.gen(function* () {
    const before = yield* qmp.execute("query-migrate-capabilities", Capabilities);
    const changed = before.filter(({ capability, state }) => settings.capabilities.has(capability) !== state);
    const parameters = yield* qmp.execute("query-migrate-parameters", Parameters);

    yield* setCapabilities(
      qmp,
      changed.map(({ capability, state }) => ({ capability, state: !state })),
    );
    yield* setParameters(qmp, {
      // Unlimited: the guest stands still, and the socket leads to a process of this host.
      "max-bandwidth": 0,
      ...(parameters["tls-creds"] ? { "tls-creds": "" } : {}),
      ...(parameters.mode === undefined || parameters.mode === "normal" ? {} : { mode: "normal" }),
      ...settings.parameters,
    }).pipe(Effect.onError(() => Effect.ignore(setCapabilities(qmp, changed))));
    return (later) =>
      setParameters(later, parameters).pipe(
        Effect.andThen(setCapabilities(later, changed)),
        Effect.catch((error) => Effect.logWarning(`migration settings stay changed: ${error.message}`)),
      );
  });

const setCapabilities = (qmp: Qmp, capabilities: typeof Capabilities.Type): Effect.Effect<void, QmpError> =>
  capabilities.length === 0
    ? Effect.void
    : Effect.asVoid(qmp.execute("migrate-set-capabilities", Schema.Unknown, { capabilities }));

const setParameters = (qmp: Qmp, values: Record<string, unknown>): Effect.Effect<void, QmpError> =>
  Effect.asVoid(qmp.execute("migrate-set-parameters", Schema.Unknown, values));
