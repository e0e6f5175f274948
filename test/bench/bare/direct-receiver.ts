// A process that writes what it receives into memory, and nothing else. Arguments: file, bytes.
import { openSync, writeSync } from "node:fs";
import { type AddressInfo, createServer, Socket } from "node:net";
import { MESSAGE_PAYLOAD_BYTES } from "./sizes.ts";

const [path = "", total = ""] = process.argv.slice(2);
const MESSAGE_BYTES = 8 + MESSAGE_PAYLOAD_BYTES;

const fd = openSync(path, "r+");
let missing = Number(total);
const server = createServer({ pauseOnConnect: true }, (accepted) => {
  const holder = accepted as unknown as { _handle: unknown };
  const handle = holder._handle;
  holder._handle = null;
  accepted.destroy();
  const room = Buffer.allocUnsafeSlow(MESSAGE_BYTES);
  let here = 0;
  const onread = {
    buffer: () => room.subarray(here),
    callback: (bytes: number): boolean => {
      here += bytes;
      if (here < MESSAGE_BYTES) return true;
      here = 0;
      writeSync(fd, room, 8, MESSAGE_PAYLOAD_BYTES, room.readDoubleLE());
      missing -= MESSAGE_PAYLOAD_BYTES;
      if (missing === 0) {
        missing = Number(total);
        process.send?.("done");
      }
      return true;
    },
  };
  new Socket({ handle, onread } as never).resume();
});
server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
process.once("disconnect", () => process.exit(0));
