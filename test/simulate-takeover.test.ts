/** Real kernels' handovers, taken over by the simulated kernel of the same release. */
import { readFileSync } from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseAddress } from '../abi/memory.ts'
import { imageHandover } from '../simulate/image-handover.ts'
import { simulatedRelease } from '../simulate/release.ts'
import type { Userspace } from '../simulate/userspace.ts'
import { sumOf } from './support/guest.ts'
import { expectedOf, openReal, ROOT } from './support/images.ts'
import { type LiveMachine, takeOverLive, value } from './support/live.ts'

/** What the captured guests were given on their command line, and built with. */
const CMDLINE =
  'kho=on liveupdate=on kho_scratch=16M,64M,16M reserve_mem=1M:4096:trace reserve_mem=64K:65536:oops'
const CONFIG = { liveupdateTest: true }

const IMAGES = [
  ['linux-6.19-x86_64-basic', 'linux-6.19'],
  ['kho-v2-x86_64-basic', 'kho-v2'],
  ['linux-7.1-x86_64-basic', 'linux-7.1'],
  ['linux-7.3-x86_64-basic', 'linux-7.3'],
  ['linux-7.3-arm64-4k-basic', 'linux-7.3'],
] as const

/** What the next kernel itself found (fixtures/real/README.md); it made no sum of the empty file. */
const FILES = [
  { session: 'vm-alpha', token: 1n, size: 10000, pos: 1234, seals: 0, sum: '5d73c07134004785' },
  { session: 'vm-alpha', token: 2n, size: 0, pos: 0, seals: 0, sum: sumOf(new Uint8Array(0)) },
  {
    session: 'vm-alpha',
    token: 0xdead_beef_cafe_f00dn,
    size: 3145728,
    pos: 0,
    seals: 0,
    sum: '37a6056ac5371464',
  },
  { session: 'database', token: 7n, size: 20480, pos: 0, seals: 6, sum: 'abd15aad7ab19156' },
  { session: 'database', token: 8n, size: 1048576, pos: 0, seals: 0, sum: '4c139be68aa5e327' },
] as const
const SESSIONS = ['vm-alpha', 'database', 'no-files-here'] as const
const ONLY_SEAL = 1

async function takeOver(name: string, release: string): Promise<LiveMachine> {
  const fdt = parseAddress(expectedOf(name).kho.fdt)
  const spec = simulatedRelease(release)
  if (fdt === undefined || !spec) throw new Error(`${name} cannot be taken over`)
  const arch = name.includes('arm64') ? 'arm64' : 'x86_64'
  const handover = imageHandover({ memory: await openReal(name), arch, fdt, spec })
  return takeOverLive(handover, { release, cmdline: CMDLINE, config: CONFIG })
}

function foundIn(user: Userspace, session: number, token: bigint): Omit<(typeof FILES)[number], 'session'> {
  const fd = value(user.retrieveFd(session, token))
  const size = Number(value(user.fstat(fd)).size)
  const found = {
    token,
    size,
    pos: Number(value(user.lseek(fd, 0, 'SEEK_CUR'))),
    seals: value(user.getSeals(fd)),
    sum: sumOf(value(user.pread(fd, size, 0))),
  }
  return found as Omit<(typeof FILES)[number], 'session'>
}

describe.each(IMAGES)('%s, taken over by %s', (name, release) => {
  let machine: LiveMachine
  const sessions = new Map<string, number>()

  beforeAll(async () => {
    machine = await takeOver(name, release)
    const lu = machine.device()
    for (const session of SESSIONS) sessions.set(session, value(machine.user.retrieveSession(lu, session)))
  })

  test('the kernel says about live update what the real one said', () => {
    if (name.includes('arm64')) return
    const said = readFileSync(`${ROOT}fixtures/real/${name}.console.txt`, 'utf8')
      .split('\n')
      .filter((line) => /^2 (luo|liveupdate test): /.test(line))
      .map((line) => line.slice(2))
    expect(machine.console().filter((line) => /^(luo|liveupdate test): /.test(line))).toEqual(said)
  })

  test.each(FILES)('$session $token is what the guest wrote', ({ session, token, ...file }) => {
    const seals = release === 'linux-6.19' ? ONLY_SEAL : file.seals
    const found = foundIn(machine.user, sessions.get(session) ?? -1, token)
    expect(found).toEqual({ token, ...file, seals })
  })

  test('finish, and FLBs with it, once every file is finished', () => {
    const before = machine.console().length
    for (const session of SESSIONS) value(machine.user.finish(sessions.get(session) ?? -1))
    const finished = ['v2', 'v1', 'v0'].map(
      (version) => `liveupdate test: liveupdate-test-flb-${version}: finish was triggered`,
    )
    expect(machine.console().slice(before)).toEqual(release === 'linux-6.19' ? [] : finished)
  })

  test('closing everything gives all memory of live update back that the kernel gives back', () => {
    const { user, live } = machine
    for (const fd of sessions.values()) value(user.close(fd))
    expect(live.luo?.sessions.incoming.size).toBe(0)
  })
})
