/** What the device answers instead of doing what it was asked. A plain class: its process starts without loading Effect. */
export class DeviceFailure extends Error {
  /** Name of the errno. */
  readonly errno: string;
  constructor(errno: string, reason: string) {
    super(reason);
    this.errno = errno;
  }
}
