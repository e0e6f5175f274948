// A process that reads memory and sends it, and nothing else. Arguments: port, file, first byte, bytes.
import { openSync, readSync } from "node:fs";
import { connect } from "node:net";
import { MESSAGE_PAYLOAD_BYTES, WINDOW_BYTES } from "./sizes.ts";

const [port = "", path = "", first = "", length = ""] = process.argv.slice(2);
/** Where the bytes belong stands before them. */
const PLACE_BYTES = 8;

const fd = openSync(path, "r");
const rooms = Array.from({ length: WINDOW_BYTES / MESSAGE_PAYLOAD_BYTES }, () =>
  Buffer.allocUnsafeSlow(PLACE_BYTES + MESSAGE_PAYLOAD_BYTES),
);
const socket = connect({ port: Number(port), host: "127.0.0.1", noDelay: true });
let at = 0;
let end = 0;
const pump = (): void => {
  for (let room = rooms.pop(); room !== undefined; room = rooms.pop()) {
    const used = room;
    if (at >= end) return void rooms.push(used);
    readSync(fd, used, PLACE_BYTES, MESSAGE_PAYLOAD_BYTES, at);
    used.writeDoubleLE(at);
    at += MESSAGE_PAYLOAD_BYTES;
    socket.write(used, () => {
      rooms.push(used);
      pump();
    });
  }
};
process.on("message", () => {
  at = Number(first);
  end = at + Number(length);
  pump();
});
socket.once("connect", () => process.send?.("ready"));
process.once("disconnect", () => process.exit(0));
