/**
 * A simulated kernel: booted as a release on a machine's memory, cold or from what another kernel or an
 * image left there, and ended by a kexec or a crash.
 *
 * The order of boot is that of the kernel: kho_populate(), early parameters, reserve_mem, the walk over the
 * map, then the initcalls by their levels.
 */
import { type Parameter, parseCommandLine } from '../abi/command-line.ts'
import type { FormatArgument } from '../abi/console.ts'
import { EARLY, earlyLines } from '../abi/early-parameters.ts'
import { invariant } from '../abi/fault.ts'
import type { Target } from '../abi/layout.ts'
import { type Architecture, memoryOrders } from '../abi/machine.ts'
import { FrameSpans } from '../encode/frame-ranges.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { unlessBlocked } from './blocked.ts'
import { scratchSizes, switchOf } from './command-line.ts'
import type { KernelBase, KernelConfig } from './context.ts'
import type { LogLine, Subsystem } from './core.ts'
import { isCrash, KernelOops } from './crash.ts'
import { EarlyMemory } from './early-memory.ts'
import { CONTEXT_IMAGE, type Handover, handOver, type KexecImage, loadImage } from './handover.ts'
import { Kho } from './kho.ts'
import { KernelLog } from './log.ts'
import {
  type ColdMachine,
  coldRam,
  DEFAULT_CMDLINE,
  DEFAULT_CONFIG,
  firmwareRange,
  type KernelOptions,
} from './machine.ts'
import { sayOops } from './oops.ts'
import { SimulatedPages } from './pages.ts'
import type { MachineRam } from './ram.ts'
import { type SimulatedRelease, simulatedRelease } from './release.ts'
import { ReserveMem } from './reserve-mem.ts'
import { earlyAllocations } from './scratch.ts'
import { KhoTest } from './test-kho.ts'

export type { ColdMachine, KernelOptions }

/** `left`: it has jumped into the next kernel. */
export type KernelState = 'running' | 'crashed' | 'left'

export class Kernel implements KernelBase {
  readonly spec: SimulatedRelease
  readonly release: string
  readonly version: string
  readonly arch: Architecture
  readonly target: Target
  readonly config: KernelConfig
  readonly cmdline: string
  readonly parameters: readonly Parameter[]
  readonly ram: MachineRam
  readonly pages: SimulatedPages
  readonly log: KernelLog
  readonly kho: Kho
  readonly reserveMem: ReserveMem
  readonly #early: EarlyMemory
  readonly #khoTest: KhoTest
  readonly #subsystems: readonly Subsystem[]
  readonly #options: KernelOptions<Kernel>
  #state: KernelState = 'running'
  #isBooted = false
  /** kexec_image */
  #image: KexecImage | undefined
  #isInKexec = false

  private constructor(ram: MachineRam, arch: Architecture, options: KernelOptions<Kernel>) {
    this.#options = options
    const spec = simulatedRelease(options.release)
    invariant(spec, `no release ${options.release}`)
    this.spec = spec
    this.release = spec.name
    this.version = options.version ?? spec.version
    this.arch = arch
    this.target = { pageSize: ram.pageSize }
    this.config = { ...DEFAULT_CONFIG, ...options.config }
    this.cmdline = options.cmdline ?? DEFAULT_CMDLINE
    this.parameters = parseCommandLine(this.cmdline)
    this.ram = ram
    this.pages = new SimulatedPages(ram, memoryOrders[ram.pageSize].largest)
    this.log = new KernelLog(this.release)
    this.#early = new EarlyMemory(ram)
    const byDefault = this.config.enabledByDefault && spec.traits.hasDefault
    this.kho = new Kho(this, this.#early, switchOf(this.parameters, EARLY.kho, byDefault))
    this.reserveMem = new ReserveMem(this, this.kho, this.#early)
    this.#khoTest = new KhoTest(this, this.kho, options.seed ?? 1)
    this.#subsystems = options.subsystems?.(this) ?? []
  }

  /** Boots on a machine that was just switched on. */
  static boot(options: KernelOptions<Kernel> & ColdMachine): Kernel {
    return new Kernel(coldRam(options), options.arch ?? 'x86_64', options).#boot(undefined)
  }

  /** Boots on what another kernel or an image left; several kernels can take over from the same. */
  static takeOver(handover: Handover, options: KernelOptions<Kernel>): Kernel {
    return new Kernel(handover.ram.fork(), handover.arch, options).#boot(handover)
  }

  get state(): KernelState {
    return this.#state
  }

  /** The log so far, the last words of a crash included. */
  get console(): readonly LogLine[] {
    return this.log.lines
  }

  say = (id: string, ...args: readonly FormatArgument[]): void => this.log.say(id, ...args)
  warn = (file: string, function_: string, text?: string): void => this.log.warn(file, function_, text)
  panic = (id: string, ...args: readonly FormatArgument[]): never => this.log.panic(id, ...args)

  /**
   * Runs what happens inside of this kernel. A panic or an oops ends the kernel, not the simulation: the
   * answer is then undefined. A kernel that is gone does nothing.
   */
  run<T>(inside: () => T): T | undefined {
    if (this.#state !== 'running') return undefined
    try {
      return inside()
    } catch (error) {
      if (!isCrash(error)) throw error
      this.#state = 'crashed'
      if (error instanceof KernelOops) sayOops(this, error, this.#isBooted)
      return undefined
    }
  }

  /**
   * kexec_file_load(): what the next kernel is told of KHO is decided here. With `preservesContext`
   * kexec_load(KEXEC_PRESERVE_CONTEXT), of which KHO knows nothing. EBUSY while another call is in kexec;
   * a failure leaves what was loaded before.
   */
  load({ preservesContext = false } = {}): Answer {
    return this.#withKexecLock(() => {
      const image = preservesContext ? CONTEXT_IMAGE : loadImage(this, this.kho)
      if (failed(image)) return image
      this.#image = image
    })
  }

  /** kexec_file_load(KEXEC_FILE_UNLOAD) */
  unload(): Answer {
    return this.#withKexecLock(() => {
      this.#image = undefined
    })
  }

