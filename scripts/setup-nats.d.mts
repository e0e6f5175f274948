export const MINIMUM_VERSION: string;
export function natsServerPath(options?: {
  log?: (line: string) => void;
  cache?: string;
  download?: boolean;
}): Promise<string>;
export function compareVersions(a: string, b: string): number;
