/** `kho-inspect abi check`: the structs of a kernel, by its BTF, against the declared ones. */
import { PAGE_SIZES } from '../abi/layout.ts'
import {
  checkConstants,
  checkStructs,
  declaredConstants,
  declaredStructs,
  versionChecks,
} from '../inspect/abi-check.ts'
import { type CheckReport, hasFindings, renderCheck } from '../inspect/abi-check-text.ts'
import { findConstants, findStructs, isBtfProblem, openBtf } from '../inspect/btf.ts'
import { isProblem, openFile } from '../inspect/image-source.ts'
import { findKernelBtf } from '../inspect/kernel-image.ts'
import type { AbiArguments } from './abi-arguments.ts'
import { printJson } from './abi-show.ts'
import { UsageError } from './command.ts'
import { complain } from './image-arguments.ts'
import { ExitCode, type Terminal } from './terminal.ts'

export async function checkKernel(args: AbiArguments, terminal: Terminal): Promise<number> {
  if (args.btf === undefined) throw new UsageError('expected kho-inspect abi check --btf FILE')
  const report = await reportOn(args.btf, args)
  if (typeof report === 'string') {
    complain(terminal, report)
    return ExitCode.UNREADABLE
  }
  if (args.json) printJson({ schema: 'kho-inspect/abi-check@1', ...report }, terminal)
  else terminal.out(renderCheck(report, terminal.paint))
  return hasFindings(report) ? ExitCode.FINDINGS : ExitCode.OK
}

/** The report, or one line that says why there is none. */
async function reportOn(file: string, { pageSize }: AbiArguments): Promise<CheckReport | string> {
  const source = openFile(file)
  if (isProblem(source)) return source.problem
  const kernel = await findKernelBtf(source)
  if (isProblem(kernel)) return kernel.problem
  const btf = openBtf(kernel.blob)
  if (isBtfProblem(btf)) return `${file}: ${btf.problem}`
  const sizes = pageSize === undefined ? PAGE_SIZES : [pageSize]
  const structs = checkStructs(findStructs(btf, new Set(declaredStructs().keys())), sizes)
  const constants = checkConstants(findConstants(btf, declaredConstants()), sizes)
  const matching = structs.filter(({ status }) => status === 'matches')
  return {
    file,
    found: kernel.found,
    types: btf.typeCount,
    structs,
    constants,
    versions: versionChecks(structs),
    pageSizes: sizes.filter((size) => matching.every(({ pageSizes }) => pageSizes.includes(size))),
  }
}
