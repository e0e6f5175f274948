/** The options by which commands find NATS, and the fabric they talk on. */
import { DEFAULT_NATS } from "@godwit/actor";
import { type Fabric, type FabricError, NatsFabric, type NatsOptions } from "@godwit/fabric";
import { GodwitError, REMEDIES } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import { name, text, textOr, type Values } from "./arguments/option.ts";

export const natsOptions = {
  nats: textOr("URLS", DEFAULT_NATS, "NATS servers, separated by commas; nats://user:password@host:port"),
  creds: text("FILE", "credentials file for NATS"),
  "js-domain": name("DOMAIN", "JetStream domain that keeps the buckets, where NATS is reached through a leaf node"),
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

export const connectionOf = ({ nats, creds, "js-domain": jsDomain }: NatsValues, client: string): NatsOptions => ({
  servers: nats,
  name: client,
  ...(creds === null ? {} : { creds }),
  ...(jsDomain === null ? {} : { jsDomain }),
});

export const fabricLayer = (values: NatsValues, name: string): Layer.Layer<Fabric, GodwitError> =>
  NatsFabric.layer(connectionOf(values, name)).pipe((layer) =>
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