  /**
   * kernel_kexec(): subsystems serialize, then the jump. EBUSY while another call is in kexec, EINVAL if no
   * image is loaded; a failure leaves the kernel running. Undefined from a kernel that is gone, and where
   * the jump comes back; `Blocked` where it never gets that far.
   */
  reboot(): Answer<Handover> | undefined {
    return this.run(() => unlessBlocked(() => this.#withKexecLock(() => this.#jump())))
  }

  #jump(): Answer<Handover | undefined> {
    const image = this.#image
    if (!image) return new Failure('EINVAL')
    const failure = this.#serialize(image.preservesContext)
    if (failed(failure)) return failure
    if (image.preservesContext) return undefined
    const handover = handOver(this, this.kho, image)
    this.#state = 'left'
    return handover
  }

  /** What kexec(8) does: an image is loaded unless one is, then the reboot. */
  leave(): Answer<Handover> | undefined {
    const loaded = this.#image ? undefined : this.run(() => this.load())
    return failed(loaded) ? loaded : this.reboot()
  }

  /** kexec_trylock(): who dies or waits for ever inside never gives it back. */
  #withKexecLock<T>(inside: () => Answer<T>): Answer<T> {
    if (this.#isInKexec) return new Failure('EBUSY')
    this.#isInKexec = true
    const answer = inside()
    this.#isInKexec = false
    return answer
  }

  #serialize(preservesContext: boolean): Answer {
    for (const subsystem of this.#subsystems) {
      const failure = subsystem.reboot?.(preservesContext)
      if (failed(failure)) return failure
    }
  }

  /** Reboots into a kernel with the same options, as far as no others are given. */
  kexec(options: Partial<KernelOptions<Kernel>> = {}): Answer<Kernel> {
    const handover = this.leave()
    if (handover === undefined) return new Failure('EIO')
    if (failed(handover)) return handover
    const { version, ...rest } = this.#options
    const same = version !== undefined && (options.release ?? this.release) === this.release
    return Kernel.takeOver(handover, { ...rest, ...(same ? { version } : {}), ...options })
  }

  #boot(handover: Handover | undefined): this {
    this.run(() => {
      this.#initEarlyMemory(handover)
      this.#sayEarlyParameters()
      this.kho.incoming.extendScratch()
      for (const { name, value } of this.parameters) {
        if (name === 'reserve_mem' && value !== undefined) this.reserveMem.reserve(value)
      }
      this.kho.initMemory(this.#early, scratchSizes(this.parameters, this.release))
      this.#openPages()
      this.#isBooted = true
      this.#initcalls()
    })
    return this
  }

  /** setup_arch(): firmware, the handover, and on a cold boot what the early kernel takes. */
  #initEarlyMemory(handover: Handover | undefined): void {
    const firmware = firmwareRange(this.arch, this.ram)
    this.#early.reserve(firmware.start, firmware.end - firmware.start)
    if (handover?.boot) this.kho.incoming.populate(handover.boot)
    if (this.kho.incoming.scratch) return
    for (const { addr, size, node } of earlyAllocations(this.ram.ranges, this.target.pageSize)) {
      this.#early.reserveKern(addr, size, node)
    }
  }

  #sayEarlyParameters(): void {
    const switches = [EARLY.kho, ...this.#subsystems.flatMap((subsystem) => subsystem.switches ?? [])]
    for (const [id, ...values] of earlyLines(this.parameters, switches, this.release)) this.say(id, ...values)
  }

  /** memblock_free_all() */
  #openPages(): void {
    const { pageSize } = this.target
    const all = FrameSpans.of(
      this.ram.ranges.map(({ start, end }) => ({
        start: Number(start) / pageSize,
        end: Number(end) / pageSize,
      })),
    )
    const areas = this.kho.scratch.map(({ addr, size }) => ({
      start: Number(addr) / pageSize,
      end: Number(addr + size) / pageSize,
    }))
    const scratch = FrameSpans.of(areas.sort((a, b) => a.start - b.start))
    const preserved = this.kho.incoming.preserved.merged().within(all)
    this.pages.open({
      free: this.#early.free().without(scratch),
      totalPages: all.frames,
      scratchPages: scratch.within(all).without(preserved).frames,
      preservedPages: preserved.frames,
    })
  }

  #initcalls(): void {
    const { buildsAtFinalize } = this.spec.traits
    for (const subsystem of this.#subsystems) subsystem.early?.()
    if (!buildsAtFinalize) this.kho.init()
    this.#khoTest.init()
    if (buildsAtFinalize) this.kho.init()
    for (const subsystem of this.#subsystems) subsystem.late?.()
    this.reserveMem.init()
    for (const subsystem of this.#subsystems) subsystem.lateMm?.()
  }
}
