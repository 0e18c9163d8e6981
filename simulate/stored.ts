/**
 * Structs where the kernel keeps them: in simulated physical memory, read and written by the declared
 * fields. The kernel's own pointers into such memory are physical addresses here.
 */
import { invariant } from '../abi/fault.ts'
import type { Target } from '../abi/layout.ts'
import { fieldOf, layoutOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { Infer, StructType } from '../abi/schema.ts'
import { encodeInt } from '../encode/write.ts'
import { decodeStruct } from '../inspect/record.ts'
import type { Ram } from './core.ts'

/** Memory and the page size that layouts depend on. */
export interface Store {
  readonly ram: Ram
  readonly target: Target
}

/** `first`: the field that the kernel reads before the others, if it is not the one at the start. */
export function readStored<S extends StructType>(
  { ram, target }: Store,
  struct: S,
  pa: PhysAddr,
  first?: string,
): Infer<S> {
  const at = first === undefined ? 0 : fieldOf(struct, first, target).offset
  return decodeStruct(struct, ram.read(pa, layoutOf(struct, target).size, at), target)
}

/** Address of a field of the struct at `pa`. */
export function fieldAddress(
  { target }: Pick<Store, 'target'>,
  struct: StructType,
  name: string,
  pa: PhysAddr,
): PhysAddr {
  return phys(pa + BigInt(fieldOf(struct, name, target).offset))
}

/** Assigns to fields, one by one, as the kernel does; text is copied like strscpy() does. */
export function writeFields(
  store: Store,
  struct: StructType,
  pa: PhysAddr,
  values: Readonly<Record<string, number | bigint | Uint8Array>>,
): void {
  for (const [name, value] of Object.entries(values)) {
    const { type } = fieldOf(struct, name, store.target)
    const at = fieldAddress(store, struct, name, pa)
    if (value instanceof Uint8Array) {
      invariant(type.kind === 'text', `${struct.name}.${name} is no text`)
      store.ram.write(at, terminated(value, type.bytes))
    } else {
      invariant(type.kind === 'int', `${struct.name}.${name} is no integer`)
      store.ram.write(at, encodeInt(type, value))
    }
  }
}

/** strscpy(): at most `room` bytes with the NUL that ends them; the rest of the room is left as it is. */
function terminated(text: Uint8Array, room: number): Uint8Array {
  const out = new Uint8Array(Math.min(text.length, room - 1) + 1)
  out.set(text.subarray(0, out.length - 1))
  return out
}

/** The memory of a struct is zeroed. */
export function clearStored({ ram, target }: Store, struct: StructType, pa: PhysAddr): void {
  ram.write(pa, new Uint8Array(layoutOf(struct, target).size))
}

/**
 * strcmp() with a text of the kernel's own: the field is read as far as the comparison goes, past its end
 * if no NUL stops it.
 */
export function textEquals({ ram }: Store, pa: PhysAddr, text: string): boolean {
  const wanted = new TextEncoder().encode(`${text}\0`)
  return wanted.every((byte, at) => ram.read(phys(pa + BigInt(at)), 1)[0] === byte)
}

/** Text up to its NUL, however far away: what printk() makes of `%s`. */
export function readText({ ram, target }: Store, pa: PhysAddr): Uint8Array {
  const pieces: number[] = []
  for (let at = pa; pieces.length < target.pageSize; at = phys(at + 1n)) {
    const [byte] = ram.read(at, 1)
    if (!byte) break
    pieces.push(byte)
  }
  return Uint8Array.from(pieces)
}
