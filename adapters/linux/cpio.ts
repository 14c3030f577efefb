/** Archives of the format that Linux unpacks as its first file system (cpio, "newc"). */

export type Entry = { readonly path: string } & (
  | { readonly kind: 'folder' }
  | { readonly kind: 'file'; readonly data: Uint8Array; readonly executable?: boolean }
  | { readonly kind: 'device'; readonly major: number; readonly minor: number }
);

const MODES = { folder: 0o040755, file: 0o100644, device: 0o020600 } as const;
const EXECUTABLE = 0o111;
const NO_DATA = new Uint8Array();

/** Folders must come before what they hold. */
export function cpio(entries: readonly Entry[]): Buffer {
  const members = entries.map((entry, index) => {
    const mode = MODES[entry.kind] | (entry.kind === 'file' && entry.executable === true ? EXECUTABLE : 0);
    const [major, minor] = entry.kind === 'device' ? [entry.major, entry.minor] : [0, 0];
    return member(entry.path, entry.kind === 'file' ? entry.data : NO_DATA, { inode: index + 1, mode, major, minor });
  });
  return Buffer.concat([...members, member('TRAILER!!!', NO_DATA, { inode: 0, mode: 0, major: 0, minor: 0 })]);
}

interface Meta {
  readonly inode: number;
  readonly mode: number;
  readonly major: number;
  readonly minor: number;
}

function member(path: string, data: Uint8Array, { inode, mode, major, minor }: Meta): Buffer {
  const name = Buffer.from(`${path}\0`);
  const [owner, group, links, changed, deviceMajor, deviceMinor, checksum] = [0, 0, 1, 0, 0, 0, 0];
  const fields = [inode, mode, owner, group, links, changed, data.length]
    .concat([deviceMajor, deviceMinor, major, minor, name.length, checksum])
    .map((field) => field.toString(16).padStart(8, '0'));
  return Buffer.concat([aligned(Buffer.concat([Buffer.from(`070701${fields.join('')}`), name])), aligned(data)]);
}

/** Header with name, and data, each fill a multiple of four bytes. */
function aligned(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
