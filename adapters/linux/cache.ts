/** Where this package keeps what takes long to make: compiled programs, kernels. */
import { homedir } from 'node:os';
import { join } from 'node:path';

/** It need not be there yet. scripts/debian-packages.sh means the same folder. */
export function cacheFolder(): string {
  const { XDG_CACHE_HOME: xdg = '' } = process.env;
  return join(xdg === '' ? join(homedir(), '.cache') : xdg, 'gmem-conformance');
}
