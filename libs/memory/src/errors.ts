import * as Schema from "effect/Schema";

/** A dirty tracker could not be opened, or its kernel interface failed while it was used. */
export class TrackerError extends Schema.TaggedError<TrackerError>()("TrackerError", {
  kind: Schema.String,
  operation: Schema.String,
  reason: Schema.String,
}) {
  override get message(): string {
    return `${this.kind} tracker: ${this.operation}: ${this.reason}`;
  }
}

/** A RAM file could not be opened, read or written; `errno` names the system's reason (ENOSPC, EIO, ...). */
export class RamFileError extends Schema.TaggedError<RamFileError>()("RamFileError", {
  path: Schema.String,
  operation: Schema.String,
  errno: Schema.String,
}) {
  override get message(): string {
    return `${this.operation} ${this.path}: ${this.errno}`;
  }
}
