/**
 * What keeps kernel code and objects alive: reference counts that complain and saturate as refcount_t
 * does, and modules that are pinned while their callbacks are needed.
 *
 * Source: include/linux/refcount.h, lib/refcount.c, kernel/module/main.c: try_module_get().
 */

const INT_MAX = 0x7fff_ffff
/** REFCOUNT_SATURATED: never counted down to zero again. */
const SATURATED = -0x4000_0000

/** How many hold something. */
export interface References {
  read(): number
  set(value: number): void
  increment(): void
  /** Whether this was the last reference. */
  decrementAndTest(): boolean
}

/** A plain integer, as counts were before refcount_t: nobody looks where it goes. */
export class Counter implements References {
  #value = 0

  read(): number {
    return this.#value
  }

  set(value: number): void {
    this.#value = value
  }

  increment(): void {
    this.#value++
  }

  decrementAndTest(): boolean {
    return --this.#value === 0
  }
}

/** refcount_t; `warn` gets what refcount_warn_saturate() says. */
export class Refcount implements References {
  #value = 0
  readonly #warn: (text: string) => void

  constructor(warn: (text: string) => void) {
    this.#warn = warn
  }

  read(): number {
    return this.#value
  }

  set(value: number): void {
    this.#value = value
  }

  increment(): void {
    if (this.#value === 0) this.#saturate('refcount_t: addition on 0; use-after-free.')
    else if (this.#value < 0 || this.#value === INT_MAX) {
      this.#saturate('refcount_t: saturated; leaking memory.')
    } else this.#value++
  }

  decrementAndTest(): boolean {
    if (this.#value > 0) return --this.#value === 0
    this.#saturate('refcount_t: underflow; use-after-free.')
    return false
  }

  #saturate(text: string): void {
    this.#value = SATURATED
    this.#warn(text)
  }
}

/** A module that owns callbacks. One that is being unloaded gives no more references. */
export class KernelModule {
  live = true
  refs = 0

  tryGet(): boolean {
    if (this.live) this.refs++
    return this.live
  }

  put(): void {
    this.refs--
  }
}
