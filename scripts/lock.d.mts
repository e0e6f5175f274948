export function withLock<A>(path: string, waiting: (pid: number) => void, work: () => Promise<A>): Promise<A>;
