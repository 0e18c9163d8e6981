/**
 * The machine that a timeline drives: its kernel with the drivers that every kernel there loads, one
 * process, and what lies between two kernels.
 */
import { parseCommandLine, parseReserveMem } from '../abi/command-line.ts'
import { invariant } from '../abi/fault.ts'
import { hex, type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import { releaseFor, updateOf } from '../abi/registry.ts'
import { contentSource } from '../encode/content.ts'
import type { Content } from '../encode/handover.ts'
import type { OutputMachine } from '../encode/image-format.ts'
import type { WritableMemory } from '../encode/image-pieces.ts'
import type { ScenarioStep } from '../encode/scenario-steps.ts'
import type { Timeline } from '../encode/timeline.ts'
import { eachStep } from '../encode/timeline-step.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { LogLine, Subsystem } from './core.ts'
import { type Handover, handoverImage } from './handover.ts'
import { Kernel } from './kernel.ts'
import { LiveUpdate } from './live-update.ts'
import type { KernelOptions } from './machine.ts'
import { OpaqueDrivers, PlannedFailures } from './opaque-handler.ts'
import { Orchestrator } from './orchestrator.ts'
import { done, type Fact, type StepResult } from './timeline-event.ts'
import { handoverFacts, memfdStruct } from './timeline-facts.ts'
import { NamedDescriptors } from './timeline-names.ts'
import { type Snapshot, snapshotOf } from './timeline-snapshot.ts'
import type { Userspace } from './userspace.ts'

/** What one kernel leaves for the next. */
export interface TimelineHandover extends OutputMachine {
  /** Counts from 1. */
  readonly number: number
  readonly from: string
  readonly to: string
  readonly memory: WritableMemory
}

export interface MachineHooks {
  /** Called between two kernels, if something is handed over. */
  readonly onHandover?: (handover: TimelineHandover) => void
  /** Where a path of the decoded handover stands; without it paths cannot be corrupted. */
  readonly locate?: (
    memory: PhysicalMemory,
    boot: TimelineHandover['boot'],
    path: string,
  ) => Located | { readonly problem: string }
}

interface Located {
  readonly pa: PhysAddr
  readonly length: number
}

type Corruption = NonNullable<ScenarioStep['corrupt']>

/** The scenario asks for more than a simulation does in reasonable time. */
export class TimelineLimit extends Error {}

/** Bytes that a timeline may compare and sum up in all. */
const MAX_BYTES = 2 ** 33
/** Bytes that it may write, which take as much memory here. */
const MAX_WRITTEN = 2 ** 30

/** fs.nr_open: as far as a process can raise RLIMIT_NOFILE. */
const MAX_DESCRIPTORS = 1 << 20

/** One kernel and what runs on it. */
interface Running {
  readonly kernel: Kernel
  readonly live: LiveUpdate
  readonly process: Userspace
  readonly names: NamedDescriptors
  readonly drivers: OpaqueDrivers
  readonly orchestrator: Orchestrator | undefined
}

export class TimelineMachine {
  readonly #timeline: Timeline
  readonly #hooks: MachineHooks
  readonly failures = new PlannedFailures()
  kexecs = 0
  #running: Running
  /** What the last kernel preserved, by session and token; only where a step will ask. */
  #snapshots: ReadonlyMap<string, Snapshot> = new Map()
  readonly #needsSnapshots: boolean
  readonly #corruptions: Corruption[] = []
  #shownLines = 0
  #spent = 0
  #written = 0

  constructor(timeline: Timeline, hooks: MachineHooks) {
    this.#timeline = timeline
    this.#hooks = hooks
    this.#needsSnapshots = [...eachStep(timeline.steps)].some(
      ({ step }) => step.verify?.file !== undefined && Object.keys(step.verify).length === 1,
    )
    this.#running = this.#start({ ...this.#firstKernel, cmdline: this.#cmdline() }, [], undefined)
    this.#fillRegions()
  }

  get #firstKernel(): NamedKernel {
    const { release, version } = this.#timeline
    return { release, ...(version && { version }) }
  }

  get kernel(): Kernel {
    return this.#running.kernel
  }

  get live(): LiveUpdate {
    return this.#running.live
  }

  get process(): Userspace {
    return this.#running.process
  }

  get names(): NamedDescriptors {
    return this.#running.names
  }

  get drivers(): OpaqueDrivers {
    return this.#running.drivers
  }

  get orchestrator(): Orchestrator | undefined {
    return this.#running.orchestrator
  }

  get release(): string {
    return this.kernel.release
  }

  /** What the kernel logged since this was asked last. */
  newLines(): readonly LogLine[] {
    const lines = this.kernel.console.slice(this.#shownLines)
    this.#shownLines = this.kernel.console.length
    return lines
  }

  /** Why a kernel died: what it said last. */
  get lastWords(): string {
    const { console } = this.kernel
    return (console.findLast(({ level }) => level === 'emerg') ?? console.at(-1))?.text ?? 'nothing'
  }

  /** Counts what is compared, so that no scenario runs for ever. */
  spend(bytes: number): void {
    this.#spent += bytes
    if (this.#spent > MAX_BYTES) throw new TimelineLimit(`more than ${MAX_BYTES} bytes to compare in all`)
  }

  /** Counts what is written, so that no scenario takes all memory. */
  spendWriting(bytes: number): void {
    this.#written += bytes
    if (this.#written > MAX_WRITTEN) throw new TimelineLimit(`more than ${MAX_WRITTEN} bytes to write in all`)
  }

  /** Whether the release hands over seals. */
  get keepsSeals(): boolean {
    return memfdStruct(this.release)?.fields.seals !== undefined
  }

  /** What a file that was retrieved under this name was like in the kernel before. */
  snapshotOf(name: string): Snapshot | undefined {
    const origin = this.names.originOf(name)
    return origin === undefined ? undefined : this.#snapshots.get(origin)
  }

  /** What the scenario says that a region holds. */
  regionContent(name: string): Content | undefined {
    return this.#timeline.regions.find((region) => region.name === name)?.content
  }

  writeRegion(name: string, at: bigint, content: Content): Answer {
    const region = this.kernel.reserveMem.regions.find((one) => one.name === name)
    const { length, fill } = contentSource(content)
    if (!region || at + length > region.size) return new Failure('EFBIG')
    this.spendWriting(Number(length))
    const bytes = new Uint8Array(Number(length))
    fill(0n, bytes)
    this.kernel.ram.write(phys(region.start + at), bytes)
  }

  /** Answers with what tells whether it is still to come. */
  corruptNext(corruption: Corruption): () => boolean {
    this.#corruptions.push(corruption)
    return () => this.#corruptions.includes(corruption)
  }

  coldBoot({ release, cmdline }: NonNullable<ScenarioStep['boot']>): StepResult {
    this.#snapshots = new Map()
    const kernel = release === undefined ? this.#firstKernel : kernelOf(release)
    this.#running = this.#start({ ...kernel, cmdline: this.#cmdline(cmdline) }, [], undefined)
    this.#fillRegions()
    return this.kernel.state === 'running' ? done() : this.dead()
  }

  /** Reboots by kexec; a failure leaves the kernel running. */
  kexec({ to, cmdline, without = [], load = true }: NonNullable<ScenarioStep['kexec']>): Answer | StepResult {
    const { kernel, names } = this.#running
    const files = this.#needsSnapshots ? [...names.preservedFiles] : []
    const snapshots = new Map(
      files.map(([key, file]) => [key, snapshotOf(file, (bytes) => this.spend(bytes))]),
    )
    const handover = load ? kernel.leave() : kernel.reboot()
    if (handover === undefined) return kernel.state === 'running' ? done() : this.dead()
    if (failed(handover)) return handover
    this.kexecs++
    const next = to === undefined ? { release: kernel.release, version: kernel.version } : kernelOf(to)
    const facts = this.#passOn(kernel, handover, next.release)
    this.#snapshots = snapshots
    this.#running = this.#start({ ...next, cmdline: this.#cmdline(cmdline) }, without, handover)
    return typeof facts === 'string' ? done([], [facts]) : this.#booted(facts)
  }

  /** The answer of a machine whose kernel is dead. */
  dead(): StepResult {
    return { outcome: 'panic', wrong: [], facts: [], because: this.lastWords }
  }

  #booted(facts: readonly Fact[]): StepResult {
    const { kernel } = this
    if (kernel.state === 'crashed') return { ...this.dead(), facts }
    const outcome = facts.length > 0 && kernel.kho.isKhoBoot ? 'ok' : 'no_handover'
    return { outcome, wrong: [], facts }
  }

  /** What is handed over, after what is to be corrupted in it was; a text says why it could not be. */
  #passOn(kernel: Kernel, handover: Handover, to: string): readonly Fact[] | string {
    const { boot, arch, ram } = handover
    const corruptions = this.#corruptions.splice(0)
    if (!boot) return corruptions.length === 0 ? [] : 'nothing is handed over that could be corrupted'
    const changed: Fact[] = []
    for (const corruption of corruptions) {
      const place = this.#corrupt(corruption, handover, boot)
      if (typeof place === 'string') return place
      changed.push({ name: 'corrupted', pa: place })
    }
    const memory = handoverImage(handover)
    this.#hooks.onHandover?.({
      number: this.kexecs,
      from: handover.release,
      to,
      arch,
      pageSize: ram.pageSize,
      boot,
      memory,
    })
    return [...handoverFacts(kernel, boot), ...changed]
  }

  #corrupt(
    { at, path, value, bytes }: Corruption,
    handover: Handover,
    boot: TimelineHandover['boot'],
  ): PhysAddr | string {
    const place = at === undefined ? this.#locate(path ?? '', handover, boot) : { pa: phys(at), length: WORD }
    if ('problem' in place) return place.problem
    const written = bytes ?? littleEndian(value ?? 0n, place.length)
    if (bytes === undefined && place.length > WORD)
      return `${path} has ${place.length} bytes; say them in bytes`
    if (!handover.ram.contains(place.pa, written.length)) return `no RAM at ${hex(place.pa)}`
    handover.ram.write(place.pa, written)
    return place.pa
  }

  #locate(
    path: string,
    handover: Handover,
    boot: TimelineHandover['boot'],
  ): ReturnType<NonNullable<MachineHooks['locate']>> {
    const locate = this.#hooks.locate
    if (!locate) return { problem: 'paths cannot be looked up here; say an address' }
    return locate(handoverImage(handover), boot, path)
  }

  /** The scenario's command line and what a step adds; a region is asked for once. */
  #cmdline(added = ''): string {
    const { liveupdate, scratch, regions } = this.#timeline
    const names = parseCommandLine(added).map(({ name, value }) =>
      name === 'reserve_mem' && value !== undefined ? parseReserveMem(value)?.name : undefined,
    )
    const own = regions.filter(({ name }) => !names.includes(name))
    return [
      'kho=on',
      liveupdate ? 'liveupdate=on' : 'liveupdate=off',
      `kho_scratch=${scratch.join(',')}`,
      ...own.map(({ name, size, align }) => `reserve_mem=${size}:${align}:${name}`),
      ...(added === '' ? [] : [added]),
    ].join(' ')
  }

  #start(
    options: NamedKernel & Pick<KernelOptions, 'cmdline'>,
    without: readonly string[],
    handover: Handover | undefined,
  ): Running {
    const { arch, target, ram, liveupdateTest, khoTest } = this.#timeline
    const parts: { live?: LiveUpdate; drivers?: OpaqueDrivers } = {}
    const subsystems = (kernel: Kernel): readonly Subsystem[] => {
      const live = new LiveUpdate(kernel)
      const drivers = new OpaqueDrivers(live, this.#timeline, without, this.failures)
      Object.assign(parts, { live, drivers })
      return [withoutSecondFreeze(live), drivers]
    }
    const config = { liveupdateTest, testKho: khoTest }
    const built = { ...options, config, subsystems }
    const kernel = handover
      ? Kernel.takeOver(handover, built)
      : Kernel.boot({ ...built, arch, pageSize: target.pageSize, ram })
    const { live, drivers } = parts
    invariant(live && drivers, 'a kernel makes its subsystems')
    const process = live.process()
    process.files.limit = MAX_DESCRIPTORS
    const orchestrator = live.luo && new Orchestrator(live.luo, process)
    this.#shownLines = 0
    return { kernel, live, drivers, process, names: new NamedDescriptors(process), orchestrator }
  }

  /** What the regions of a machine that was just switched on get to hold. */
  #fillRegions(): void {
    for (const { name, content } of this.#timeline.regions) if (content) this.writeRegion(name, 0n, content)
  }
}

/**
 * The step `freeze` was the first half of the reboot already. Kernels that keep the lock from then on would
 * wait for themselves if they began it anew; older ones serialize again.
 */
function withoutSecondFreeze(live: LiveUpdate): Subsystem {
  return {
    early: () => live.early(),
    late: () => live.late(),
    lateMm: () => live.lateMm(),
    reboot: () => (live.luo?.isFrozen && live.luo.traits.keepsLock ? undefined : live.reboot()),
  }
}

const WORD = 8

function littleEndian(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => Number((value >> BigInt(8 * at)) & 0xffn))
}

type NamedKernel = Pick<KernelOptions, 'release' | 'version'>

/** A release that the timeline's reader has accepted, and which update of it, if it says so. */
function kernelOf(release: string): NamedKernel {
  const known = releaseFor(release)
  invariant(known, `no release ${release}`)
  const version = updateOf(release)
  return { release: known.name, ...(version && { version }) }
}
