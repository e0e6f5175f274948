import { addressOf, checked, libc } from "./libc.ts";

/** Memory that a structure of an ioctl points to. */
export interface Pointee {
  /** Where in the structure the pointer lies, bytes; 8 bytes long, as all pointers in the kernel's structures are. */
  readonly at: number;
  readonly memory: Uint8Array;
}

/** An ioctl, ready to be made here or in another thread. */
export interface IoctlCall {
  readonly fd: number;
  /** What the kernel's header calls the request: "VFIO_DEVICE_RESET". For errors. */
  readonly name: string;
  readonly request: number;
  /** The structure, which the kernel may write to; or the number that is the argument itself. */
  readonly argument: Uint8Array | bigint;
  readonly pointees?: ReadonlyArray<Pointee>;
}

/** Makes the call and waits for it: a slow device holds up the whole thread. Fails with the errno that the kernel gave. */
export const ioctl = ({ fd, name, request, argument, pointees = [] }: IoctlCall): number => {
  if (argument instanceof Uint8Array) {
    const fields = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    for (const { at, memory } of pointees) fields.setBigUint64(at, addressOf(memory), true);
  }
  return checked(libc.ioctl(fd, request, argument), `ioctl(${name})`);
};
