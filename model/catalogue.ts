/** Every command of the specification. To add one, write its file and name it here. */
import type { Program } from './core/program.ts';
import type { AnyTransition, Specification } from './core/specification.ts';
import type { CommandOf } from './core/transition.ts';
import { faultDirectMap } from './direct-map/fault-direct-map.ts';
import { ghcCreate } from './direct-map/ghc-create.ts';
import { ghcInit } from './direct-map/ghc-init.ts';
import { ghcRead } from './direct-map/ghc-read.ts';
import { ghcWrite } from './direct-map/ghc-write.ts';
import { gpcActivate } from './direct-map/gpc-activate.ts';
import { gpcDeactivate } from './direct-map/gpc-deactivate.ts';
import { gpcInit } from './direct-map/gpc-init.ts';
import { gpcRead } from './direct-map/gpc-read.ts';
import { gpcRefresh } from './direct-map/gpc-refresh.ts';
import { gpcWrite } from './direct-map/gpc-write.ts';
import { guestClock } from './direct-map/guest-clock.ts';
import { guestMmio } from './direct-map/guest-mmio.ts';
import { guestWalk } from './direct-map/guest-walk.ts';
import { kernelLoad } from './direct-map/kernel-load.ts';
import { kvmReadGuest } from './direct-map/kvm-read-guest.ts';
import { kvmWriteGuest } from './direct-map/kvm-write-guest.ts';
import { attributesSet } from './gmem/attributes-set.ts';
import { capCheck } from './gmem/cap-check.ts';
import { faultSlab } from './gmem/fault-slab.ts';
import { fdClose } from './gmem/fd-close.ts';
import { fdDup } from './gmem/fd-dup.ts';
import { fileIo } from './gmem/file-io.ts';
import { fileStat } from './gmem/file-stat.ts';
import { fileTruncate } from './gmem/file-truncate.ts';
import { gmemCreate } from './gmem/gmem-create.ts';
import { gmemFallocate } from './gmem/gmem-fallocate.ts';
import { gmemLink } from './gmem/gmem-link.ts';
import { guestLoad, guestStore } from './gmem/guest-access.ts';
import { gupRead, gupWrite } from './gmem/gup.ts';
import { hostLoad, hostStore } from './gmem/host-access.ts';
import { memMap } from './gmem/mem-map.ts';
import { memSecret } from './gmem/mem-secret.ts';
import { memUnmap } from './gmem/mem-unmap.ts';
import { memoryFail } from './gmem/memory-fail.ts';
import { contentInPlaceOfPoison, throughTheHost } from './gmem/rewrites.ts';
import { slotSet } from './gmem/slot-set.ts';
import { vcpuCreate } from './gmem/vcpu-create.ts';
import { vcpuPrefault } from './gmem/vcpu-prefault.ts';
import { vmCreate } from './gmem/vm-create.ts';
import { hypercallCall, hypercallReturn } from './sev/hypercall-call.ts';
import {
  hypercallAlternatives,
  hypercallClose,
  hypercallExits,
  hypercallGuest,
  hypercallQuirk,
} from './sev/hypercall-life.ts';
import { sevBind, sevCloseFile, sevFileCreate, sevLink } from './sev/key-files.ts';
import { sevLoad, sevStore } from './sev/key-guest.ts';
import {
  sevGuestStatus,
  sevLaunchFinish,
  sevLaunchMeasure,
  sevLaunchStart,
  sevLaunchUpdateData,
} from './sev/key-launch.ts';
import { sevClose, sevFirmwareFails, sevInit, sevVcpu, sevVmCreate } from './sev/key-life.ts';
import { sevLaunchUpdateVmsa, sevSetRegs } from './sev/key-registers.ts';
import { sevDiscard, sevRegionAdd, sevRegionDrop } from './sev/key-regions.ts';
import { sevCopy, sevMove } from './sev/key-sharing.ts';
import { sevSnpFinish, sevSnpStart } from './sev/key-snp.ts';
import { kernelHandle } from './machine-check/handle.ts';
import { hwCache } from './machine-check/cache.ts';
import { deviceRead, hwPoison, hwScrub } from './machine-check/hardware.ts';
import { hostRecover, vmmAnswer } from './machine-check/host.ts';
import { guestCreate, guestDestroy, guestMigrate, guestReboot } from './machine-check/life.ts';
import { mceControl, mceSet } from './machine-check/mce.ts';
import { pageAlloc, pageFree, taskStart } from './machine-check/pages.ts';
import { guestPlug, guestUnplug } from './machine-check/plug.ts';
import { pageSimulate, pageUnpoison } from './machine-check/simulate.ts';
import { kernelTouch } from './machine-check/kernel-touch.ts';
import { taskTouch } from './machine-check/touch.ts';
import { kernelIsolate, kernelRecover } from './machine-check/work.ts';
import { statusAnnounce, statusFlood } from './sev/status-announce.ts';
import { statusDonate, statusScribble } from './sev/status-donation.ts';
import { statusDamage, statusLoad, statusSave } from './sev/status-image.ts';
import { statusCreate, statusDestroy, statusEnable, statusPlug, statusReset, statusTick } from './sev/status-life.ts';
import { statusPsc } from './sev/status-psc.ts';
import { statusList, statusPage } from './sev/status-read.ts';
import { tdAugment, tdConvert } from './tdx/conversion.ts';
import { cacheEvict, coreStop, seamBusy } from './tdx/environment.ts';
import { tdAccept, tdLoad, tdStore } from './tdx/guest.ts';
import { hostRead, hostWrite, hostZero } from './tdx/host-access.ts';
import { dmaMap, dmaUnmap, hostKexec, hostMap, hostMove, hostUnmap } from './tdx/host-maps.ts';
import { tdAdd, tdCreate, tdDestroy, tdFinalize, tdInit, tdVcpu, tdVcpuInit } from './tdx/life.ts';
import { tdMapGpa, tdMapGpaReturn } from './tdx/map-gpa.ts';
import {
  keyFlushDone,
  keyFlushVcpu,
  keyFree,
  keyWriteBack,
  pageReclaim,
  septBlock,
  septRemove,
  septTrack,
} from './tdx/steps.ts';

