/**
 * Live update as one part of a kernel: the orchestrator, memfds with their file handler, the device, and
 * the processes that use them, in the order in which a boot brings them up.
 */

import { EARLY } from '../abi/early-parameters.ts'
import { kernelTraits } from '../abi/kernel-traits.ts'
import { memfdCreateFlags } from '../abi/shmem.ts'
import { type Answer, failed } from './answer.ts'
import { switchOf } from './command-line.ts'
import type { KernelBase } from './context.ts'
import type { Subsystem } from './core.ts'
import { Luo } from './luo.ts'
import { type LuoContext, luoForm } from './luo-context.ts'
import { LiveupdateDevice } from './luo-device.ts'
import type { FileHandler } from './luo-file.ts'
import { memfdHandler } from './memfd-luo.ts'
import type { Huge } from './shmem.ts'
import { Tmpfs } from './tmpfs.ts'
import { Userspace, type UserspaceKernel } from './userspace.ts'

type LiveUpdateKernel = KernelBase & LuoContext & Pick<UserspaceKernel, 'run'>

export class LiveUpdate implements Subsystem {
  readonly switches: readonly string[]
  readonly #kernel: LiveUpdateKernel
  /** Undefined where the release has no LUO. */
  readonly luo: Luo | undefined
  readonly tmpfs: Tmpfs
  /** The file handler of memfds, for FLBs that depend on it. */
  memfd: FileHandler | undefined
  #device: LiveupdateDevice | undefined

  /** `huge` is the mount option of shmem. */
  constructor(kernel: LiveUpdateKernel, huge: Huge = 'never') {
    const { release, version, ram, target, pages, config, parameters } = kernel
    this.#kernel = kernel
    const form = luoForm(release)
    const liveupdate = switchOf(parameters, EARLY.liveupdate, false)
    this.luo = form && new Luo(kernel, form, { liveupdate, testFlbs: config.liveupdateTest })
    this.switches = this.luo ? [EARLY.liveupdate] : []
    const { sealsExecFirst, writesLargeFolios } = kernelTraits(release, version)
    this.tmpfs = new Tmpfs({ ram, target, pages, huge, sealsExecFirst, writesLargeFolios })
  }

  /** There only with live update on. */
  get device(): LiveupdateDevice | undefined {
    return this.#device
  }

  /** early_initcall */
  early(): void {
    this.luo?.earlyInit()
  }

  /** late_initcall: what the next kernel will read, and the device. */
  late(): void {
    if (!this.luo) return
    this.luo.lateInit()
    const { release, target } = this.#kernel
    if (this.luo.enabled) this.#device = new LiveupdateDevice(this.luo, release, target)
  }

  /** late_initcall of mm/: memfd_luo_init() */
  lateMm(): void {
    const { luo } = this
    if (!luo) return
    this.memfd = memfdHandler(this.#kernel, luo.traits, ({ sealing }) =>
      this.tmpfs.memfdFile(sealing ? memfdCreateFlags.ALLOW_SEALING : 0),
    )
    const answer = this.memfd && luo.registerFileHandler(this.memfd)
    if (failed(answer) && answer.errno !== 'EOPNOTSUPP') this.#kernel.say('MEMFD_REGISTER', answer.number)
  }

  /** liveupdate_reboot() */
  reboot(preservesContext = false): Answer {
    return this.luo?.reboot(preservesContext)
  }

  /** A process without open files. */
  process(): Userspace {
    const { target } = this.#kernel
    const run: UserspaceKernel['run'] = (inside) => this.#kernel.run(inside)
    return new Userspace({ target, tmpfs: this.tmpfs, device: this.#device, run })
  }
}
