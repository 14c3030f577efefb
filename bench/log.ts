/**
 * `npx tsx bench/log.ts LINES`: the log of a guest that shares 18 static ranges, and then single pages for DMA at places
 * from chance, at most 40 at a time, each until it is taken back. For measuring `check-trace`.
 */
import { once } from 'node:events';
import { stdout } from 'node:process';
import { numbers } from './status-workloads.ts';

const STATIC_RANGES = 18;
const OUTSTANDING = 40;
/** Frames of DMA: from 16 MiB to 496 MiB. */
const [FIRST, FRAMES] = [0x1000, 0x1_e000];
const CHUNK = 1 << 16;

const lines = Number(process.argv[2]);
const below = numbers(1);
const shared: number[] = [];

function announcement(index: number): readonly [gpa: number, pages: number, encrypted: 0 | 1] {
  if (index < STATIC_RANGES) return [0xc000_0000 + index * 0x200_0000, 512, 0];
  if (shared.length === OUTSTANDING || (shared.length > 0 && below(2) === 0)) {
    const [page = 0] = shared.splice(below(shared.length), 1);
    return [page * 4096, 1, 1];
  }
  let page: number;
  do page = FIRST + below(FRAMES);
  while (shared.includes(page));
  shared.push(page);
  return [page * 4096, 1, 0];
}

let text = '';
for (let index = 0; index < lines; index++) {
  const [gpa, pages, encrypted] = announcement(index);
  const seconds = (index / 1e5).toFixed(6).padStart(12);
  text += `[${seconds}] page_enc_status_hc invoked, gpa = ${gpa.toString(16)}, npages  = ${pages}, enc = ${encrypted}\n`;
  if (text.length > CHUNK) {
    if (!stdout.write(text)) await once(stdout, 'drain');
    text = '';
  }
}
stdout.write(text);
