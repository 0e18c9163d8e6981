/** What LUO keeps in the memory of a live kernel, found from outside: by its addresses, by what is held, by text. */
import { layoutOf } from '../../abi/layout.ts'
import { luoFlbHeaderSer, luoSessionHeaderSer, luoV5 } from '../../abi/luo.ts'
import { type PhysAddr, phys } from '../../abi/memory.ts'
import { type FdtNode, fdtAt, getWord, subnode } from '../../simulate/libfdt.ts'
import type { Allocation } from '../../simulate/pages.ts'
import { readStored } from '../../simulate/stored.ts'
import { census, type LiveMachine } from './live.ts'

type Machine = Pick<LiveMachine, 'kernel'>

/** Address of the blob that KHO's root FDT names LUO: an FDT, from 7.2 on a struct. */
export function luoBlob({ kernel }: Machine): PhysAddr {
  const root = fdtAt(kernel.ram, kernel.kho.outgoing.rootFdt ?? phys(0))
  const node = root && subnode(root, 'LUO')
  return phys((node && (getWord(node, 'fdt') ?? getWord(node, 'preserved-data'))) ?? 0n)
}

/** A word of a node of LUO's FDT; undefined where there is none. */
function wordOf(machine: Machine, node: string, name: string): bigint | undefined {
  const fdt: FdtNode | undefined = fdtAt(machine.kernel.ram, luoBlob(machine))
  const found = fdt && subnode(fdt, node)
  return found && getWord(found, name)
}

/** The page of the FLBs. */
function flbPage(machine: Machine): PhysAddr {
  const inFdt = wordOf(machine, 'luo-flb', 'luo-flb-header')
  return phys(inFdt ?? readStored(machine.kernel, luoV5, luoBlob(machine)).flbs_pa)
}

/** FLBs that the page says to hold. */
export function writtenFlbs(machine: Machine): bigint {
  return readStored(machine.kernel, luoFlbHeaderSer, flbPage(machine)).count
}

/** Address of the first session's record in the array that releases before 7.2 have from the start. */
export function firstOfSessionArray(machine: Machine): PhysAddr {
  const area = wordOf(machine, 'luo-session', 'luo-session-header')
  if (area === undefined) throw new Error('the sessions stand in no array')
  return phys(area + BigInt(layoutOf(luoSessionHeaderSer, machine.kernel.target).size))
}

/** Units that are held after an act, and were not before. */
export function newlyHeld(machine: Machine, act: () => void): readonly Allocation[] {
  const before = new Set<bigint>(census(machine).map(({ pa }) => pa))
  act()
  return census(machine).filter(({ pa }) => !before.has(pa))
}

/** Where a text stands in memory that somebody holds. */
export function addressOf({ kernel }: Machine, text: string): PhysAddr | undefined {
  for (const { pa, order } of kernel.pages.allocations()) {
    const at = Buffer.from(kernel.ram.read(pa, kernel.target.pageSize * 2 ** order)).indexOf(text)
    if (at >= 0) return phys(pa + BigInt(at))
  }
  return undefined
}
