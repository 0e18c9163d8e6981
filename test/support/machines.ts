/**
 * The machines that fixtures are made for: each release at 4 KiB pages; at larger ones the newest of each
 * version of KHO, or in `npm run fuzz` each release as well.
 */
import { PAGE_SIZES, type PageSize } from '../../abi/layout.ts'
import { type Release, releases } from '../../abi/registry.ts'

export interface Machine {
  readonly release: Release
  readonly pageSize: PageSize
}

export const isWhole = process.env.FAULTS_WHOLE !== undefined

/** Large pages differ from small ones in how KHO and its users divide memory, which few releases changed. */
const isNewest = ({ versions }: Release, index: number): boolean =>
  !releases.slice(index + 1).some((later) => later.versions.kho === versions.kho)

/** The newest release of each version of KHO; in `npm run fuzz` all releases. */
export const chosenReleases: readonly Release[] = releases.filter(
  (release, index) => isWhole || isNewest(release, index),
)

export const machines: readonly Machine[] = releases.flatMap((release) =>
  PAGE_SIZES.filter((pageSize) => pageSize === 4096 || chosenReleases.includes(release)).map((pageSize) => ({
    release,
    pageSize,
  })),
)
