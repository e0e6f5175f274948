/** The command line cannot be read: the operator's words, not godwit's work, are at fault. Exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  readonly code = "usage";
  /** What to do about it. */
  readonly remedy: string;

  constructor(reason: string, remedy = "`godwit help` lists the commands, `godwit help COMMAND` its options") {
    super(reason);
    this.remedy = remedy;
  }
}
