/** The options by which commands find NATS, and the fabric they talk on. */
import { DEFAULT_NATS, tlsOf } from "@godwit/actor";
import { type Fabric, type FabricError, NatsFabric, type NatsOptions } from "@godwit/fabric";
import { GodwitError, REMEDIES } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import { name, text, textOr, type Values } from "./arguments/option.ts";

export const natsOptions = {
  nats: textOr("URLS", DEFAULT_NATS, "NATS servers, separated by commas; nats://user:password@host:port"),
  creds: text("PATH", "credentials file for NATS, or a folder with one for each role"),
  "js-domain": name("DOMAIN", "JetStream domain that keeps the buckets, where NATS is reached through a leaf node"),
  tlsca: text("FILE", "authority of the NATS servers' certificates", { variable: "GODWIT_TLS_CA" }),
  tlscert: text("FILE", "certificate for NATS servers that ask for one", { variable: "GODWIT_TLS_CERT" }),
  tlskey: text("FILE", "its private key", { variable: "GODWIT_TLS_KEY" }),
} as const;
export type NatsValues = Values<typeof natsOptions>;

/** Where servers tell what clients are not told, for the commands of NATS's admin. */
export const monitorOption = text(
  "URLS",
  "monitoring ports of the NATS servers, separated by commas: http://host:8222",
);

const isCode = (code: string): code is GodwitError["code"] => Object.hasOwn(REMEDIES, code);

/** An error of the fabric as one that can be shown. */
export const fromFabric = (error: FabricError): GodwitError =>
  new GodwitError({
    code: isCode(error.code) ? error.code : "nats-unreachable",
    actor: "cli",
    step: error.operation,
    reason: error.reason,
  });

/** `role`: which credentials of a folder. */
export const connectionOf = (values: NatsValues, client: string, role = "operator"): NatsOptions => ({
  servers: values.nats,
  name: client,
  role,
  ...(values.creds === null ? {} : { creds: values.creds }),
  ...(values["js-domain"] === null ? {} : { jsDomain: values["js-domain"] }),
  ...tlsOf(values.tlsca, values.tlscert, values.tlskey),
});

/** The same for the actors that a command starts. */
export const accessOf = (values: NatsValues) => ({
  nats: values.nats,
  creds: values.creds ?? undefined,
  jsDomain: values["js-domain"] ?? undefined,
  ...tlsOf(values.tlsca, values.tlscert, values.tlskey),
});

export const fabricLayer = (values: NatsValues, name: string, role?: string): Layer.Layer<Fabric, GodwitError> =>
  NatsFabric.layer(connectionOf(values, name, role)).pipe((layer) =>
    Layer.catch(layer, (error) => Layer.effectContext(Effect.fail(fromFabric(error)))),
  );

/** Runs a request on NATS; of the fabric's own log, warnings and errors go to stderr. */
export const onNats = <A>(
  values: NatsValues,
  work: Effect.Effect<A, GodwitError, Fabric>,
): Effect.Effect<A, GodwitError> =>
  work.pipe(
    Effect.provide(fabricLayer(values, "godwit cli")),
    Effect.provide(Telemetry.layer({ actor: "cli", node: "-", level: "warn" })),
  );
