/**
 * The kernel for which a handover is judged: a release, versions of components, or what was read from
 * the kernel that will be booted.
 */
import {
  type ComponentName,
  componentByName,
  formatContract,
  type Release,
  type ReleaseVersions,
  releaseFor,
  releases,
  versionById,
} from '../abi/registry.ts'

export interface TargetKernel {
  /** As the user named it, or as it names itself. */
  readonly name: string
  /** The registered release whose readers it has: their checks, and what these log. */
  readonly release: Release
  /**
   * The versions that it speaks, by component; none for a component that it does not have, and a string of
   * its own where that is none of the declared ones.
   */
  readonly versions: ReleaseVersions
  /** Compatible strings of the file handlers that are registered in it. */
  readonly fileHandlers: readonly string[]
}

/** A release as it is. */
export function kernelOfRelease(release: Release): TargetKernel {
  return targetKernel(release.name, release, release.versions)
}

/** A kernel that speaks the versions given, and has the readers of a release. */
export function targetKernel(
  name: string,
  release: Release,
  versions: ReleaseVersions,
  fileHandlers: readonly string[] = handlersOf(versions),
): TargetKernel {
  return { name, release, versions, fileHandlers }
}

/** The kernel with further handlers in it, of drivers that are not declared here: their records are their own. */
export function withHandlers(kernel: TargetKernel, names: readonly string[]): TargetKernel {
  return { ...kernel, fileHandlers: [...new Set([...kernel.fileHandlers, ...names])] }
}

/** Release name, or component versions joined by commas (`kho-v4,luo-v5,memfd-v2`); undefined for anything else. */
export function parseTargetKernel(text: string): TargetKernel | undefined {
  const release = releaseFor(text)
  if (release) return kernelOfRelease(release)
  const versions = parseVersions(text)
  if (!versions) return undefined
  const nearest = nearestRelease(versions)
  return targetKernel(text, nearest, { ...onlyOptional(nearest.versions), ...versions })
}

/** The newest release that shares most of the versions; the version of the map counts before all others. */
export function nearestRelease(versions: ReleaseVersions): Release {
  const score = ({ versions: spoken }: Release): number =>
    (Object.entries(versions) as [ComponentName, string][]).reduce(
      (sum, [component, id]) => sum + (spoken[component] === id ? (component === 'kho' ? 10 : 1) : 0),
      0,
    )
  const best = Math.max(...releases.map(score))
  return releases.findLast((release) => score(release) === best) as Release
}

/** Contracts of the file handlers among the versions. */
function handlersOf({ memfd }: ReleaseVersions): readonly string[] {
  const version = memfd === undefined ? undefined : versionById(memfd)
  return version ? [formatContract(version.contract)] : []
}

/** Where only some components are told, the others are as in the release, but for LUO and its handlers. */
function onlyOptional({ luo: _luo, memfd: _memfd, ...others }: ReleaseVersions): ReleaseVersions {
  return others
}

const NAMES: readonly ComponentName[] = ['kho', 'memblock', 'kexec-metadata', 'luo', 'memfd', 'kho-test']

function parseVersions(text: string): ReleaseVersions | undefined {
  const versions: Partial<Record<ComponentName, string>> = {}
  for (const part of text.split(',')) {
    const name = NAMES.find((candidate) => versionNamed(candidate, part) !== undefined)
    if (name === undefined || versions[name] !== undefined) return undefined
    versions[name] = versionNamed(name, part) as string
  }
  return versions.kho === undefined ? undefined : versions
}

/** A version by its id, else by its contract; of several under one contract the newest. */
function versionNamed(name: ComponentName, text: string): string | undefined {
  const { versions } = componentByName(name)
  const named = versions.find(({ id }) => id === text)
  return (named ?? versions.findLast(({ contract }) => formatContract(contract) === text))?.id
}
