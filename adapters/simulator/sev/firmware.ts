/**
 * The firmware of the secure processor: contexts of guests, and which of them an ASID belongs to. Source: AMD 55766 (SEV API) and 56860 (SNP ABI).
 */
import type { Errno } from '../../../model/core/outcome.ts';

/** LUPDATE, LSECRET, RUNNING */
export type GuestState = 1 | 2 | 3;

/** Commands that can be made to fail. */
export type FailingCommand = 'df-flush' | 'launch-start' | 'activate' | 'decommission';

interface Context {
  /** No two contexts ever have the same key. */
  readonly key: number;
  /** None from GCTX_CREATE until SNP_LAUNCH_START. */
  state: GuestState | undefined;
  asid: number | undefined;
}

/** What sev_do_cmd() makes of a status other than SUCCESS. */
const FAILED: Errno = 'EIO';

export class Firmware {
  private readonly contexts = new Map<number, Context>();
  private readonly failing = new Set<FailingCommand>();
  private nextKey = 1;

  fail(command: FailingCommand): void {
    this.failing.add(command);
  }

  /** LAUNCH_START */
  launchStart(): number | Errno {
    return this.failing.delete('launch-start') ? FAILED : this.newContext(1);
  }

  /** GCTX_CREATE. The number that is returned stands for the address of the context page. */
  snpGctxCreate(): number {
    return this.newContext(undefined);
  }

  snpLaunchStart(handle: number): Errno | undefined {
    const context = this.contexts.get(handle);
    if (this.failing.delete('launch-start') || context === undefined) return FAILED;
    context.state = 1;
    return undefined;
  }

  /** A handle is used again as soon as it is free. */
  private newContext(state: GuestState | undefined): number {
    let handle = 1;
    while (this.contexts.has(handle)) handle++;
    this.contexts.set(handle, { key: this.nextKey++, state, asid: undefined });
    return handle;
  }

  /** ACTIVATE, SNP_ACTIVATE */
  activate(handle: number, asid: number): Errno | undefined {
    if (this.failing.delete('activate')) return FAILED;
    const context = this.contexts.get(handle);
    if (context === undefined || this.activeFor(asid) !== undefined) return FAILED;
    context.asid = asid;
    return undefined;
  }

  deactivate(handle: number): Errno | undefined {
    const context = this.contexts.get(handle);
    if (context === undefined) return FAILED;
    context.asid = undefined;
    return undefined;
  }

  /** DECOMMISSION; SNP_DECOMMISSION takes the ASID from the context as well. */
  decommission(handle: number): Errno | undefined {
    if (this.failing.delete('decommission')) return FAILED;
    return this.contexts.delete(handle) ? undefined : FAILED;
  }

  /** Whether DF_FLUSH goes through. */
  dfFlush(): Errno | undefined {
    return this.failing.delete('df-flush') ? FAILED : undefined;
  }

  /** LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA, SNP_LAUNCH_UPDATE: the key to encrypt under. */
  launchUpdate(handle: number): number | Errno {
    const context = this.contexts.get(handle);
    return context?.state === 1 ? context.key : FAILED;
  }

  launchMeasure(handle: number): Errno | undefined {
    return this.advance(handle, 1, 2);
  }

  launchFinish(handle: number): Errno | undefined {
    return this.advance(handle, 2, 3);
  }

  /** SNP_LAUNCH_FINISH */
  snpLaunchFinish(handle: number): Errno | undefined {
    return this.advance(handle, 1, 3);
  }

  guestStatus(handle: number): GuestState | Errno {
    return this.contexts.get(handle)?.state ?? FAILED;
  }

  /** What the memory controller has for an ASID: the key of the context that is active there. */
  keyOf(asid: number): number | undefined {
    return this.activeFor(asid)?.key;
  }

  private activeFor(asid: number): Context | undefined {
    return [...this.contexts.values()].find((context) => context.asid === asid);
  }

  private advance(handle: number, from: GuestState, to: GuestState): Errno | undefined {
    const context = this.contexts.get(handle);
    if (context?.state !== from) return FAILED;
    context.state = to;
    return undefined;
  }
}
