/** Where the kit is installed, and as which version. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';

const Manifest = z.object({ name: z.literal('gmem-conformance'), version: z.string() });
type Manifest = z.infer<typeof Manifest>;

const manifestIn = (folder: string): Manifest | undefined => {
  const file = join(folder, 'package.json');
  return existsSync(file) ? Manifest.safeParse(JSON.parse(readFileSync(file, 'utf8'))).data : undefined;
};

/** The folder of package.json: the tree when run from source, two or three levels above this file when built. */
function installation(): { readonly root: string; readonly version: string } {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    const manifest = manifestIn(folder);
    if (manifest !== undefined) return { root: folder, version: manifest.version };
    if (folder === dirname(folder)) throw new Error('package.json is missing from the installation');
  }
}

export const { root: ROOT, version: VERSION } = installation();
