/**
 * The live update orchestrator of one kernel: what it takes over at boot, what it leaves at the reboot,
 * and who may register with it.
 *
 * Source: kernel/liveupdate/luo_core.c (Linux 6.19.11, 7.1.13, 7.3.4).
 */

import { invariant } from '../abi/fault.ts'
import { type KernelTraits, kernelTraits } from '../abi/kernel-traits.ts'
import { layoutOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName } from '../abi/registry.ts'
import type { FdtNodeType, StructType } from '../abi/schema.ts'
import { buildFdt } from '../encode/fdt.ts'
import type { FdtTree } from '../encode/handover.ts'
import { encodeInt } from '../encode/write.ts'
import { type Answer, Failure, failed } from './answer.ts'
import type { Subtree } from './core.ts'
import { checkCompatible, type FdtNode, fdtAt, findProperty, subnode } from './libfdt.ts'
import { registerTestFlbs, unregisterTestFlbs } from './liveupdate-test.ts'
import type { LuoContext, LuoForm } from './luo-context.ts'
import { type FileHandler, FileHandlers } from './luo-file.ts'
import { type Flb, Flbs } from './luo-flb.ts'
import { SessionArray, SessionBlocks } from './luo-records.ts'
import { Sessions } from './luo-session.ts'
import { fieldAddress, readStored, textEquals, writeFields } from './stored.ts'

export interface LuoOptions {
  /** `liveupdate=` of the command line. */
  readonly liveupdate: boolean
  /** CONFIG_LIVEUPDATE_TEST: three FLBs for every file handler. */
  readonly testFlbs: boolean
}

const ROOT = componentByName('luo').subtree as string

export class Luo {
  readonly #context: LuoContext
  readonly #form: LuoForm
  readonly #options: LuoOptions
  readonly traits: KernelTraits
  readonly sessions: Sessions
  readonly flbs: Flbs | undefined
  readonly #handlers: FileHandlers
  #enabled: boolean
  #number = 0n
  #frozen = false

