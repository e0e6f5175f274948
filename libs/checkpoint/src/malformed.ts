/** A checkpoint that is not one, or not all of one. The offset is where in the file that shows, bytes. */
export class MalformedCheckpoint extends Error {
  override readonly name = "MalformedCheckpoint";
  readonly offset: number;
  constructor(offset: number, reason: string) {
    super(`at byte ${offset}: ${reason}`);
    this.offset = offset;
  }
}
