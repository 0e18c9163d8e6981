/**
 * What the next kernel really speaks, read from the file that will be booted: the version strings that
 * its readers compare with, the structs of its BTF, and the release that it names.
 *
 * A version string is a constant of the kernel and ends with a NUL; what stands before it may be anything
 * that could not be part of it. A kernel built without a subsystem holds no string of it.
 */

import { PAGE_SIZES } from '../abi/layout.ts'
import { partsOf } from '../abi/parts.ts'
import {
  type ComponentName,
  componentByName,
  components,
  formatContract,
  type Release,
  type ReleaseVersions,
  releaseFor,
} from '../abi/registry.ts'
import { checkStructs, declaredStructs, type VersionCheck, versionChecks } from './abi-check.ts'
import { findStructs, isBtfProblem, openBtf } from './btf.ts'
import { type ByteSource, isProblem, type Problem } from './image-source.ts'
import { btfIn, kernelBytes, unwrapKernel } from './kernel-image.ts'
import { nearestRelease, type TargetKernel, targetKernel } from './target-kernel.ts'

export interface KernelReading {
  readonly kernel: TargetKernel
  /** As `Linux version` says it: `7.3.4`. */
  readonly version: string | undefined
  /** Version strings found, as they stand in the kernel, sorted. */
  readonly strings: readonly string[]
  /** Those among them that no declared version has. */
  readonly unknown: readonly string[]
  /** Whether its BTF was there to tell apart what shares a string. */
  readonly hasBtf: boolean
}

/** Reads a kernel and closes its file; a problem where it is none, or speaks no version of KHO. */
export async function readKernel(source: ByteSource): Promise<KernelReading | Problem> {
  const unwrapped = await unwrapKernel(source)
  if (isProblem(unwrapped)) return unwrapped
  const bytes = kernelBytes(unwrapped.source)
  const structs = isProblem(bytes) ? undefined : structVersions(unwrapped.source)
  unwrapped.source.close()
  return isProblem(bytes) ? bytes : readingOf(source.name, bytes, structs)
}

function readingOf(
  file: string,
  bytes: Uint8Array,
  structs: readonly VersionCheck[] | undefined,
): KernelReading | Problem {
  const memory = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const version = bannerVersion(memory)
  const strings = versionStrings(memory)
  if (version === undefined && strings.length === 0) {
    return { problem: `${file}: is no Linux kernel: neither "${BANNER}" nor a version string of KHO in it` }
  }
  const told = version === undefined ? undefined : releaseFor(version)
  const versions = spokenVersions(strings, told, structs)
  const release = told ?? nearestRelease(versions)
  const handlers = strings.filter((text) => familyOf(text) === 'memfd')
  const name = version === undefined ? file : `Linux ${version}`
  return {
    kernel: targetKernel(name, release, versions, handlers),
    version,
    strings,
    unknown: strings.filter((text) => !declaredStrings.has(text)),
    hasBtf: structs !== undefined,
  }
}

/** What versions the kernel's structs match; undefined without BTF. */
function structVersions(source: ByteSource): readonly VersionCheck[] | undefined {
  const found = btfIn(source)
  const btf = isProblem(found) ? found : openBtf(found.blob)
  if (isProblem(btf) || isBtfProblem(btf)) return undefined
  return versionChecks(checkStructs(findStructs(btf, new Set(declaredStructs().keys())), PAGE_SIZES))
}

const BANNER = 'Linux version '
/** A version is never longer. */
const MAX_BANNER = 64

function bannerVersion(memory: Buffer): string | undefined {
  for (let at = memory.indexOf(BANNER); at >= 0; at = memory.indexOf(BANNER, at + 1)) {
    const text = memory.toString('latin1', at + BANNER.length, at + BANNER.length + MAX_BANNER)
    const version = /^\d+\.\d+(\.\d+)?/.exec(text)?.[0]
    if (version !== undefined) return version
  }
  return undefined
}

/** Version strings of the components and of nodes inside them, by the component whose they are. */
const declaredStrings: ReadonlyMap<string, ComponentName> = new Map(
  components.flatMap(({ name, versions }) =>
    versions.flatMap(({ contract, root }): (readonly [string, ComponentName])[] => {
      const nested = partsOf(root).flatMap(({ type }) =>
        type.kind === 'fdt-node' ? Object.values(type.properties) : [],
      )
      const texts = nested.flatMap((type) => (type.kind === 'compatible' ? [type.value] : []))
      const own = contract.kind === 'string' ? [contract.value] : []
      return [...own, ...texts].map((text) => [text, name] as const)
    }),
  ),
)

/** `kho-v` of `kho-v4`: what the strings of one family begin with. */
function stem(text: string): string {
  return text.replace(/\d+$/, '')
}

const families: ReadonlyMap<string, ComponentName> = new Map(
  [...declaredStrings].map(([text, name]) => [stem(text), name]),
)

function familyOf(text: string): ComponentName | undefined {
  return families.get(stem(text))
}

const IS_PART_OF_NAME = /[A-Za-z0-9_.-]/
/** Digits of a version number that are looked at. */
const MAX_DIGITS = 4

/** Strings of a known family that stand in the kernel as constants, sorted. */
function versionStrings(memory: Buffer): readonly string[] {
  const found = new Set<string>()
  for (const prefix of families.keys()) {
    for (let at = memory.indexOf(prefix); at >= 0; at = memory.indexOf(prefix, at + 1)) {
      const before = at === 0 ? '' : String.fromCharCode(memory[at - 1] as number)
      const end = at + prefix.length + MAX_DIGITS + 1
      const digits = /^(\d+)\0/.exec(memory.toString('latin1', at + prefix.length, end))?.[1]
      if (digits !== undefined && !IS_PART_OF_NAME.test(before)) found.add(`${prefix}${digits}`)
    }
  }
  return [...found].sort()
}

/** The version of each component; of several under one string the one of the release, or that fits the BTF. */
function spokenVersions(
  strings: readonly string[],
  told: Release | undefined,
  structs: readonly VersionCheck[] | undefined,
): ReleaseVersions {
  const versions: Partial<Record<ComponentName, string>> = {}
  for (const { name, versions: known } of components) {
    const named = known.filter(({ contract }) => strings.includes(formatContract(contract)))
    const fits = (id: string): boolean => structs?.find(({ version }) => version === id)?.status !== 'differs'
    const chosen =
      named.find(({ id }) => told?.versions[name] === id) ??
      named.findLast(({ id, unreleased }) => fits(id) && unreleased === undefined) ??
      named.at(-1)
    const own = chosen?.id ?? strings.find((text) => isContractOf(name, text))
    if (own !== undefined) versions[name] = own
  }
  const metadata = unstatedVersion('kexec-metadata', told ?? nearestRelease(versions))
  return { ...versions, ...(versions.kho !== undefined && metadata && { 'kexec-metadata': metadata }) }
}

/** Whether an undeclared string is a version of the component itself, not of a node inside of it. */
function isContractOf(name: ComponentName, text: string): boolean {
  return componentByName(name).versions.some(
    ({ contract }) => contract.kind === 'string' && stem(contract.value) === stem(text),
  )
}

/** A component whose version is a number stands in no string: as in the release. */
function unstatedVersion(name: ComponentName, { versions }: Release): string | undefined {
  const id = versions[name]
  return componentByName(name).versions.some((version) => version.id === id) ? id : undefined
}
