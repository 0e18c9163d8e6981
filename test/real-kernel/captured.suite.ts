/**
 * What real kernels leave, given to us: guests make sessions and files, the handover is captured where the
 * next kernel gets it, and that kernel's own answers are held against our decoder, our validator and our
 * simulated kernel.
 */
import { describe, expect, test } from 'vitest'
import { hex, phys } from '../../abi/memory.ts'
import { decodeHandover } from '../../inspect/decode.ts'
import { validate } from '../../inspect/validate.ts'
import { differences, expectationOf } from '../../qemu/expectation.ts'
import { outcomeOf } from '../../qemu/outcome.ts'
import { imageHandover } from '../../simulate/image-handover.ts'
import { simulatedRelease } from '../../simulate/release.ts'
import { type BuiltKernel, builtKernels, keepTable, missing, type Row, titled } from './lab.ts'
import { takeOver } from './simulated-guest.ts'
import { capture, parametersOf, type Workload, wantedOf, workloads } from './workloads.ts'

const kernels = builtKernels()
const why = kernels.length === 0 ? missing('7.3', 'arm64') : undefined

describe.skipIf(why)(titled('captured handovers', why), () => {
  for (const kernel of kernels) capturedFrom(kernel)
})

function capturedFrom(kernel: BuiltKernel): void {
  const { version, arch, pageSize, release } = kernel
  const why = missing(version, arch, pageSize)
  describe.skipIf(why)(titled(`captured from ${version} ${arch} ${pageSize / 1024}K`, why), () => {
    const rows: Row[] = []
    let full: string | undefined

    test.each(Object.entries<Workload>(workloads))('%s', async (name, workload) => {
      const { boot, before, after, image } = await capture(workload, kernel)
      expect(before.failed).toBeUndefined()
      const wanted = { ...wantedOf(workload), sessions: before.preserved.filter(({ errno }) => errno === 0) }
      const kept = { ...wanted, sessions: wanted.sessions.map(withFilesThatAreKept) }

      // The kernel gives back what its guest had made.
      expect(after).toMatchObject({
        handover: true,
        done: true,
        complaints: [],
        warnings: [],
        panic: undefined,
      })
      expect(differences(kept, after)).toEqual([])

      const handover = decodeHandover(image, phys(boot.fdt_addr), { boot })
      expect(handover.faults).toEqual([])
      const held = expectationOf(handover)
      expect(held.sessions).toEqual(
        after.sessions.map(({ name, files }) => ({ name, files: files.map(withoutErrno) })),
      )
      expect(held.regions).toEqual(after.regions)

      const verdict = validate(handover, { commandLine: parametersOf(workload) })
      expect(verdict.findings.filter(({ severity }) => severity !== 'note')).toEqual([])
      expect(verdict.outcome).toBe('takes-over')

      const simulated = takeOver(
        imageHandover({
          memory: image,
          arch,
          pageSize,
          fdt: phys(boot.fdt_addr),
          spec: simulatedRelease(release) as NonNullable<ReturnType<typeof simulatedRelease>>,
          boot: { ...boot },
        }),
        release,
        held,
        parametersOf(workload),
      )
      expect(simulated).toMatchObject({
        handover: true,
        sessions: after.sessions,
        regions: after.regions,
        flbs: after.flbs,
      })
      full ??= after.kernel
      rows.push({
        handover: name,
        'root FDT': hex(boot.fdt_addr),
        sessions: held.sessions.length,
        files: held.sessions.flatMap(({ files }) => files).length,
        bytes: held.sessions
          .flatMap(({ files }) => files)
          .reduce((sum, { size = 0n }) => sum + Number(size), 0),
        'kernel gave back': outcomeOf(after, differences(kept, after)),
        decoded: 'without faults, same sums',
        validated: verdict.outcome,
        'simulated kernel': 'same files and sums',
      })
      image.close()
    })

    const pages = `${pageSize / 1024}K`
    keepTable(`captured-${version}-${arch}-${pages.toLowerCase()}`, () => ({
      title: `Captured handovers, Linux ${version} ${arch}, pages of ${pages}`,
      kernel: `${full} ${arch}`,
      rows,
    }))
  })
}

function withFilesThatAreKept<S extends { readonly files: readonly { readonly errno: number }[] }>(
  session: S,
): S {
  return { ...session, files: session.files.filter(({ errno }) => errno === 0) }
}

function withoutErrno<F extends { readonly errno: number }>({ errno: _, ...file }: F): Omit<F, 'errno'> {
  return file
}
