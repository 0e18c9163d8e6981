/** What a simulated kernel gives back of an image, held against what the image itself says. */
import { consoleLine, formatMessage, messagePrefix } from '../../abi/console.ts'
import { LIVEUPDATE_TEST_FLBS } from '../../abi/liveupdate-test.ts'
import { memfdSeals } from '../../abi/memfd.ts'
import type { PhysicalMemory } from '../../abi/memory.ts'
import { phys } from '../../abi/memory.ts'
import type { Handover } from '../../inspect/decode.ts'
import { beforeNul, decodeText } from '../../inspect/text.ts'
import { child, itemsAt, type Node, numberAt } from '../../inspect/tree.ts'
import { memfds } from '../../mutate/record-site.ts'
import { Site } from '../../mutate/site.ts'
import { failed } from '../../simulate/answer.ts'
import { imageHandover } from '../../simulate/image-handover.ts'
import { simulatedRelease } from '../../simulate/release.ts'
import { LAB_CMDLINE, releaseOf } from './captured.ts'
import type { Base } from './fault-bases.ts'
import { type LiveMachine, takeOverLive } from './live.ts'

/** RAM of the machines of the captured images: 512 MiB, on arm64 from 1 GiB. */
const RAM_BYTES = 1n << 29n
/** What does not come back; nothing where everything does. */
export function notRestored(
  name: string,
  memory: PhysicalMemory,
  handover: Handover,
  base: Base,
): readonly string[] {
  const machine = takeOver(name, memory, base)
  if (machine.kernel.state === 'crashed') return [`the kernel died: ${machine.console().at(-1)}`]
  const sessions = itemsAt(child(handover.tree, 'luo'), 'sessions')
  const lost = [...lostRegions(machine, handover), ...lostMetadata(machine, handover)]
  if (sessions.length === 0) return lost
  const device = machine.user.open('/dev/liveupdate')
  if (failed(device)) return [...lost, `/dev/liveupdate: ${device.errno}`]
  const lostSessions = sessions.flatMap((session) => lostOf(machine, device, session, handover, base))
  return [...lost, ...lostFlbs(machine, handover), ...lostSessions]
}

/** Regions of the command line that are not where, or not as large as, the image says; it may tell of none at all. */
function lostRegions({ kernel }: LiveMachine, { tree }: Handover): readonly string[] {
  if (!child(tree, 'memblock')) return []
  const told = itemsAt(child(tree, 'memblock'), 'reserve_mem')
  return kernel.reserveMem.regions.flatMap(({ name, start, size, revived }) => {
    const node = told.find(({ segment }) => typeof segment === 'object' && segment.key === name)
    const isSame = node && numberAt(node, 'start') === start && numberAt(node, 'size') === size
    return revived && isSame ? [] : [`region ${name}: ${revived ? 'elsewhere' : 'not revived'}`]
  })
}

/** Who handed over, and how often, as kexec-metadata says. */
function lostMetadata({ kernel }: LiveMachine, { tree }: Handover): readonly string[] {
  const record = child(tree, 'kexec_metadata')
  if (record?.kind !== 'record') return []
  const { release, count } = kernel.kho.outgoing.previous ?? {}
  const told = [textOf(record, 'previous_release'), numberAt(record, 'kexec_count')]
  return String(told) === String([release, count])
    ? []
    : [`kexec-metadata: ${release} ${count}, expected ${told}`]
}

/** FLBs of the test module whose data it did not get; it looks for all of them in the boot. */
function lostFlbs(machine: LiveMachine, { tree }: Handover): readonly string[] {
  const told = itemsAt(child(tree, 'luo'), 'flbs').map((flb) => textOf(flb, 'name'))
  const own = LIVEUPDATE_TEST_FLBS.filter(({ name }) => told.includes(name))
  const line = consoleLine('FLB_TEST_FOUND', machine.kernel.release)
  const text = (name: string): string =>
    messagePrefix(line?.by ?? '') + formatMessage(line?.format ?? '', name)
  return own.flatMap(({ name }) => (machine.console().includes(text(name)) ? [] : [`FLB ${name}`]))
}

