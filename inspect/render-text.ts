/**
 * The decoded tree for people: what was handed over, sizes in units, addresses aligned, unknown parts
 * raw. Pure text; colour comes in as a Paint.
 */
import { type Fault, formatHop } from '../abi/fault.ts'
import { hex, hex64 } from '../abi/memory.ts'
import { formatContract, releases } from '../abi/registry.ts'

import type { Handover } from './decode.ts'
import { folioOrders } from './folios.ts'
import type { PreservedMap } from './map.ts'
import type { Paint } from './paint.ts'
import type { Reading } from './reading.ts'
import { quoted, showFlags, showScalar } from './scalar.ts'
import { decodeText, formatBytes, formatCount, printable } from './text.ts'
import { child, childrenOf, itemsAt, type Node, numberAt, type RecordNode, type ValueNode } from './tree.ts'
import type { VmallocArray } from './vmalloc.ts'

export interface TextOptions {
  readonly paint: Paint
  /** List every extent of preserved memory. */
  readonly extents: boolean
}

/** A line and what hangs below it. */
interface Branch {
  readonly text: string
  readonly below: readonly Branch[]
}

/** Extents shown without being asked for all. */
const EXTENTS_SHOWN = 12
const RAW_BYTES_SHOWN = 48

export function renderText(handover: Handover, options: TextOptions): string {
  const printer = new Printer(handover, options)
  return [...printer.handover(), ''].join('\n')
}

/** One node and what is below it, for `--only`. */
export function renderNode(handover: Handover, node: Node, options: TextOptions): string {
  const printer = new Printer(handover, options)
  return [...drawn(printer.branchOf(node)), ''].join('\n')
}

/** Faults, one block each: code, path and place, what was expected, the pointers that led there. */
export function renderFaults(faults: readonly Fault[], paint: Paint): string[] {
  return faults.flatMap((fault) => {
    const colour =
      fault.severity === 'error' ? paint.fault : fault.severity === 'warning' ? paint.warn : paint.dim
    const place = fault.path === '' ? '' : ` ${printable(fault.path)}`
    const offset = fault.file ? `; ${printable(fault.file.file)} offset ${hex(fault.file.offset)}` : ''
    return [
      `${colour(`${fault.severity} ${fault.code}`)}${place}: ${printable(fault.message)}`,
      `  at ${hex64(fault.pa)}, ${fault.length} bytes${offset}`,
      ...(fault.expected === undefined
        ? []
        : [`  expected ${printable(fault.expected)}; found ${printable(fault.found ?? '')}`]),
      ...fault.via.map((hop) => paint.dim(`  via ${printable(formatHop(hop))}`)),
    ]
  })
}

function* drawn(branch: Branch): Generator<string> {
  yield branch.text
  yield* drawnBelow(branch.below, '')
}

function* drawnBelow(branches: readonly Branch[], indent: string): Generator<string> {
  for (const [i, branch] of branches.entries()) {
    const last = i === branches.length - 1
    yield `${indent}${last ? '└─ ' : '├─ '}${branch.text}`
    yield* drawnBelow(branch.below, `${indent}${last ? '   ' : '│  '}`)
  }
}

function leaf(text: string): Branch {
  return { text, below: [] }
}

class Printer {
  readonly #handover: Handover
  readonly #paint: Paint
  readonly #options: TextOptions

  constructor(handover: Handover, options: TextOptions) {
    this.#handover = handover
    this.#paint = options.paint
    this.#options = options
  }

  *handover(): Generator<string> {
    const { tree, version, target } = this.#handover
    const what = version ? formatContract(version.contract) : 'unknown version'
    const pages = `${target.pageSize / 1024}K pages`
    yield this.#paint.title(`KHO handover, ${what}, ${pages}${this.#carriers()}`)
    const below = tree.children.map((node) => this.branchOf(node))
    yield* drawnBelow(below, '')
  }

