import { describe, expect, it } from "vitest";
import { addressesFor, networkId, parseAnnounced, parseListen, splitAddress } from "./addresses.ts";

describe("where to listen", () => {
  it.each([
    ["off", null],
    ["0.0.0.0:0", { host: "0.0.0.0", firstPort: 0, lastPort: 0 }],
    ["10.1.2.3:4230", { host: "10.1.2.3", firstPort: 4230, lastPort: 4230 }],
    ["[::]:4230-4239", { host: "::", firstPort: 4230, lastPort: 4239 }],
  ])("%s", (text, place) => expect(parseListen(text)).toEqual(place));

  it.each(["", "on", "0.0.0.0", "host:1", "1.2.3.4:70000", "1.2.3.4:9-8", "1.2.3.4:0-9", "::1:5", "1.2.3.4:5:6"])(
    "%s is no such place",
    (text) => expect(parseListen(text)).toBeUndefined(),
  );
});

describe("what is announced", () => {
  it("is a list of hosts, with or without a port", () => {
    expect(parseAnnounced("vm-host-7.example:4230, [fd00::7], 10.0.0.7")).toEqual([
      { host: "vm-host-7.example", port: 4230 },
      { host: "fd00::7", port: 0 },
      { host: "10.0.0.7", port: 0 },
    ]);
    for (const wrong of ["", "a b", "a:b", "a:70000", "a,,b"]) expect(parseAnnounced(wrong)).toBeUndefined();
  });
  it("has a port once it is offered", () => {
    expect(splitAddress("[fd00::7]:9")).toEqual({ host: "fd00::7", port: 9 });
    for (const wrong of ["fd00::7:9", "a", "a:0", "a:1,b:2"]) expect(splitAddress(wrong)).toBeUndefined();
  });
});

describe("what a worker is offered", () => {
  const own = (family: string) => (family === "both" ? ["10.0.0.7", "fd00::7"] : ["10.0.0.7"]);
  const of = (host: string, isSame: boolean, announced = "") =>
    addressesFor({ host, port: 4 }, announced === "" ? [] : parseAnnounced(announced)!, isSame, own);

  it("is this host's addresses, and loopback to one of the same network stack alone", () => {
    expect(of("0.0.0.0", false)).toEqual(["10.0.0.7:4"]);
    expect(of("::", false)).toEqual(["10.0.0.7:4", "[fd00::7]:4"]);
    expect(of("0.0.0.0", true)).toEqual(["127.0.0.1:4"]);
    expect(of("::", true)).toEqual(["[::1]:4"]);
  });
  it("is the one address that is listened on, and nothing when it cannot be reached", () => {
    expect(of("10.0.0.8", false)).toEqual(["10.0.0.8:4"]);
    expect(of("127.0.0.1", true)).toEqual(["127.0.0.1:4"]);
    expect(of("127.0.0.1", false)).toEqual([]);
  });
  it("is what was announced instead", () => {
    expect(of("0.0.0.0", true, "outer.example,10.9.9.9:77")).toEqual(["outer.example:4", "10.9.9.9:77"]);
  });
  it("depends on the network stack, which processes of a host share", () => expect(networkId()).toBe(networkId()));
});
