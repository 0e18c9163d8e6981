/**
 * The ABI headers of a kernel source tree, parsed: from a directory or a revision in git, which is up to
 * who implements the interface.
 */
import type { PageSize } from '../abi/layout.ts'
import { Definitions } from './c-layout.ts'
import { type Define, type KernelHeader, parseHeader } from './kernel-header.ts'

/** Files by their path from the top of the tree. */
export interface SourceTree {
  /** As the user named it. */
  readonly name: string
  /** Paths of the files directly in a directory; none if there is no such directory. */
  list(directory: string): Promise<readonly string[]>
  /** Text of a file; undefined where there is none. */
  read(path: string): Promise<string | undefined>
}

export const ABI_DIRECTORY = 'include/linux/kho/abi'

/** Files above this are no header of this kind. */
const MAX_HEADER_BYTES = 1024 * 1024

export interface ParsedTree {
  readonly name: string
  readonly headers: readonly KernelHeader[]
  definitions(pageSize: PageSize): Definitions
}

/** Parses the ABI headers of a tree, and what they include of it; undefined if it has none. */
export async function parseTree(tree: SourceTree): Promise<ParsedTree | undefined> {
  const paths = (await tree.list(ABI_DIRECTORY)).filter((path) => path.endsWith('.h')).sort()
  const headers = await readHeaders(tree, paths)
  if (headers.length === 0) return undefined
  const wanted = headers.flatMap(({ includes }) => includes).map(includedPath)
  const others = [...new Set(wanted)].filter((path) => path !== undefined && !paths.includes(path))
  const included = await readHeaders(tree, others as readonly string[])
  const known = new Map<PageSize, Definitions>()
  return {
    name: tree.name,
    headers,
    definitions: (pageSize) => {
      const found = known.get(pageSize) ?? new Definitions(headers, included, pageSize)
      known.set(pageSize, found)
      return found
    },
  }
}

async function readHeaders(tree: SourceTree, paths: readonly string[]): Promise<readonly KernelHeader[]> {
  const headers: KernelHeader[] = []
  for (const path of paths) {
    const source = await tree.read(path)
    if (source !== undefined && source.length <= MAX_HEADER_BYTES) headers.push(parseHeader(path, source))
  }
  return headers
}

/** `linux/types.h` and `uapi/linux/x.h` lie below include/; asm/ depends on the architecture. */
function includedPath(include: string): string | undefined {
  const outside = include.startsWith('asm/') || include.split('/').includes('..')
  return outside ? undefined : `include/${include}`
}

/** A contract of a tree: the macro that defines a version string or number. */
export interface TreeContract {
  readonly name: string
  readonly value: string | number
  readonly path: string
  readonly define: Define
}

/** Whether a macro's name says that it is a version. */
export function isContractName(name: string): boolean {
  return /_COMPAT(?:IBLE)?$/.test(name) || /_VERSION$/.test(name)
}

/** A macro whose value is one string. */
export function stringValue({ parameters, body }: Define): string | undefined {
  return parameters === undefined && body.length === 1 && body[0]?.kind === 'string'
    ? body[0].text
    : undefined
}

/** Macros that name a version, in the order of the headers. */
export function contractsOf({ headers }: Pick<ParsedTree, 'headers'>): readonly TreeContract[] {
  return headers.flatMap(({ path, defines }) =>
    defines.flatMap((define): readonly TreeContract[] => {
      if (!isContractName(define.name)) return []
      const text = stringValue(define)
      const number =
        define.body.length === 1 && define.body[0]?.kind === 'number' ? define.body[0].text : undefined
      const value = text ?? (number !== undefined && /^[0-9]+$/.test(number) ? Number(number) : undefined)
      return value === undefined ? [] : [{ name: define.name, value, path, define }]
    }),
  )
}
