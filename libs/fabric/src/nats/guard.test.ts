import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { startTestNats } from "../conformance/nats-world.ts";
import { guarded } from "./guard.ts";

it("a guarded callback that throws does not deafen its connection, as a bare one does", async () => {
  const { server, close } = await startTestNats();
  const nc = await connect({ servers: server.url });
  const publisher = await connect({ servers: server.url });
  try {
    const thrown: Array<unknown> = [];
    const throws = () => {
      throw new Error("a bug");
    };
    const heard: Array<string> = [];
    let ring = () => {};
    nc.subscribe("hear", {
      callback: (_error, message) => {
        heard.push(message.string());
        ring();
      },
    });
    nc.subscribe("guarded", { callback: guarded(throws, (error) => thrown.push(error)) });
    nc.subscribe("bare", { callback: throws });
    await nc.flush();

    const arrived = new Promise<void>((resolve) => {
      ring = resolve;
    });
    publisher.publish("guarded");
    publisher.publish("hear", "after the guarded one");
    await arrived;
    expect(thrown).toHaveLength(1);

    publisher.publish("bare");
    publisher.publish("hear", "after the bare one");
    await publisher.flush();
    const deaf = await Promise.race([
      nc.flush().then(() => "hears"),
      new Promise((resolve) => setTimeout(() => resolve("deaf"), 300)),
    ]);
    expect(deaf).toBe("deaf");
    expect(heard).toEqual(["after the guarded one"]);
  } finally {
    await Promise.all([nc.close(), publisher.close()]);
    await close();
  }
});
