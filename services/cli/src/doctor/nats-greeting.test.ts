import { createServer } from "node:net";
import { assert, describe, it } from "vitest";
import { addressOf, greet, parseGreeting } from "./nats-greeting.ts";

describe("the greeting of a NATS server", () => {
  it("is found by every form of a server's name", () => {
    assert.deepStrictEqual(["nats://u:p@h:1", "h:2", "h", "tls://[::1]:3"].map(addressOf), [
      { host: "h", port: 1 },
      { host: "h", port: 2 },
      { host: "h", port: 4222 },
      { host: "::1", port: 3 },
    ]);
  });

  it("says the version, whether there is JetStream, and which cluster it is of", () => {
    const line = 'INFO {"server_id":"N1","version":"2.12.0","jetstream":true,"cluster":"test"} \r\n';
    assert.deepStrictEqual(parseGreeting("h", line), {
      server: "h",
      version: "2.12.0",
      jetStream: true,
      serverId: "N1",
      cluster: "test",
    });
    assert.isNull(parseGreeting("h", 'INFO {"version":"2.12.0"} \r\n').cluster);
    assert.isFalse(parseGreeting("h", 'INFO {"version":"2.12.0"} \r\n').jetStream);
    assert.throws(() => parseGreeting("h", "HTTP/1.1 400 Bad Request\r\n"), "no NATS server");
  });

  it("does not come from a server that closes the connection, nor from nobody", async () => {
    const server = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { readonly port: number };
    const closed = await greet(`127.0.0.1:${port}`).catch(String);
    server.close();
    assert.include(closed, "without a greeting");
    assert.include(await greet(`127.0.0.1:${port}`).catch(String), "ECONNREFUSED");
  });
});
