/**
 * Machines that run TDs and their like, with one mistake each: bugs that really happened, duties of the host
 * that are left out, and others of their kind.
 */
import type { Errno, Outcome } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import { hostOf } from '../simulator/host.ts';
import { performTd } from '../simulator/td/commands.ts';
import { Gone, type HostPage, type Process, type Signal } from '../simulator/td/host-mm.ts';
import { TdxMachine, type KvmTdx } from '../simulator/td/kvm-tdx.ts';
import { SHARED_KEY, LINES } from '../simulator/td/memory-controller.ts';
import { PvMachine } from '../simulator/td/pv.ts';
import { SevMachine } from '../simulator/td/sev.ts';
import type { Fault } from './fault.ts';

const POISON = 'tdx-poison-rfc-v1';
const GMEM = 'tdx-guest-memfd';
const EXPLICIT = 'share-explicitly';

export const host = hostOf(performTd);

const removal: readonly Fault[] = [
  {
    id: 'td-page-not-reset',
    shortest: 6,
    profile: GMEM,
    fault: 'gives a page of a TD back to the host without overwriting its lines, which stay under the key of the TD',
    machine: host(
      class extends TdxMachine {
        override takeBack(kvm: KvmTdx, frame: number): void {
          if (kvm.hkid !== undefined) this.seam.phymemPageWbinvd(kvm.hkid, frame);
        }
      },
    ),
  },
  {
    id: 'td-page-reset-in-parts',
    shortest: 3,
    profile: POISON,
    fault: 'resets a page of a TD with stores narrower than a line, which poison it',
    machine: host(
      class extends TdxMachine {
        override tdxQuirkResetPaddr(frame: number): void {
          for (const line of LINES) this.memory.store(frame, line, SHARED_KEY, 0n, 'word');
        }
      },
    ),
  },
  {
    id: 'control-pages-not-reset',
    shortest: 3,
    profile: GMEM,
    fault: 'frees control pages of a TD as they are',
    machine: host(
      class extends TdxMachine {
        override tdxQuirkResetPaddr(frame: number): void {
          if (this.isPageOfGmem(frame)) super.tdxQuirkResetPaddr(frame);
        }
        private isPageOfGmem(frame: number): boolean {
          return [...this.guests.values()].some(({ gmem }) => [...gmem.values()].includes(frame));
        }
      },
    ),
  },
  {
    id: 'track-skipped',
    shortest: 7,
    profile: GMEM,
    fault: 'removes private pages without TDH.MEM.TRACK',
    machine: host(
      class extends TdxMachine {
        override tdxTrack(): undefined {
          return undefined;
        }
      },
    ),
  },
  {
    id: 'busy-not-retried',
    shortest: 7,
    profile: POISON,
    fault: 'takes TDX_OPERAND_BUSY for a failure at once, although a vCPU was in the way',
    machine: host(
      class extends TdxMachine {
        override tdhDoNoVcpus(...[call]: Parameters<TdxMachine['tdhDoNoVcpus']>): ReturnType<typeof call> {
          return call();
        }
      },
    ),
  },
  {
    id: 'page-cleared-after-add',
    shortest: 5,
    profile: GMEM,
    fault: 'clears a page in the direct map when the TD has it already, so that its code no longer fits',
    machine: host(
      class extends TdxMachine {
        override doKvmGmemPopulate(kvm: KvmTdx, gfn: number, value: bigint): Errno | undefined {
          const error = super.doKvmGmemPopulate(kvm, gfn, value);
          const frame = kvm.gmem.get(gfn);
          if (error === undefined && frame !== undefined) this.clearHighpage(frame);
          return error;
        }
      },
    ),
  },
  {
    id: 'page-cleared-before-removal',
    shortest: 6,
    profile: GMEM,
    fault: 'clears a page in the direct map when it is to be freed, while the TD has it still',
    machine: host(
      class extends TdxMachine {
        override kvmUnmapPrivate(kvm: KvmTdx, gfn: number): Errno | undefined {
          const frame = kvm.mirror.get(gfn);
          if (frame !== undefined) this.clearHighpage(frame);
          return super.kvmUnmapPrivate(kvm, gfn);
        }
      },
    ),
  },
];

