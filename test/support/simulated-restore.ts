/** What a simulated kernel gives back of an image, held against what the image itself says. */
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
/** Bytes of each folio that are compared. */
const SAMPLE = 16

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
  if (sessions.length === 0) return []
  const device = machine.user.open('/dev/liveupdate')
  if (failed(device)) return [`/dev/liveupdate: ${device.errno}`]
  return sessions.flatMap((session) => lostOf(machine, device, session, handover, base))
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
    const record = child(file, 'memfd')
    const wanted = [numberAt(record, 'size'), numberAt(record, 'pos')].map(String)
    const size = user.fstat(opened)
    const position = user.lseek(opened, 0, 'SEEK_CUR')
    const found = [failed(size) ? size.errno : size.size, failed(position) ? position.errno : position].map(
      String,
    )
    if (found.join() !== wanted.join()) return [`${where}: size and position ${found}, expected ${wanted}`]
    return differingFolios({ user } as LiveMachine, opened, record, handover, base).map(
      (index) => `${where}: page ${index}`,
    )
  })
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

/** Indexes of folios that do not begin as the image's memory does, as far as the image holds it. */
function differingFolios(
  { user }: Pick<LiveMachine, 'user'>,
  fd: number,
  record: Node | undefined,
  handover: Handover,
  { kernel }: Base,
): readonly bigint[] {
  const file = memfds(new Site(handover, kernel), 1).find((one) => one.record === record)
  const { pageSize } = handover.target
  const size = BigInt(numberAt(record, 'size') ?? 0n)
  const differing: bigint[] = []
  for (const { pfn, index } of file?.folios.values() ?? []) {
    const at = BigInt(index ?? 0n) * BigInt(pageSize)
    const left = size - at
    const sample = new Uint8Array(left < BigInt(SAMPLE) ? Math.max(0, Number(left)) : SAMPLE)
    const pa = phys(BigInt(pfn ?? 0n) * BigInt(pageSize))
    if (handover.memory.read(pa, sample) < sample.length) continue
    const read = user.pread(fd, sample.length, Number(at))
    if (failed(read) || !Buffer.from(read).equals(sample)) differing.push(BigInt(index ?? 0n))
  }
  return differing
}
