/**
 * Every FDT of a whole handover that we write, read by the device tree compiler's tools. Where these are
 * not installed (Debian: device-tree-compiler), one test says so instead.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { documentOf } from '../bin/document.ts'
import { writeHandover } from '../encode/write-handover.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { decodeReal, realImages } from './support/images.ts'

const isInstalled =
  spawnSync('dtc', ['--version']).status === 0 && spawnSync('fdtdump', ['--version']).status === 0

let directory: string
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
})
afterAll(() => rmSync(directory, { recursive: true }))

describe.runIf(isInstalled)('dtc and fdtdump', () => {
  test.each(realImages)('read every FDT of %s, written again', async (name) => {
    const { memory, boot } = writeHandover(documentOf(await decodeReal(name)))
    const { fdts } = decodeHandover(memory, phys(boot.fdt_addr))
    expect(fdts.length).toBeGreaterThan(2)
    for (const { path, fdt } of fdts) {
      const file = `${directory}/${path}.dtb`
      writeFileSync(file, fdt.bytes)
      const source = spawnSync('dtc', ['-q', '-I', 'dtb', '-O', 'dts', file], { encoding: 'utf8' })
      expect([path, source.status, source.stderr]).toEqual([path, 0, ''])
      const dump = spawnSync('fdtdump', [file], { encoding: 'utf8' })
      expect([path, dump.status]).toEqual([path, 0])
      for (const property of fdt.root?.properties ?? []) {
        expect(source.stdout).toContain(`${property.name} = `)
        expect(dump.stdout).toContain(`${property.name} = `)
      }
    }
  })
})

test.runIf(!isInstalled)(
  'dtc and fdtdump are not installed: their reading of our FDTs was not checked',
  () => {
    expect(isInstalled).toBe(false)
  },
)