const keys: readonly Fault[] = [
  {
    id: 'key-freed-before-pages',
    shortest: 6,
    profile: GMEM,
    fault: 'frees the key of a TD before its private pages are removed',
    machine: host(
      class extends TdxMachine {
        override hasPrivatePages(): boolean {
          return false;
        }
        override kvmDestroyVm(kvm: KvmTdx): Outcome {
          this.tdxMmuReleaseHkid(kvm);
          return super.kvmDestroyVm(kvm);
        }
      },
    ),
  },
  {
    id: 'leaked-key-reused',
    shortest: 4,
    profile: GMEM,
    fault: 'gives a key to the next TD although it could not be freed',
    machine: host(
      class extends TdxMachine {
        override leakHkid(kvm: KvmTdx): void {
          this.tdxHkidFree(kvm);
        }
      },
    ),
  },
  {
    id: 'key-not-given-back',
    shortest: 7,
    profile: EXPLICIT,
    fault: 'forgets to give the key back when a TD is destroyed',
    machine: host(
      class extends TdxMachine {
        override tdxHkidFree(kvm: KvmTdx): void {
          kvm.hkid = undefined;
        }
      },
    ),
  },
  {
    id: 'td-enters-after-machine-check',
    shortest: 8,
    profile: GMEM,
    fault: 'lets a TD go on that had a machine check',
    machine: host(
      class extends TdxMachine {
        constructor(config: Config) {
          super(config);
          this.seam.machineCheck = () => undefined;
        }
      },
    ),
  },
  {
    id: 'guest-poison-panics',
    shortest: 8,
    profile: GMEM,
    fault: 'panics where a guest consumes poison, although the core could go on',
    machine: host(
      class extends TdxMachine {
        override consume(...[by, frame]: Parameters<TdxMachine['consume']>): Outcome {
          const outcome = super.consume(by, frame);
          if (outcome.kind !== 'machine-check' || by !== 'guest') return outcome;
          this.consumptions.push({ by, ended: 'machine', recoverable: true });
          throw new Gone({ kind: 'machine-check', ends: 'machine' });
        }
      },
    ),
  },
  {
    id: 'machine-check-page-freed',
    shortest: 9,
    profile: POISON,
    fault: 'puts a page that had a machine check on the free list when its TD is gone',
    machine: host(
      class extends TdxMachine {
        override freePage(frame: number): void {
          this.freeList.push(frame);
        }
      },
    ),
  },
];

