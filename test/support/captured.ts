/** Simulated kernels for tests: booted on the captured images, and what they said. */
import { readFileSync } from 'node:fs'
import { type PhysAddr, parseAddress } from '../../abi/memory.ts'
import { type Answer, failed } from '../../simulate/answer.ts'
import type { Handover } from '../../simulate/handover.ts'
import { imageHandover } from '../../simulate/image-handover.ts'
import { Kernel, type KernelOptions } from '../../simulate/kernel.ts'
import { simulatedRelease } from '../../simulate/release.ts'
import { expectedOf, openReal, ROOT } from './images.ts'
import { PatchedMemory } from './patched.ts'

/** What the guests of the captured images were started with. */
export const LAB_CMDLINE =
  'kho=on liveupdate=on kho_scratch=16M,64M,16M reserve_mem=1M:4096:trace reserve_mem=64K:65536:oops'

/** RAM of their machines: 512 MiB from 0, on arm64 from 1 GiB. */
const LAB_BYTES = 1n << 29n

/** Bytes as hexadecimal text at addresses, as in fixtures/wrong. */
export type Patch = readonly (readonly [address: string, bytes: string])[]

export function releaseOf(image: string): string {
  const [name] = /^(linux-\d+\.\d+|kho-v2)/.exec(image) ?? []
  if (name === undefined) throw new Error(`${image} names no release`)
  return name
}

/** A captured image as something to take over, with bytes changed. */
export async function realHandover(image: string, patch: Patch = []): Promise<Handover> {
  const memory = new PatchedMemory(await openReal(image))
  for (const [address, bytes] of patch) memory.write(BigInt(address), Buffer.from(bytes, 'hex'))
  const arch = image.includes('arm64') ? 'arm64' : 'x86_64'
  const start = arch === 'arm64' ? 1n << 30n : 0n
  const spec = simulatedRelease(releaseOf(image))
  const fdt = parseAddress(expectedOf(image).kho.fdt)
  if (!spec || fdt === undefined) throw new Error(`${image} cannot be taken over`)
  return imageHandover({ memory, arch, fdt, spec, ram: [{ start, end: start + LAB_BYTES }] })
}

/** The next kernel of a captured image: the same release, with the lab's parameters and test modules. */
export async function bootReal(
  image: string,
  { patch, ...options }: Partial<KernelOptions<Kernel>> & { readonly patch?: Patch } = {},
): Promise<Kernel> {
  const config = { testKho: true, liveupdateTest: true }
  const release = releaseOf(image)
  return Kernel.takeOver(await realHandover(image, patch), {
    release,
    cmdline: LAB_CMDLINE,
    config,
    ...options,
  })
}

/** Lines of a captured console that the second kernel spoke. */
export function capturedConsole(image: string): readonly string[] {
  const text = readFileSync(`${ROOT}fixtures/real/${image}.console.txt`, 'utf8')
  return text
    .split('\n')
    .filter((line) => line.startsWith('2 '))
    .map((line) => line.slice(2))
}

export function linesOf(kernel: Kernel): readonly string[] {
  return kernel.console.map(({ text }) => text)
}

/** The value of an answer that is none of the errors. */
export function must<T>(answer: Answer<T>): T {
  if (failed(answer)) throw new Error(`unexpected errno ${answer.errno}`)
  return answer
}

/** The error of an answer, `ok` for none. */
export function errnoOf(answer: Answer<unknown>): string | number {
  return failed(answer) ? answer.errno : 'ok'
}

/** Folios that a kernel holds, as text, to compare before and after. */
export function held(kernel: Kernel): readonly string[] {
  return [...kernel.pages.allocations()].map(({ pa, order, refs }) => `${pa} ${order} ${refs}`)
}

/** A page with a text at its start. */
export function pageWith(kernel: Kernel, text: string): PhysAddr {
  const page = must(kernel.pages.alloc(0))
  kernel.ram.write(page, new TextEncoder().encode(text))
  return page
}

export function textAt(kernel: Kernel, pa: PhysAddr, length: number): string {
  return new TextDecoder().decode(kernel.ram.read(pa, length))
}
