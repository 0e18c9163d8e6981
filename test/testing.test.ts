/** What is offered to other people's tests: the fixtures command, the library entry, the matchers. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { fixture, fixtureNames, fixtures } from '../testing/fixtures.ts'
import '../testing/vitest.ts'
import { openImage } from '../inspect/image.ts'
import { ran } from './support/command-line.ts'
import { realPath } from './support/images.ts'
import { chosenReleases, isWhole } from './support/machines.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

interface Manifest {
  readonly release: string
  readonly fixtures: readonly {
    readonly name: string
    readonly file: string
    readonly sessions: number
    readonly files: number
  }[]
}

/** A folder of sparse files, without the gigabyte of their holes. */
function archived(folder: string): Buffer {
  const args = ['--create', '--sparse', '--sort=name', '--mtime=@0', `--directory=${folder}`, '.']
  return execFileSync('tar', args, { maxBuffer: 1 << 28 })
}

/** Each set is written twice and read whole: one of them here, all in `npm run fuzz`. */
const written = isWhole ? ['linux-6.17', 'linux-7.1', 'linux-7.2'] : ['linux-7.2']

describe.each(written)('fixtures for %s', (release) => {
  test('each image of the manifest decodes to what it says; the same command writes the same bytes', async () => {
    const [first, second] = ['a', 'b'].map((run) => `${directory}/${release}-${run}`) as [string, string]
    for (const path of [first, second])
      expect((await ran(['fixtures', path, '--release', release])).status).toBe(0)
    const manifest: Manifest = JSON.parse(readFileSync(`${first}/manifest.json`, 'utf8'))
    expect(manifest.release).toBe(release)
    expect(manifest.fixtures.length).toBeGreaterThan(3)
    expect(manifest.fixtures.filter(({ file }) => !existsSync(`${first}/${file}`))).toEqual([])
    expect(Buffer.compare(archived(first), archived(second))).toBe(0)
    const largest = manifest.fixtures.find(({ name }) => name === 'one-session') ?? manifest.fixtures[0]
    const document = JSON.parse((await ran(['dump', '--json', `${first}/${largest?.file}`])).stdout)
    expect(document.faults).toEqual([])
    const sessions: { files: unknown[] }[] = document.luo?.sessions ?? []
    expect([sessions.length, sessions.flatMap(({ files }) => files).length]).toEqual([
      largest?.sessions ?? 0,
      largest?.files ?? 0,
    ])
  })
})

test.each(chosenReleases.map(({ name }) => name))(
  'every concept that %s knows makes a valid handover',
  async (release) => {
    let made = 0
    for await (const one of fixtures({ release })) {
      if (!('memory' in one)) continue
      expect(one).toBeValidHandover()
      made += 1
    }
    expect(made).toBeGreaterThan(3)
    expect(made).toBeLessThanOrEqual(fixtureNames().length)
  },
)

describe('matchers', () => {
  const image = realPath('linux-7.3-x86_64-basic')

  test('hold of a real image, by name', async () => {
    await expect(image).toBeValidHandover()
    await expect(image).toHoldSession('vm-alpha')
    await expect(image).toHoldFile('database', 7, { size: 20480, seals: 6 })
    await expect(image).toHoldFlb('liveupdate-test-flb-v0')
    await expect(image).toHoldReserveMem('trace')
    await expect(image).not.toHoldSession('vm-beta')
    await expect(image).not.toHoldFile('database', 7, { size: 20481 })
  })

  test('hold of a fixture, at once', async () => {
    const one = await fixture('one-session', { release: 'linux-7.2' })
    expect(one).toBeValidHandover()
    expect(one).toHoldFile('vm-alpha', 1, { size: 10000, position: 1234 })
    expect(() => expect(one).toHoldSession('nobody')).toThrow(/vm-alpha/)
  })

  test('a broken handover is named, with its faults', async () => {
    const opened = await openImage([{ path: image }])
    if (!opened.ok) throw new Error(opened.problem)
    const { image: memory } = opened
    const broken = {
      ...memory,
      ranges: memory.ranges,
      read: (pa: Parameters<typeof memory.read>[0], out: Uint8Array) => {
        const count = memory.read(pa, out)
        const at = Number(0x1edc008n - pa)
        if (at >= 0 && at < count) out[at] = 0
        return count
      },
      presence: memory.presence.bind(memory),
      filePosition: memory.filePosition.bind(memory),
    }
    expect(() => expect(broken).toBeValidHandover()).toThrow(/COUNT_ZERO/)
    memory.close()
  })
})
