/**
 * Drivers that are not modelled: file handlers whose files leave a handle of 64 bits, and FLBs that do
 * the same; and callbacks, theirs and others', that fail when they are told to.
 */
import type { Errno } from '../abi/errno.ts'
import type { HandlerCallback } from '../encode/scenario-steps.ts'
import type { Timeline } from '../encode/timeline.ts'
import { Failure } from './answer.ts'
import type { Subsystem } from './core.ts'
import { File } from './file.ts'
import type { LiveUpdate } from './live-update.ts'
import type { FileHandler } from './luo-file.ts'
import type { Flb } from './luo-flb.ts'

interface Plan {
  /** Version string of the handler or FLB. */
  readonly of: string
  readonly callback: HandlerCallback
  readonly errno: Errno
  calls: number
}

/** Callbacks that are to fail: each plan once, at the n-th call from when it was made. */
export class PlannedFailures {
  readonly #plans: Plan[] = []

  /** Answers with what tells whether it is still to come. */
  add(of: string, callback: HandlerCallback, calls: number, errno: Errno): () => boolean {
    const plan = { of, callback, calls, errno }
    this.#plans.push(plan)
    return () => this.#plans.includes(plan)
  }

  /** The error that this call ends with, if any. */
  next(of: string, callback: HandlerCallback): Failure | undefined {
    for (const [index, plan] of this.#plans.entries()) {
      if (plan.of !== of || plan.callback !== callback || --plan.calls > 0) continue
      this.#plans.splice(index, 1)
      return new Failure(plan.errno)
    }
    return undefined
  }
}

/** The handles of files of drivers that are not modelled. */
const handles = new WeakMap<File, { readonly compatible: string; readonly data: bigint }>()

export function opaqueFile(compatible: string, data: bigint): File {
  const file = new File({})
  handles.set(file, { compatible, data })
  return file
}

/** The handle of a file that has one. */
export function handleOf(file: File): bigint | undefined {
  return handles.get(file)?.data
}

export function opaqueHandler(compatible: string): FileHandler {
  return {
    compatible,
    ops: {
      can_preserve: (file) => handles.get(file)?.compatible === compatible,
      preserve: (args) => {
        args.serialized_data = (args.file && handleOf(args.file)) ?? 0n
      },
      unpreserve: () => {},
      retrieve: (args) => {
        args.file = opaqueFile(compatible, args.serialized_data)
      },
      finish: () => {},
    },
  }
}

/** An FLB whose object is its handle. */
export function opaqueFlb(compatible: string, data: bigint, failures: PlannedFailures): Flb {
  return {
    compatible,
    ops: {
      preserve: (args) => {
        const failure = failures.next(compatible, 'preserve')
        if (failure) return failure
        args.data = data
        args.obj = data
      },
      unpreserve: () => {},
      retrieve: (args) => {
        const failure = failures.next(compatible, 'retrieve')
        if (failure) return failure
        args.obj = args.data
      },
      finish: () => {},
    },
  }
}

/** A handler whose callbacks fail when they are told to, before their own code runs. */
export function withFailures(handler: FileHandler, failures: PlannedFailures): FileHandler {
  const { compatible, ops } = handler
  const next = (callback: HandlerCallback): Failure | undefined => failures.next(compatible, callback)
  return {
    ...handler,
    ops: {
      ...ops,
      can_preserve: (file) => !next('can_preserve') && (ops.can_preserve?.(file) ?? false),
      preserve: (args) => next('preserve') ?? ops.preserve?.(args),
      freeze: (args) => next('freeze') ?? ops.freeze?.(args),
      retrieve: (args) => next('retrieve') ?? ops.retrieve?.(args),
      can_finish: (args) => !next('can_finish') && (ops.can_finish?.(args) ?? true),
    },
  }
}

/** The drivers of one kernel: one handler for each version string that the timeline knows, and its FLBs. */
export class OpaqueDrivers implements Subsystem {
  readonly #live: LiveUpdate
  readonly #timeline: Timeline
  readonly #without: readonly string[]
  readonly #failures: PlannedFailures
  readonly #flbs = new Map<string, Flb>()

  constructor(live: LiveUpdate, timeline: Timeline, without: readonly string[], failures: PlannedFailures) {
    this.#live = live
    this.#timeline = timeline
    this.#without = without
    this.#failures = failures
  }

  flb(name: string): Flb | undefined {
    return this.#flbs.get(name)
  }

  /** Modules come last; without live update registering is refused, and they do without. */
  lateMm(): void {
    const { luo } = this.#live
    if (!luo) return
    for (const { name, data } of this.#timeline.flbs) {
      this.#flbs.set(name, opaqueFlb(name, data, this.#failures))
    }
    this.#link(this.#live.memfd)
    for (const compatible of this.#timeline.handlers) {
      if (this.#without.includes(compatible)) continue
      const handler = withFailures(opaqueHandler(compatible), this.#failures)
      luo.registerFileHandler(handler)
      this.#link(handler)
    }
  }

  /** Makes a handler's files depend on the FLBs that name it, or that name none. */
  #link(handler: FileHandler | undefined): void {
    for (const { name, handlers } of this.#timeline.flbs) {
      const flb = this.#flbs.get(name)
      const isFor = handler && (handlers?.includes(handler.compatible) ?? true)
      if (flb && isFor) this.#live.luo?.registerFlb(handler, flb)
    }
  }
}
