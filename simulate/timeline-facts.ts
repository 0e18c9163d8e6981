/** Where things lie in the simulated machine, for the log of a timeline. */
import { hex, type PhysAddr, phys } from '../abi/memory.ts'
import { componentByName, releaseByName } from '../abi/registry.ts'
import type { StructType } from '../abi/schema.ts'
import { walkMap } from './handover.ts'
import type { Kernel } from './kernel.ts'
import type { KhoData } from './kho-incoming.ts'
import { fdtAt, getWord, nodeName, subnodes } from './libfdt.ts'
import type { LiveUpdate } from './live-update.ts'
import { readStored } from './stored.ts'
import type { Fact } from './timeline-event.ts'

/** Bytes and number of the units in a kernel's map, as it stands in memory. */
export function preservedIn(kernel: Kernel): { readonly bytes: bigint; readonly units: number } {
  const root = kernel.kho.outgoing.map?.root
  let pages = 0
  let units = 0
  const count = (_frame: number, order: number): void => {
    pages += 2 ** order
    units++
  }
  if (root !== undefined) walkMap(kernel, root, count)
  return { bytes: BigInt(pages) * BigInt(kernel.target.pageSize), units }
}

/** What a kernel that is gone left: the root FDT, what it points to, and how much is preserved. */
export function handoverFacts(kernel: Kernel, boot: KhoData): readonly Fact[] {
  const { form } = kernel.spec
  const { bytes, units } = preservedIn(kernel)
  const root = fdtAt(kernel.ram, phys(boot.fdt_addr))
  const map = getWord(root, form.mapProperty)
  const subtrees = [...subnodes(root)].flatMap((node): Fact[] => {
    const pa = getWord(node, form.addressProperty)
    return pa === undefined ? [] : [{ name: nodeName(node), pa: phys(pa) }]
  })
  return [
    { name: 'preserved', value: bytes, isBytes: true },
    { name: 'units', value: units },
    { name: 'root FDT', pa: phys(boot.fdt_addr) },
    ...(map === undefined ? [] : [{ name: 'memory map', pa: phys(map) }]),
    { name: 'scratch array', pa: phys(boot.scratch_addr) },
    ...subtrees,
  ]
}

/** Where a preserved file's own record is; the handle of a driver that is not modelled is no address. */
export function fileFacts(
  kernel: Kernel,
  { luo }: LiveUpdate,
  session: string,
  token: bigint,
  isMemfd: boolean,
): readonly Fact[] {
  const handle = [...(luo?.sessions.outgoing.values() ?? [])]
    .find(({ label }) => label === session)
    ?.files.handleOf(token)
  if (handle === undefined) return []
  return isMemfd ? memfdFacts(kernel, phys(handle)) : [{ name: 'handle', value: hex(handle) }]
}

/** What a release keeps of a memfd; undefined where it has no handler for them. */
export function memfdStruct(release: string): StructType | undefined {
  const id = releaseByName(release)?.versions.memfd
  const root = componentByName('memfd').versions.find((version) => version.id === id)?.root
  return root?.kind === 'struct' ? root : undefined
}

function memfdFacts(kernel: Kernel, pa: PhysAddr): readonly Fact[] {
  const root = memfdStruct(kernel.release)
  if (!root) return []
  const { nr_folios, folios } = readStored(kernel, root, pa)
  const { first } = folios as { readonly first: bigint }
  const area = first === 0n ? [] : [{ name: 'folios', pa: phys(first), value: `nr_folios ${nr_folios}` }]
  return [{ name: root.name, pa }, ...area]
}
