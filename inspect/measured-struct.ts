/**
 * Structs as somebody else lays them out: a compiler by way of BTF, or a header by C's rules. The same
 * shape for both, to be held against the declared ones.
 */
export interface MeasuredStruct {
  readonly name: string
  /** Bytes. */
  readonly size: number
  readonly members: readonly MeasuredMember[]
}

export interface MeasuredMember {
  readonly name: string
  /** Bits from the start of the struct. */
  readonly bitOffset: number
  readonly bits: number
  readonly bitField: boolean
  /** Elements, where it is an array. */
  readonly count?: number
  /** Its type or that of its elements, names resolved: `u64`, `be64`, `struct kho_vmalloc`. Not known from BTF. */
  readonly type?: string
}