function takeOver(name: string, memory: PhysicalMemory, { fdt }: Base): LiveMachine {
  const release = releaseOf(name)
  const spec = simulatedRelease(release)
  if (!spec) throw new Error(`${release} is not simulated`)
  const arch = name.includes('arm64') ? 'arm64' : 'x86_64'
  const start = arch === 'arm64' ? 1n << 30n : 0n
  const ram = [{ start, end: start + RAM_BYTES }]
  const handover = imageHandover({ memory, arch, fdt: phys(fdt), spec, ram })
  const config = { testKho: true, liveupdateTest: true }
  return takeOverLive(handover, { release, cmdline: LAB_CMDLINE, config })
}

function lostOf(
  { user }: LiveMachine,
  device: number,
  session: Node,
  handover: Handover,
  base: Base,
): readonly string[] {
  const name = textOf(session, 'name')
  const fd = user.retrieveSession(device, bytesOf(session, 'name'))
  if (failed(fd)) return [`session ${name}: ${fd.errno}`]
  return itemsAt(session, 'files').flatMap((file) => {
    // Entries of no handler are room that a wrong count claims.
    if (textOf(file, 'compatible') === '') return []
    const token = BigInt(numberAt(file, 'token') ?? 0n)
    const opened = user.retrieveFd(fd, token)
    const where = `${name} ${token.toString(16)}`
    if (failed(opened)) return [`${where}: ${opened.errno}`]
    const record = child(file, 'memfd') ?? undamagedRecord(base, session, file)
    const wanted = [numberAt(record, 'size'), numberAt(record, 'pos'), sealsOf(record)]
    const status = user.fstat(opened)
    const size = failed(status) ? status : status.size
    const position = user.lseek(opened, 0, 'SEEK_CUR')
    const found = [size, position, user.getSeals(opened)].map((one) => (failed(one) ? one.errno : one))
    if (found.join() !== wanted.join())
      return [`${where}: size, position and seals ${found}, expected ${wanted}`]
    return differingPages({ user }, opened, record, handover, base).map((index) => `${where}: page ${index}`)
  })
}

/** The record of the same file in the undamaged image, where the kernel reads one at an address that no reader follows. */
function undamagedRecord({ handover }: Base, session: Node, file: Node): Node | undefined {
  const same = itemsAt(child(handover.tree, 'luo'), 'sessions').find(
    (one) => textOf(one, 'name') === textOf(session, 'name'),
  )
  const files = itemsAt(same, 'files')
  return child(
    files.find((one) => numberAt(one, 'token') === numberAt(file, 'token')),
    'memfd',
  )
}

/** The seals that a file has by its record, up to memfd-v1 those of one made without sealing. */
function sealsOf(record: Node | undefined): number {
  const told = numberAt(record, 'seals')
  return told === undefined ? memfdSeals.SEAL : Number(told)
}

/** A name as it is stored, up to its NUL: it may be no text at all. */
function bytesOf(node: Node, field: string): Uint8Array {
  const found = child(node, field)
  return found?.kind === 'value' && found.value instanceof Uint8Array
    ? beforeNul(found.value)
    : new Uint8Array()
}

function textOf(node: Node, field: string): string {
  return decodeText(bytesOf(node, field))
}

/** Indexes of pages that do not hold what the image's memory does, as far as it holds them. */
function differingPages(
  { user }: Pick<LiveMachine, 'user'>,
  fd: number,
  record: Node | undefined,
  handover: Handover,
  { kernel }: Base,
): readonly bigint[] {
  const site = new Site(handover, kernel)
  const file = memfds(site, 1).find((one) => one.record === record)
  const size = BigInt(numberAt(record, 'size') ?? 0n)
  const differing: bigint[] = []
  for (const { pfn, index } of file?.folios.values() ?? []) {
    const head = BigInt(pfn ?? 0n) * site.pageSize
    const pages = 2 ** (site.unitAt(head)?.order ?? 0)
    for (let page = 0n; page < pages; page++) {
      const at = (BigInt(index ?? 0n) + page) * site.pageSize
      const length = size - at < site.pageSize ? Math.max(0, Number(size - at)) : Number(site.pageSize)
      const told = site.bytesAt(head + page * site.pageSize, length)
      if (!told || length === 0) continue
      const read = user.pread(fd, length, at)
      if (failed(read) || !Buffer.from(read).equals(told)) differing.push(at / site.pageSize)
    }
  }
  return differing
}
