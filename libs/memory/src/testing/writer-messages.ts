/** What a writer process is started with, as JSON in its first argument. */
export interface WriterSetup {
  readonly path: string;
  readonly lengthBytes: number;
  /** Whether it registers its memory with userfaultfd. */
  readonly userfaultfd: boolean;
}

/** What the writer is told over IPC. Each order is answered once it is carried out. */
export type WriterOrder =
  /** Fills pages of the file with one byte each, through its mapping. */
  | { readonly _tag: "Fill"; readonly firstPage: number; readonly pages: number; readonly value: number }
  /** Fills every `stride`-th page, beginning with the first. */
  | { readonly _tag: "Scatter"; readonly stride: number; readonly value: number }
  /** Begins to count up words in all pages at full speed, a few pages at a time. */
  | { readonly _tag: "Race" }
  | { readonly _tag: "Stop" };

export type WriterAnswer =
  | { readonly _tag: "Ready"; readonly address: bigint }
  /** `writes`: words written by races so far. */
  | { readonly _tag: "Done"; readonly writes: number };