const worlds: readonly Fault[] = [
  {
    id: 'unshare-keeps-user-mapping',
    shortest: 3,
    profile: POISON,
    fault: 'makes a page private and leaves it in the page tables of the VMM',
    machine: host(
      class extends TdxMachine {
        override unmapUserPage(): void {
          // The entry stays as it is.
        }
      },
    ),
  },
  {
    id: 'unshare-keeps-explicit-mapping',
    shortest: 4,
    profile: EXPLICIT,
    fault: 'leaves what the VMM has mapped where it is when the guest takes it back',
    machine: host(
      class extends TdxMachine {
        override unmapUserPage(): void {
          // The entry stays as it is.
        }
      },
    ),
  },
  {
    id: 'gup-takes-poison-entry',
    shortest: 3,
    profile: POISON,
    fault: 'lets get_user_pages() have the page behind a poison entry, as KVM may',
    machine: host(
      class extends TdxMachine {
        override pinUserPages(...[process, gfn]: Parameters<TdxMachine['pinUserPages']>): number | 'EFAULT' {
          const page = this.pageAt(process, gfn);
          page.pins++;
          return this.doSwapPage(page);
        }
      },
    ),
  },
  {
    id: 'share-keeps-mark',
    shortest: 5,
    profile: POISON,
    fault: 'leaves PG_hwpoison on a page that is shared again',
    machine: host(
      class extends TdxMachine {
        override share(kvm: KvmTdx, gfn: number): void {
          super.share(kvm, gfn);
          const { frame } = this.pageAt(kvm.process, gfn);
          if (frame !== undefined) this.markedPrivate.add(frame);
        }
      },
    ),
  },
  {
    id: 'share-before-zap',
    shortest: 6,
    profile: POISON,
    fault: 'tells that a frame is shared while the private page is still in S-EPT',
    machine: host(
      class extends TdxMachine {
        override kvmArchPreSetMemoryAttributes(): undefined {
          return undefined;
        }
      },
    ),
  },
  {
    id: 'unshare-ignores-pins',
    shortest: 4,
    profile: EXPLICIT,
    fault: 'makes a page private that a device has pinned',
    machine: host(
      class extends TdxMachine {
        override isReferenced(): boolean {
          return false;
        }
      },
    ),
  },
  {
    id: 'private-file-at-host-address',
    shortest: 4,
    profile: GMEM,
    fault: 'shows the VMM the private page at the host address of a private frame',
    machine: host(
      class extends TdxMachine {
        override withUserPage<T>(process: Process, gfn: number, use: (frame: number, page: HostPage) => T): T | Signal {
          const kvm = this.guests.get(process.label);
          const frame = kvm?.private[gfn] === true ? kvm.gmem.get(gfn) : undefined;
          return frame === undefined ? super.withUserPage(process, gfn, use) : use(frame, this.pageAt(process, gfn));
        }
      },
    ),
  },
  {
    id: 'map-gpa-in-one-chunk',
    shortest: 6,
    profile: GMEM,
    fault: 'asks the VMM for all of a range at once, however large',
    machine: host(
      class extends TdxMachine {
        override doTdxMapGpa(...[range]: Parameters<TdxMachine['doTdxMapGpa']>): Outcome {
          const exit = super.doTdxMapGpa(range);
          return exit.kind === 'hypercall' ? { ...exit, pages: (range.end - range.next) >> 12n } : exit;
        }
      },
    ),
  },
  {
    id: 'map-gpa-skips-failed-chunk',
    shortest: 7,
    profile: GMEM,
    fault: 'takes a chunk that the VMM wants to be asked for again as done',
    machine: host(
      class extends TdxMachine {
        override tdxCompleteVmcallMapGpa(
          ...[vcpu, ret, hasEvents]: Parameters<TdxMachine['tdxCompleteVmcallMapGpa']>
        ): Outcome {
          return super.tdxCompleteVmcallMapGpa(vcpu, ret === 11n ? 0n : ret, hasEvents);
        }
      },
    ),
  },
];

const contrasts: readonly Fault[] = [
  {
    id: 'sev-caches-not-flushed',
    shortest: 6,
    profile: 'sev-c-bit',
    fault: 'gives an ASID and its pages back while caches hold lines of them',
    machine: host(
      class extends SevMachine {
        override wbinvd(): void {
          // The caches keep what they have.
        }
      },
    ),
  },
  {
    id: 'sev-launch-not-flushed',
    shortest: 4,
    profile: 'sev-c-bit',
    fault: 'encrypts pages in their place and leaves the plain text in caches',
    machine: host(
      class extends SevMachine {
        override sevClflushPages(): void {
          // The caches keep what they have.
        }
      },
    ),
  },
  {
    id: 's390-changed-page-imported',
    shortest: 5,
    profile: 's390-pv',
    fault: 'gives the guest a page whose ciphertext the host has changed',
    machine: host(
      class extends PvMachine {
        override isUnchanged(): boolean {
          return true;
        }
      },
    ),
  },
  {
    id: 's390-device-not-kept-out',
    shortest: 5,
    profile: 's390-pv',
    fault: 'lets a device read a page that was exported',
    machine: host(
      class extends PvMachine {
        override isProtected(): boolean {
          return false;
        }
      },
    ),
  },
];

export const TD_FAULTS: readonly Fault[] = [...removal, ...keys, ...worlds, ...contrasts];
