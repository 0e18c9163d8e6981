/** Opening fixtures: the captured images, decoded, and the CLI as a user runs it. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseAddress } from '../../abi/memory.ts'
import { decodeHandover, type Handover } from '../../inspect/decode.ts'
import { type Image, openImage } from '../../inspect/image.ts'

export const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const REAL = `${ROOT}fixtures/real/`

/** Names of the captured images: `linux-7.3-x86_64-basic`, … */
export const realImages: readonly string[] = readdirSync(REAL)
  .filter((file) => file.endsWith('.elf.gz'))
  .map((file) => file.slice(0, -'.elf.gz'.length))

export function realPath(name: string): string {
  return `${REAL}${name}.elf.gz`
}

/** What an independent reader says of a captured image. */
export function expectedOf(name: string): { readonly kho: { readonly fdt: string } } {
  return JSON.parse(readFileSync(`${REAL}${name}.expected.json`, 'utf8'))
}

const opened = new Map<string, Promise<Image>>()
const decoded = new Map<string, Promise<Handover>>()

/** A captured image, which stays open for all that look at it. */
export function openReal(name: string): Promise<Image> {
  return once(opened, name, async () => {
    const result = await openImage([{ path: realPath(name) }])
    if (!result.ok) throw new Error(result.problem)
    return result.image
  })
}

export function decodeReal(name: string): Promise<Handover> {
  return once(decoded, name, async () => {
    const fdt = parseAddress(expectedOf(name).kho.fdt)
    if (fdt === undefined) throw new Error(`${name}: no address of the root FDT`)
    return decodeHandover(await openReal(name), fdt)
  })
}

function once<T>(made: Map<string, Promise<T>>, name: string, make: () => Promise<T>): Promise<T> {
  const one = made.get(name) ?? make()
  made.set(name, one)
  return one
}

export interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs the built CLI in the repository's root. */
export function kho(args: readonly string[], env: NodeJS.ProcessEnv = {}): Run {
  const { NO_COLOR: _no, FORCE_COLOR: _force, ...inherited } = process.env
  const result = spawnSync(process.execPath, [`${ROOT}dist/bin/kho-inspect.js`, ...args], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...inherited, ...env },
    maxBuffer: 1 << 28,
  })
  return { status: result.status, stdout: result.stdout, stderr: result.stderr }
}
