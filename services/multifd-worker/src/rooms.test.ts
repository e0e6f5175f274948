import { LANE_LENGTH_BYTES } from "@godwit/protocol";
import { expect, it } from "vitest";
import { makeRooms } from "./rooms.ts";
import { ROOM_BYTES } from "./sealing.ts";

const LONG_BYTES = 100_000;

it("are used again once their packet is done with, and not before", () => {
  const rooms = makeRooms();
  const pack = (fill: number) => rooms.pack((room) => room.subarray(0, LONG_BYTES).fill(fill));
  const [first, second] = [pack(1), pack(2)];
  expect(new Set(first.bytes)).toEqual(new Set([1]));
  second.done();
  const third = pack(3);
  expect(third.bytes.buffer).toBe(second.bytes.buffer);
  expect(new Set(first.bytes)).toEqual(new Set([1]));
});

it("are as long as any packet, with the length of a frame before them", () => {
  const rooms = makeRooms();
  rooms.pack((room) => {
    expect(room).toHaveLength(ROOM_BYTES);
    return room.subarray(0, LONG_BYTES);
  });
  for (const length of [1, LONG_BYTES])
    expect(rooms.pack((room) => room.subarray(0, length)).bytes.byteOffset).toBe(LANE_LENGTH_BYTES);
});

it("are not held by short packets, nor by those that could not be packed", () => {
  const seen = new Set<ArrayBufferLike>();
  const rooms = makeRooms();
  const short = rooms.pack((room) => {
    seen.add(room.buffer);
    return room.subarray(0, 3).fill(7);
  });
  expect(() =>
    rooms.pack((room) => {
      seen.add(room.buffer);
      throw new Error("the memory is gone");
    }),
  ).toThrow("the memory is gone");
  rooms.pack((room) => room.subarray(0, LONG_BYTES).fill(9));
  expect(seen.size).toBe(1);
  expect([...short.bytes]).toEqual([7, 7, 7]);
});

it("that many packets were in are not all kept", () => {
  const rooms = makeRooms(1);
  const pack = () => rooms.pack((room) => room.subarray(0, LONG_BYTES));
  const [first, second] = [pack(), pack()];
  first.done();
  second.done();
  expect(pack().bytes.buffer).toBe(first.bytes.buffer);
  expect(pack().bytes.buffer).not.toBe(second.bytes.buffer);
});