  /** The releases that speak this version; the form is named where the string alone does not tell. */
  #carriers(): string {
    const { version } = this.#handover
    if (!version) return ''
    const names = releases
      .filter((release) => release.versions.kho === version.id)
      .map((release) => release.name)
    const form = version.id === formatContract(version.contract) ? '' : ` (${version.id})`
    return `${form}${names.length > 0 ? `, as of ${names.join(', ')}` : ', in no release'}`
  }

  branchOf(node: Node): Branch {
    if (typeof node.segment === 'string') {
      switch (node.segment) {
        case 'kho':
          return this.#kho(node)
        case 'preserved':
          return node.kind === 'preserved' ? this.#preserved(node.map) : this.#generic(node)
        case 'scratch':
          return this.#scratch(node)
        case 'subtrees':
          return this.#subtrees(node)
        case 'memblock':
          return this.#memblock(node)
        case 'kexec_metadata':
          return this.#kexecMetadata(node)
        case 'luo':
          return this.#luo(node)
        case 'memfd':
          return this.#memfd(node)
      }
    }
    return this.#generic(node)
  }

  #kho(node: Node): Branch {
    const map = this.#handover.tree.children.find((other) => other.kind === 'preserved')
    if (node.kind !== 'record' || numberAt(node, 'fdt') === undefined) return this.#generic(node)
    const pages = map?.kind === 'preserved' ? this.#mapPages(map.map) : ''
    const others = node.children.filter(
      ({ segment }) => !['fdt', 'totalsize', 'compatible', 'memory_map'].includes(String(segment)),
    )
    return {
      text: `${this.#title('kho')} ${this.#text(node, 'compatible')}`,
      below: [
        leaf(`root FDT    ${this.#address(node, 'fdt')}  ${numberAt(node, 'totalsize') ?? '?'} bytes`),
        leaf(`memory map  ${this.#address(node, 'memory_map')}  ${pages}`),
        ...this.#reading(),
        ...others.map((other) => this.#generic(other)),
      ],
    }
  }

  /** How the bytes were read and why, where the image alone leaves a choice. */
  #reading(): Branch[] {
    const { readings } = this.#handover
    const [best, ...others] = readings
    if (!best || others.length === 0) return []
    const name = ({ version, target }: Reading): string => `${version.id} at ${target.pageSize / 1024}K pages`
    const rivals = others
      .filter(({ target }) => target.pageSize === best.target.pageSize)
      .map((rival) =>
        leaf(
          this.#paint.dim(
            `not ${name(rival)}: ${rival.reasons.find((reason) => reason.startsWith('-')) ?? 'nothing speaks for it alone'}`,
          ),
        ),
      )
    const reasons = best.reasons.map((reason) => leaf(this.#paint.dim(reason)))
    return [{ text: `read as     ${name(best)}`, below: [...reasons, ...rivals] }]
  }

  #mapPages(map: PreservedMap): string {
    const roles = map.edge.kind === 'radix' ? (['node', 'leaf'] as const) : (['chunk', 'bitmap'] as const)
    const counts = roles.map((role) => count(map.pages.filter((page) => page.role === role).length, role))
    return `${map.edge.kind === 'radix' ? 'radix tree' : 'chunk list'} of ${counts.join(' and ')}`
  }

  #preserved(map: PreservedMap): Branch {
    const { entries, bytes, byOrder, extentCount } = map.summary()
    const orders = [...byOrder].map(([order, units]) => {
      const size = BigInt(units) * (BigInt(map.pageSize) << BigInt(order))
      return leaf(
        `order ${String(order).padStart(2)}  ${formatCount(units).padStart(11)} × ${formatBytes(BigInt(map.pageSize) << BigInt(order)).padEnd(8)} ${formatBytes(size)}`,
      )
    })
    const head = `${this.#title('preserved')} ${this.#number(formatBytes(bytes))} in ${count(entries, 'unit')}, ${count(extentCount, 'extent')}`
    return {
      text: head,
      below: [
        { text: 'by order', below: orders },
        { text: 'extents', below: this.#extents(map, extentCount) },
      ],
    }
  }

  #extents(map: PreservedMap, total: number): Branch[] {
    const shown: Branch[] = []
    const limit =
      this.#options.extents || total <= EXTENTS_SHOWN + 1 ? Number.POSITIVE_INFINITY : EXTENTS_SHOWN
    for (const { start, end } of map.extents()) {
      if (shown.length >= limit) {
        shown.push(leaf(this.#paint.dim(`… ${formatCount(total - shown.length)} more, all with --extents`)))
        break
      }
      shown.push(
        leaf(`${this.#paint.address(`${hex64(start)} - ${hex64(end)}`)}  ${formatBytes(end - start)}`),
      )
    }
    return shown
  }

  #scratch(node: Node): Branch {
    const areas = childrenOf(node).map((area, index) => {
      const start = BigInt(numberAt(area, 'addr') ?? 0n)
      const size = BigInt(numberAt(area, 'size') ?? 0n)
      const role = index === 0 ? 'low memory' : index === 1 ? 'global' : `node ${index - 2}`
      return leaf(
        `${this.#paint.address(`${hex64(start)} - ${hex64(start + size)}`)}  ${formatBytes(size)}  ${role}`,
      )
    })
    return { text: `${this.#title('scratch')} ${count(areas.length, 'area')}`, below: areas }
  }

  #subtrees(node: Node): Branch {
    const items = childrenOf(node)
    const names = items.map((item) => this.#name(item))
    const width = widest(names)
    const below = items.map((item, index): Branch => {
      const size = numberAt(item, 'size')
      const sized = size === undefined ? '' : `  ${size} bytes`
      const blob = child(item, 'blob')
      return {
        text: `${(names[index] as string).padEnd(width)}  ${this.#address(item, 'phys')}${sized}`,
        below: blob ? [this.#generic(blob)] : [],
      }
    })
    return { text: `${this.#title('subtrees')} ${items.length}`, below }
  }

  #memblock(node: Node): Branch {
    const regions = itemsAt(node, 'reserve_mem')
    const width = widest(regions.map((region) => this.#name(region)))
    const below = regions.map((region) => {
      const start = BigInt(numberAt(region, 'start') ?? 0n)
      const size = BigInt(numberAt(region, 'size') ?? 0n)
      const range = this.#paint.address(`${hex64(start)} - ${hex64(start + size)}`)
      return leaf(`${this.#name(region).padEnd(width)}  ${range}  ${formatBytes(size)}`)
    })
    return {
      text: `${this.#title('memblock')} ${this.#text(node, 'compatible')}, ${count(regions.length, 'reserve_mem region')}`,
      below,
    }
  }

  #kexecMetadata(node: Node): Branch {
    const from = `from Linux ${this.#text(node, 'previous_release')}`
    const version = numberAt(node, 'version')
    return leaf(
      `${this.#title('kexec_metadata')} version ${version}, ${from}, handover ${numberAt(node, 'kexec_count')} since cold boot`,
    )
  }

  #luo(node: Node): Branch {
    const sessions = itemsAt(node, 'sessions')
    const flbs = itemsAt(node, 'flbs')
    const files = sessions.reduce((sum, session) => sum + itemsAt(session, 'files').length, 0)
    const number = numberAt(node, 'liveupdate_num')
    const counts = [count(sessions.length, 'session'), count(files, 'file'), count(flbs.length, 'FLB')].join(
      ', ',
    )
    const known = [
      'compatible',
      'liveupdate_num',
      'sessions',
      'sessions_pa',
      'flbs',
      'flbs_pa',
      'luo-session',
      'luo-flb',
    ]
    const others = childrenOf(node).filter(({ segment }) => !known.includes(String(segment)))
    return {
      text: `${this.#title('luo')} ${this.#text(node, 'compatible')}, live update ${number ?? '?'}, ${counts}${unserialized(node)}`,
      below: [
        ...sessions.map((session) => this.#session(session)),
        ...flbs.map((flb) => this.#flb(flb)),
        ...others.map((other) => this.#generic(other)),
      ],
    }
  }

  #session(session: Node): Branch {
    const files = itemsAt(session, 'files')
    const text = `session ${this.#paint.text(quoted(this.#rawName(session)))} ${count(files.length, 'file')}`
    const tokens = files.map((file) => hex(numberAt(file, 'token') ?? 0))
    const width = widest(tokens)
    const below = files.map((file, index) => {
      const token = (tokens[index] as string).padEnd(width)
      return leaf(`token ${this.#paint.number(token)}  ${this.#file(file)}`)
    })
    return { text, below }
  }

  #file(file: Node): string {
    const handler = this.#text(file, 'compatible')
    const memfd = child(file, 'memfd')
    const data = this.#paint.address(hex64(numberAt(file, 'data') ?? 0))
    return `${handler} at ${data}  ${memfd ? this.#memfdText(memfd) : '(opaque handle)'}`
  }

  #memfd(memfd: Node): Branch {
    return leaf(
      `${this.#title('memfd')} at ${this.#paint.address(hex64(memfd.pa))}  ${this.#memfdText(memfd)}`,
    )
  }

  #memfdText(memfd: Node): string {
    const parts = [this.#number(formatBytes(numberAt(memfd, 'size') ?? 0))]
    const pos = numberAt(memfd, 'pos')
    if (pos) parts.push(`position ${formatCount(pos)}`)
    const seals = child(memfd, 'seals')
    if (seals?.kind === 'value' && seals.value !== 0) parts.push(`seals ${this.#flags(seals)}`)
    const flags = numberAt(memfd, 'flags')
    if (flags) parts.push(`flags ${hex(flags)}`)
    parts.push(this.#folios(memfd))
    return parts.join(', ')
  }

  /** Folio count and order mix: `257 folios (256 × 4 KiB, 1 × 2 MiB) in 1 chunk`. */
  #folios(memfd: Node): string {
    const total = numberAt(memfd, 'nr_folios') ?? 0
    const folios = child(memfd, 'folios')
    const bulk = folios?.kind === 'record' ? folios.bulk : undefined
    if (!bulk) return count(total, 'folio')
    const map = this.#handover.tree.children.find((node) => node.kind === 'preserved')
    const orders = map?.kind === 'preserved' ? folioOrders(bulk, map.map) : new Map<number, number>()
    const mix = [...orders].map(
      ([order, n]) => `${formatCount(n)} × ${formatBytes(bulk.target.pageSize * 2 ** order)}`,
    )
    return `${count(total, 'folio')}${mix.length > 0 ? ` (${mix.join(', ')})` : ''} in ${this.#chunks(bulk, 'vmalloc chunk')}`
  }

  #chunks(bulk: VmallocArray, noun: string): string {
    return bulk.complete ? count(bulk.chunks.length, noun) : `${noun}s of which some are not in the image`
  }

  #flb(flb: Node): Branch {
    const references = count(numberAt(flb, 'count') ?? 0, 'reference')
    return leaf(
      `FLB ${this.#paint.text(quoted(this.#rawName(flb)))} data ${hex(numberAt(flb, 'data') ?? 0)}, ${references}`,
    )
  }

  /** Any node, by its schema alone. */
  #generic(node: Node): Branch {
    const key = this.#paint.key(segmentText(node))
    switch (node.kind) {
      case 'value':
        return leaf(`${key} = ${showScalar(node.type, node.value)}`)
      case 'fact':
        return leaf(
          `${key} = ${node.show === 'hex' ? hex(BigInt(node.value)) : node.show === 'bytes' ? formatCount(BigInt(node.value)) : String(node.value)}`,
        )
      case 'raw':
        return leaf(`${key} ${this.#paint.dim(hexBytes(node.bytes))}`)
      case 'preserved':
        return this.#preserved(node.map)
      case 'record':
        return {
          text: `${key}${this.#version(node)}`,
          below: node.children.map((inner) => this.branchOf(inner)),
        }
      case 'list':
        return { text: `${key} ${node.items.length}`, below: node.items.map((inner) => this.branchOf(inner)) }
    }
  }

  #version(node: RecordNode): string {
    const bulk = node.bulk
      ? `, ${count(node.bulk.count, node.bulk.item)} in ${this.#chunks(node.bulk, 'chunk')}`
      : ''
    return `${node.version ? ` ${node.version}` : ''}${bulk}`
  }

  #title(text: string): string {
    return this.#paint.title(text)
  }

  #number(text: string): string {
    return this.#paint.number(text)
  }

  #address(node: Node, key: string): string {
    const value = numberAt(node, key)
    return value === undefined ? '(not in the image)' : this.#paint.address(hex64(value))
  }

  #flags({ type, value }: ValueNode): string {
    return type.kind === 'int' && type.flags ? showFlags(value as number, type.flags) : String(value)
  }

  #rawName(node: Node): string {
    const name = child(node, 'name')
    return name?.kind === 'value' && name.value instanceof Uint8Array ? decodeText(name.value) : ''
  }

  #name(node: Node): string {
    return printable(this.#rawName(node))
  }

  #text(node: Node, key: string): string {
    const found = child(node, key)
    if (found?.kind !== 'value' || !(found.value instanceof Uint8Array)) return '(missing)'
    return printable(decodeText(found.value))
  }
}

/** Sessions are serialized by the reboot call only; before it, the pointer is 0. */
function unserialized(luo: Node): string {
  return numberAt(luo, 'sessions_pa') === 0n ? ' (sessions_pa is 0: none, or before the reboot call)' : ''
}

function count(n: number | bigint, noun: string): string {
  const plural = noun === 'leaf' ? 'leaves' : `${noun}s`
  return `${formatCount(n)} ${BigInt(n) === 1n ? noun : plural}`
}

/** Lists can be longer than a call takes arguments. */
function widest(texts: readonly string[]): number {
  return texts.reduce((width, text) => Math.max(width, text.length), 0)
}

function segmentText(node: Node): string {
  const { segment } = node
  if (typeof segment === 'string') return printable(segment)
  return `[${segment.key === undefined ? segment.index : printable(segment.key)}]`
}

function hexBytes(bytes: Uint8Array): string {
  const shown = Buffer.from(bytes.subarray(0, RAW_BYTES_SHOWN))
    .toString('hex')
    .replace(/(..)(?=.)/g, '$1 ')
  return bytes.length > RAW_BYTES_SHOWN ? `${shown} … (${bytes.length} bytes)` : shown
}
