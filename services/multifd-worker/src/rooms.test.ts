import { expect, it } from "vitest";
import { makeRooms } from "./rooms.ts";
import { ROOM_BYTES } from "./sealing.ts";

it("are used again once they were given back, and no more than so many are made", () => {
  const rooms = makeRooms(2);
  const [first, second] = [rooms.take(), rooms.take()];
  expect(first?.bytes).toHaveLength(ROOM_BYTES);
  // The length of a frame stands before its packet.
  expect(first?.bytes.byteOffset).toBe(4);
  expect(second).not.toBe(first);
  expect(rooms.take()).toBeNull();
  rooms.giveBack(second!);
  expect(rooms.take()).toBe(second);
});