/** The systems that are specified, with the commands of each. The direct map builds on the commands of guest_memfd. */
export const SYSTEMS = {
  guest_memfd: [
    vmCreate,
    vcpuCreate,
    capCheck,
    gmemCreate,
    gmemLink,
    slotSet,
    attributesSet,
    gmemFallocate,
    fileIo,
    fileTruncate,
    fileStat,
    memMap,
    memUnmap,
    hostLoad,
    hostStore,
    guestLoad,
    guestStore,
    vcpuPrefault,
    fdDup,
    fdClose,
    memoryFail,
    faultSlab,
  ],
  'direct map': [
    kvmReadGuest,
    kvmWriteGuest,
    guestMmio,
    kernelLoad,
    gpcInit,
    gpcActivate,
    gpcRefresh,
    gpcRead,
    gpcWrite,
    gpcDeactivate,
    ghcCreate,
    ghcInit,
    ghcRead,
    ghcWrite,
    faultDirectMap,
  ],
  // What else there is that reaches memory of a guest or of its host process, or is kept from it, in released kernels.
  'ways to memory': [memSecret, gupRead, gupWrite, guestWalk, guestClock],
  'TD-private memory': [
    tdCreate,
    tdInit,
    tdVcpu,
    tdVcpuInit,
    tdAdd,
    tdFinalize,
    tdConvert,
    tdAugment,
    tdLoad,
    tdStore,
    tdAccept,
    tdMapGpa,
    tdMapGpaReturn,
    tdDestroy,
    septBlock,
    septTrack,
    septRemove,
    keyFlushVcpu,
    keyFlushDone,
    keyWriteBack,
    keyFree,
    pageReclaim,
    hostRead,
    hostWrite,
    hostZero,
    hostMove,
    hostMap,
    hostUnmap,
    dmaMap,
    dmaUnmap,
    hostKexec,
    seamBusy,
    coreStop,
    cacheEvict,
  ],
  'keys of SEV': [
    sevVmCreate,
    sevInit,
    sevVcpu,
    sevLaunchStart,
    sevLaunchUpdateData,
    sevLaunchUpdateVmsa,
    sevLaunchMeasure,
    sevLaunchFinish,
    sevGuestStatus,
    sevSnpStart,
    sevSnpFinish,
    sevSetRegs,
    sevCopy,
    sevMove,
    sevRegionAdd,
    sevRegionDrop,
    sevDiscard,
    sevStore,
    sevLoad,
    sevClose,
    sevFirmwareFails,
    sevFileCreate,
    sevLink,
    sevBind,
    sevCloseFile,
  ],
  'page-encryption status': [
    statusCreate,
    statusEnable,
    statusAnnounce,
    statusFlood,
    statusPsc,
    statusPage,
    statusList,
    statusSave,
    statusDamage,
    statusLoad,
    statusPlug,
    statusReset,
    statusTick,
    statusDonate,
    statusScribble,
    statusDestroy,
  ],
  'the hypercall instruction': [
    hypercallGuest,
    hypercallExits,
    hypercallQuirk,
    hypercallAlternatives,
    hypercallCall,
    hypercallReturn,
    hypercallClose,
  ],
  'machine checks': [
    guestCreate,
    guestReboot,
    guestDestroy,
    guestMigrate,
    guestUnplug,
    guestPlug,
    pageAlloc,
    pageFree,
    taskStart,
    taskTouch,
    kernelTouch,
    deviceRead,
    hwPoison,
    hwScrub,
    hwCache,
    hostRecover,
    vmmAnswer,
    mceSet,
    mceControl,
    kernelHandle,
    kernelRecover,
    kernelIsolate,
    pageSimulate,
    pageUnpoison,
  ],
} as const;

const ALL = Object.values(SYSTEMS).flat();

/** Any command, with the arguments that belong to it. */
export type Command = CommandOf<(typeof ALL)[number]>;

export const CATALOGUE = ALL as unknown as readonly AnyTransition[];

/** What a command belongs to; `other` where a caller has added it to the catalogue. */
export const systemOf = (command: string): string =>
  Object.entries(SYSTEMS).find(([, commands]) => commands.some(({ name }) => name === command))?.[0] ?? 'other';

/** Other programs to the same end, which shrinking may try. */
export const REWRITES: readonly ((specification: Specification, program: Program) => Iterable<Program>)[] = [
  throughTheHost,
  contentInPlaceOfPoison,
];
