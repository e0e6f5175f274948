export function providePrograms(log: (line: string) => void): Promise<void>;