  constructor(context: LuoContext, form: LuoForm, options: LuoOptions) {
    this.#context = context
    this.#form = form
    this.#options = options
    this.#enabled = options.liveupdate
    this.traits = kernelTraits(context.release, context.version)
    this.flbs = form.flbs && new Flbs(context, this.traits, form.flbs)
    this.#handlers = new FileHandlers(context, this.traits, this.flbs)
    this.sessions = new Sessions(context, this.traits, form, this.#handlers)
  }

  /** liveupdate_enabled() */
  get enabled(): boolean {
    return this.#enabled
  }

  /** Live updates since the last cold boot that led here. */
  get liveupdateNumber(): bigint {
    return this.#number
  }

  /** Serialized for the next kernel: the reboot is under way. */
  get isFrozen(): boolean {
    return this.#frozen
  }

  /** liveupdate_early_init(), an early_initcall: an image that LUO cannot read ends the kernel. */
  earlyInit(): void {
    const answer = this.#earlyStartup()
    if (!failed(answer)) return
    this.#enabled = false
    this.#context.panic('LUO_PANIC', answer.number)
  }

  /** luo_late_startup(), a late_initcall: what the next kernel will read. */
  lateInit(): void {
    if (!this.#enabled) return
    const { root } = this.#form
    if (failed(root.kind === 'struct' ? this.#setupStruct(root) : this.#setupFdt(root))) this.#enabled = false
  }

  /** liveupdate_reboot(), called by kernel_kexec() before there is no way back. */
  reboot(preservesContext: boolean): Answer {
    if (!this.#enabled || (preservesContext && this.traits.skipsPreserveContext)) return
    const answer = this.sessions.serialize()
    if (failed(answer)) return answer
    this.flbs?.serialize()
    const finalized = this.#context.kho.finalize?.()
    if (failed(finalized)) {
      this.#context.say('LUO_FINALIZE_FAILED', finalized.number)
      return new Failure('EAGAIN')
    }
    this.#frozen = true
  }

  /** liveupdate_register_file_handler() */
  registerFileHandler(handler: FileHandler): Answer {
    if (!this.#enabled) return new Failure('EOPNOTSUPP')
    const answer = this.#handlers.register(handler, this.#isQuiet)
    if (failed(answer)) return answer
    if (this.#options.testFlbs && this.flbs) registerTestFlbs(this.#context, this.flbs, handler)
  }

  /** liveupdate_unregister_file_handler(); up to 7.0 what depends on it has to go first, and goes back on a failure. */
  unregisterFileHandler(handler: FileHandler): Answer {
    if (!this.#enabled) return this.traits.registersAnytime ? undefined : new Failure('EOPNOTSUPP')
    const isTested = !this.traits.registersAnytime && this.#options.testFlbs && this.#isQuiet
    const tested = isTested ? this.flbs : undefined
    if (tested) unregisterTestFlbs(tested, handler)
    const answer = this.#handlers.unregister(handler, this.#isQuiet)
    if (tested && failed(answer)) registerTestFlbs(this.#context, tested, handler)
    return answer
  }

  /** liveupdate_register_flb() */
  registerFlb(handler: FileHandler, flb: Flb): Answer {
    if (!this.#enabled || !this.flbs) return new Failure('EOPNOTSUPP')
    if (!this.#handlers.isRegistered(handler)) {
      this.#context.warn('kernel/liveupdate/luo_flb.c', 'liveupdate_register_flb')
      return new Failure('EINVAL')
    }
    if (!this.traits.registersAnytime && !this.#isQuiet) return new Failure('EBUSY')
    return this.flbs.register(handler, flb)
  }

  /** liveupdate_unregister_flb() */
  unregisterFlb(handler: FileHandler, flb: Flb): Answer {
    if (!this.#enabled || !this.flbs) return new Failure('EOPNOTSUPP')
    if (!this.traits.registersAnytime && !this.#isQuiet) return new Failure('EBUSY')
    return this.flbs.unregister(handler, flb)
  }

  /** luo_session_quiesce(): no session on either side. */
  get #isQuiet(): boolean {
    return this.sessions.incoming.size === 0 && this.sessions.outgoing.size === 0
  }

  /** luo_early_startup() */
  #earlyStartup(): Answer {
    const { kho } = this.#context
    if (!kho.enabled) {
      if (this.#enabled) this.#context.say('LUO_NO_KHO')
      this.#enabled = false
      return
    }
    const subtree = kho.retrieveSubtree(ROOT)
    if (failed(subtree)) {
      if (subtree.errno === 'ENOENT') return
      this.#context.say('LUO_SUBTREE', ROOT, subtree.number)
      return subtree
    }
    const { root } = this.#form
    return root.kind === 'struct' ? this.#readStruct(root, subtree) : this.#readFdt(root, subtree.pa)
  }

  /** The incoming side as a struct (luo-v5); its page is given back at once. */
  #readStruct(root: StructType, { pa, size }: Subtree): Answer {
    const needed = layoutOf(root, this.#context.target).size
    if (size === undefined || size < needed) {
      this.#context.say('LUO_SIZE', size ?? 0, needed)
      return new Failure('EINVAL')
    }
    const compatible = contractText(root)
    if (!textStarts(this.#context, fieldAddress(this.#context, root, 'compatible', pa), root, compatible)) {
      this.#context.say('LUO_COMPATIBLE', compatible)
      return new Failure('EINVAL')
    }
    const { liveupdate_num, sessions_pa, flbs_pa } = readStored(this.#context, root, pa)
    this.#tookOver(liveupdate_num as bigint)
    const answer = this.#restoreSessions(phys(sessions_pa as bigint))
    if (!failed(answer) && flbs_pa !== 0n)
      this.flbs?.setupIncoming(this.#context.ram.physToVirt(flbs_pa as bigint))
    this.#context.kho.restoreFree(pa)
    return answer
  }

  #restoreSessions(head: PhysAddr): Answer {
    const { sessions } = this.#form
    invariant(sessions.kind === 'blocks', 'the struct leads to blocks')
    if (head === 0n) return
    const records = new SessionBlocks(this.#context, sessions)
    const answer = records.restore(head)
    if (failed(answer)) return answer
    this.sessions.setupIncoming(records)
  }

  /** The incoming side as an FDT (luo-v1); it is never given back. */
  #readFdt(type: FdtNodeType, pa: PhysAddr): Answer {
    const root = fdtAt(this.#context.ram, pa)
    const wanted = compatibleOf(type)
    const mismatch = checkCompatible(root, wanted)
    if (mismatch !== 0) {
      this.#context.say('LUO_COMPATIBLE', ROOT, wanted, mismatch)
      return new Failure('EINVAL')
    }
    const number = wordOf(root, LIVEUPDATE_NUMBER)
    if (typeof number === 'number') {
      this.#context.say('LUO_NUMBER', LIVEUPDATE_NUMBER, number)
      return new Failure('EINVAL')
    }
    this.#tookOver(number)
    const answer = this.#readSessionNode(type, root)
    return failed(answer) || !this.flbs ? answer : this.#readFlbNode(type, root, this.flbs)
  }

  /** luo_session_setup_incoming() */
  #readSessionNode(type: FdtNodeType, root: FdtNode): Answer {
    const node = subnode(root, SESSION_NODE)
    if (!node) {
      this.#context.say('LUO_SESSION_NODE', SESSION_NODE)
      return new Failure('EINVAL')
    }
    const wanted = compatibleOf(childOf(type, SESSION_NODE))
    if (checkCompatible(node, wanted) !== 0) {
      this.#context.say('LUO_SESSION_COMPATIBLE', wanted)
      return new Failure('EINVAL')
    }
    const area = wordOf(node, SESSION_HEADER)
    if (typeof area === 'number') {
      this.#context.say('LUO_SESSION_HEADER', SESSION_HEADER, area)
      return new Failure('EINVAL')
    }
    const { sessions } = this.#form
    invariant(sessions.kind === 'array', 'the FDT leads to an array')
    this.sessions.setupIncoming(new SessionArray(this.#context, sessions, this.#context.ram.physToVirt(area)))
  }

  /** luo_flb_setup_incoming() */
  #readFlbNode(type: FdtNodeType, root: FdtNode, flbs: Flbs): Answer {
    const node = subnode(root, FLB_NODE)
    if (!node) {
      this.#context.say('LUO_FLB_NODE', FLB_NODE)
      return new Failure('ENOENT')
    }
    const wanted = compatibleOf(childOf(type, FLB_NODE))
    const mismatch = checkCompatible(node, wanted)
    if (mismatch !== 0) {
      this.#context.say('LUO_FLB_COMPATIBLE', wanted, mismatch)
      return new Failure('EINVAL')
    }
    const page = wordOf(node, FLB_HEADER)
    if (typeof page === 'number') {
      this.#context.say('LUO_FLB_HEADER', FLB_HEADER, page)
      return new Failure('EINVAL')
    }
    flbs.setupIncoming(this.#context.ram.physToVirt(page))
  }

  #tookOver(number: bigint): void {
    this.#number = number
    this.#context.say('LUO_RETRIEVED', number)
  }

  /** luo_state_setup() */
  #setupStruct(root: StructType): Answer {
    const { kho, target } = this.#context
    const { size } = layoutOf(root, target)
    const state = kho.allocPreserve(size)
    if (failed(state)) {
      this.#context.say('LUO_SETUP_ALLOCATION')
      return state
    }
    writeFields(this.#context, root, state, {
      compatible: new TextEncoder().encode(contractText(root)),
      liveupdate_num: this.#number + 1n,
    })
    const { sessions } = this.#form
    invariant(sessions.kind === 'blocks', 'the struct leads to blocks')
    const publish = (head: PhysAddr): void => writeFields(this.#context, root, state, { sessions_pa: head })
    this.sessions.setupOutgoing(new SessionBlocks(this.#context, sessions, publish))
    const page = this.flbs?.setupOutgoing()
    if (page !== undefined && !failed(page)) writeFields(this.#context, root, state, { flbs_pa: page })
    return this.#addSubtree(state, size, failed(page) ? page : undefined)
  }

  /** luo_fdt_setup() */
  #setupFdt(type: FdtNodeType): Answer {
    const { kho, ram, target } = this.#context
    const fdt = kho.allocPreserve(target.pageSize)
    if (failed(fdt)) {
      this.#context.say('LUO_SETUP_ALLOCATION')
      return fdt
    }
    const addresses = this.#setupAreas()
    if (failed(addresses)) return this.#addSubtree(fdt, 0, addresses)
    const values = { ...addresses, [LIVEUPDATE_NUMBER]: this.#number + 1n }
    const built = buildFdt(treeOf(type, '', values), 'sequential', target.pageSize)
    invariant(built, 'the FDT of LUO fits into a page')
    ram.write(fdt, built.buffer)
    return this.#addSubtree(fdt, built.totalsize, undefined)
  }

  /** luo_session_setup_outgoing(), luo_flb_setup_outgoing(); an error there loses what was made before. */
  #setupAreas(): Answer<Readonly<Record<string, bigint>>> {
    const { sessions } = this.#form
    invariant(sessions.kind === 'array', 'the FDT leads to an array')
    const records = SessionArray.create(this.#context, sessions)
    if (failed(records)) return records
    this.sessions.setupOutgoing(records)
    const page = this.flbs?.setupOutgoing()
    if (failed(page)) return page
    return { [SESSION_HEADER]: records.area, ...(page === undefined ? {} : { [FLB_HEADER]: page }) }
  }

  #addSubtree(pa: PhysAddr, size: number, failure: Failure | undefined): Answer {
    const answer = failure ?? this.#context.kho.addSubtree(ROOT, pa, size)
    if (!failed(answer)) return
    this.#context.kho.unpreserveFree(pa)
    this.#context.say('LUO_SETUP_FAILED', answer.number)
    return answer
  }
}

/** Names of the FDT form, as declared in abi/luo.ts. */
const LIVEUPDATE_NUMBER = 'liveupdate-number'
const SESSION_NODE = 'luo-session'
const SESSION_HEADER = 'luo-session-header'
const FLB_NODE = 'luo-flb'
const FLB_HEADER = 'luo-flb-header'

function childOf(type: FdtNodeType, name: string): FdtNodeType {
  const child = type.children?.[name]
  invariant(child, `LUO's FDT has the node ${name}`)
  return child
}

function compatibleOf(type: FdtNodeType): string {
  const { compatible } = type.properties
  invariant(compatible?.kind === 'compatible', 'the nodes of LUO have version strings')
  return compatible.value
}

/** The string that a struct's version is known by. */
function contractText(root: StructType): string {
  const version = componentByName('luo').versions.find((candidate) => candidate.root === root)
  invariant(version?.contract.kind === 'string', 'LUO has a version string')
  return version.contract.value
}

/** strncmp() over the whole field. */
function textStarts(context: LuoContext, pa: PhysAddr, root: StructType, text: string): boolean {
  const field = root.fields.compatible
  invariant(field?.kind === 'text', 'the version string is text')
  return text.length < field.bytes && textEquals(context, pa, text)
}

/** fdt_getprop() of a u64: its value, or the length that was found, or libfdt's error. */
function wordOf(node: FdtNode, name: string): bigint | number {
  const value = findProperty(node, name)
  if (typeof value === 'number') return value
  return value.length === 8 ? new DataView(value.bytes.buffer).getBigUint64(0, true) : value.length
}

/** The declared node with the values of its words. */
function treeOf(type: FdtNodeType, name: string, values: Readonly<Record<string, bigint>>): FdtTree {
  const properties = Object.entries(type.properties).map(([property, declared]) => {
    if (declared.kind === 'compatible') {
      return { name: property, value: new TextEncoder().encode(`${declared.value}\0`) }
    }
    const value = values[property]
    invariant(declared.kind === 'int' && value !== undefined, `${property} has a value`)
    return { name: property, value: encodeInt(declared, value) }
  })
  const children = Object.entries(type.children ?? {}).map(([child, node]) => treeOf(node, child, values))
  return { name, properties, children }
}
