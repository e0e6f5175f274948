import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { openProxy, type TcpProxy } from "./proxy.ts";

/** Says everything back. */
const startEcho = async (port = 0): Promise<Server> => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return server;
};
const portOf = (server: Server): number => (server.address() as AddressInfo).port;

const closing: Array<() => unknown> = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const setUp = async (): Promise<{ readonly proxy: TcpProxy; readonly echo: Server }> => {
  const echo = await startEcho();
  const proxy = await openProxy();
  closing.push(() => void echo.close(), proxy.close);
  proxy.leadTo(portOf(echo));
  return { proxy, echo };
};
const dial = async ({ port }: TcpProxy): Promise<Socket> => {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  closing.push(() => socket.destroy());
  await once(socket, "connect");
  return socket;
};
/** `once` of node:events would take the reset for a failure of the test. */
const closed = (socket: Socket): Promise<void> => new Promise((resolve) => void socket.once("close", () => resolve()));
const said = async (socket: Socket, word: string): Promise<string> => {
  const answer = once(socket, "data");
  socket.write(word);
  return String((await answer)[0]);
};

describe("an actor's proxy", () => {
  it("passes bytes both ways", async () => {
    const { proxy } = await setUp();
    expect(await said(await dial(proxy), "hello")).toBe("hello");
  });

  it("cuts: connections are reset, new ones too, and later ones pass again", async () => {
    const { proxy } = await setUp();
    const socket = await dial(proxy);
    await said(socket, "hello");
    const reset = closed(socket);
    proxy.enter("cut");
    await reset;
    const refused = connect(proxy.port, "127.0.0.1");
    refused.on("error", () => undefined);
    await closed(refused);
    proxy.enter("open");
    expect(await said(await dial(proxy), "again")).toBe("again");
  });

  it("is a black hole: nothing comes back, and what had a hole in it is reset when that ends", async () => {
    const { proxy, echo } = await setUp();
    const holed = await dial(proxy);
    const quiet = await dial(proxy);
    await said(holed, "hello");
    await said(quiet, "hello");
    proxy.enter("blackhole");
    let heard = "";
    holed.on("data", (bytes) => {
      heard += String(bytes);
    });
    holed.write("lost");
    // The word is behind the one that is lost, on a connection of its own: when the echo has it, it would have had both.
    const direct = connect(portOf(echo), "127.0.0.1");
    closing.push(() => direct.destroy());
    await once(direct, "connect");
    await said(direct, "hello");
    expect(heard).toBe("");
    const reset = closed(holed);
    proxy.enter("open");
    await reset;
    expect(await said(quiet, "still there")).toBe("still there");
  });

  it("outlives its server: refused meanwhile, and through to the one that comes back on the port", async () => {
    const { proxy, echo } = await setUp();
    const port = portOf(echo);
    const socket = await dial(proxy);
    await said(socket, "hello");
    const lost = closed(socket);
    socket.end();
    await lost;
    echo.close();
    await once(echo, "close");
    const refused = await dial(proxy);
    await closed(refused);
    const successor = await startEcho(port);
    closing.push(() => void successor.close());
    expect(await said(await dial(proxy), "back")).toBe("back");
  });
});
