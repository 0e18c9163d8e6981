/** The machine's device tree with what a kernel that is entered by kexec finds in its node /chosen. */
import { addressRange, type chosenNode } from '../abi/boot.ts'
import { CONTAINER_TARGET } from '../abi/container.ts'
import { buildFdt } from '../encode/fdt.ts'
import type { FdtTree } from '../encode/handover.ts'
import type { KhoNote } from '../encode/image-note.ts'
import { encodeStruct } from '../encode/write.ts'
import { type FdtNode, readFdt } from '../inspect/fdt.ts'
import { MachineFailure } from './failure.ts'

export interface Chosen {
  readonly boot: KhoNote
  readonly commandLine: string
  readonly initrd?: { readonly start: bigint; readonly end: bigint } | undefined
}

/** Room for what is added, and for a tree that its writer had not packed. */
const ROOM_BYTES = 64 * 1024

export function chooseIn(blob: Uint8Array, chosen: Chosen): Uint8Array {
  const { root } = readFdt(blob)
  if (!root) throw new MachineFailure("QEMU's device tree cannot be read")
  const tree = treeOf(root)
  const node = tree.children.find(({ name }) => name === 'chosen') ?? {
    name: 'chosen',
    properties: [],
    children: [],
  }
  const properties = chosenProperties(chosen)
  const kept = node.properties.filter(({ name }) => !properties.some((added) => added.name === name))
  const children = tree.children.filter((child) => child !== node)
  const built = buildFdt(
    { ...tree, children: [...children, { ...node, properties: [...kept, ...properties] }] },
    'sequential',
    blob.length + chosen.commandLine.length + ROOM_BYTES,
  )
  if (!built) throw new MachineFailure("QEMU's device tree has no room for the handover's properties")
  return built.buffer.subarray(0, built.totalsize)
}

type Property = FdtTree['properties'][number]

function chosenProperties({ boot, commandLine, initrd }: Chosen): readonly Property[] {
  const range = (name: keyof typeof chosenNode.properties, address: bigint, size: bigint): Property => ({
    name,
    value: encodeStruct(addressRange, { address, size }, CONTAINER_TARGET),
  })
  return [
    range('linux,kho-fdt', boot.fdt_addr, boot.fdt_size),
    range('linux,kho-scratch', boot.scratch_addr, boot.scratch_size),
    { name: 'bootargs', value: new TextEncoder().encode(`${commandLine}\0`) },
    ...(initrd
      ? [
          { name: 'linux,initrd-start', value: cells(initrd.start) },
          { name: 'linux,initrd-end', value: cells(initrd.end) },
        ]
      : []),
  ]
}

function cells(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, value)
  return bytes
}

function treeOf(node: FdtNode): FdtTree {
  return {
    name: node.name,
    properties: node.properties.map(({ name = '', value }) => ({ name, value })),
    children: node.children.map(treeOf),
  }
}
