/** A copy of a real kernel's debugfs, whose root FDT is cut: its blobs are judged, also where nothing tells their address. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { findHandovers } from '../inspect/find.ts'
import { openImage } from '../inspect/image.ts'
import { parseTargetKernel } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import type { Verdict } from '../inspect/verdict.ts'
import { ROOT } from './support/images.ts'
import { brokenRules } from './support/judged.ts'

const REAL = join(ROOT, 'fixtures/real/linux-7.3-x86_64-debugfs')
const METADATA = 'kho/out/sub_fdts/kexec-metadata'
const directory = mkdtempSync(join(tmpdir(), 'kho-debugfs-'))
afterAll(() => rmSync(directory, { recursive: true }))

async function judged(change: (metadata: Uint8Array) => Uint8Array, release?: string): Promise<Verdict> {
  cpSync(REAL, directory, { recursive: true })
  writeFileSync(join(directory, METADATA), change(new Uint8Array(readFileSync(join(REAL, METADATA)))))
  const opened = await openImage([{ path: directory }])
  if (!opened.ok) throw new Error(opened.problem)
  const found = findHandovers(opened.image)
  if ('problem' in found) throw new Error(found.problem)
  const kernel = release === undefined ? undefined : parseTargetKernel(release)
  return validate((found.candidates[0] as (typeof found.candidates)[0]).handover, kernel ? { kernel } : {})
}

const version = (value: number) => (bytes: Uint8Array) =>
  Uint8Array.from(bytes, (b, i) => (i === 0 ? value : b))

test('the metadata are what the kernel tells of', async () => {
  const { console, findings, outcome } = await judged((bytes) => bytes)
  expect(outcome).toBe('takes-over')
  expect(console.at(-1)).toBe('KHO: exec from: 7.3.4 (count 1)')
  const records = findings.filter(({ rule }) => rule === 'RECORD_NOT_IN_IMAGE')
  expect(records.map(({ path }) => path)).toEqual(['luo.flbs'])
})

test.each([
  ['of another version', version(2), 'METADATA_VERSION'],
  ['cut behind the version', (bytes: Uint8Array) => bytes.subarray(0, 10), 'METADATA_SIZE'],
  ['cut in the version', (bytes: Uint8Array) => bytes.subarray(0, 3), 'METADATA_SIZE'],
])('metadata %s are lost', async (_, change, rule) => {
  const verdict = await judged(change)
  expect(brokenRules(verdict)).toEqual([rule])
  expect(verdict.outcome).toBe('loses')
  expect(verdict.console.join()).not.toContain('exec from')
})

test('no line tells an address that nobody knows', async () => {
  const { console, outcome } = await judged((bytes) => bytes, 'linux-6.19')
  expect(outcome).toBe('no-handover')
  expect(console.join()).not.toContain('0x0')
})
