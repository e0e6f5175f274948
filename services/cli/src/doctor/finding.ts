/** One thing that was looked at. `missing` stands in godwit's way here; `absent` can be done without. */
export interface Finding {
  readonly what: string;
  readonly state: "works" | "absent" | "missing";
  /** What is there, or why it is not, and what to do about it. */
  readonly detail: string;
}

export const works = (what: string, detail: string): Finding => ({ what, state: "works", detail });
export const absent = (what: string, detail: string): Finding => ({ what, state: "absent", detail });
export const missing = (what: string, detail: string): Finding => ({ what, state: "missing", detail });
