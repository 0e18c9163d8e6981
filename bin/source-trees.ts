/**
 * Kernel source trees as a user names them: a directory, or a revision in a git repository. Git is asked
 * by arguments, never through a shell, and a revision can not be taken for an option.
 */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { SourceTree } from '../inspect/source-tree.ts'

const run = promisify(execFile)
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024

export interface TreeProblem {
  readonly problem: string
}

/** A directory that holds the top of a kernel tree. */
export function directoryTree(path: string): SourceTree | TreeProblem {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) return { problem: `${path}: no such directory` }
  if (!stat.isDirectory()) return { problem: `${path}: is a file; expected a kernel source tree` }
  return {
    name: path,
    list: async (directory) => {
      try {
        return readdirSync(join(path, directory)).map((name) => `${directory}/${name}`)
      } catch {
        return []
      }
    },
    read: async (file) => {
      try {
        return readFileSync(join(path, file), 'utf8')
      } catch {
        return undefined
      }
    },
  }
}

/** A revision of the repository that `directory` belongs to. */
export async function gitTree(directory: string, revision: string): Promise<SourceTree | TreeProblem> {
  const git = async (...args: readonly string[]): Promise<string> => {
    const { stdout } = await run('git', ['-C', directory, ...args], {
      maxBuffer: MAX_OUTPUT_BYTES,
      encoding: 'utf8',
    })
    return stdout
  }
  let commit: string
  try {
    commit = (
      await git('rev-parse', '--verify', '--quiet', '--end-of-options', `${revision}^{commit}`)
    ).trim()
  } catch (error) {
    return { problem: whyNoCommit(directory, revision, error) }
  }
  return {
    name: revision,
    list: async (path) => {
      const listed = await git('ls-tree', '-z', '--full-tree', '--name-only', commit, '--', `${path}/`)
      return listed.split('\0').filter((name) => name !== '')
    },
    read: async (path) => {
      try {
        return await git('cat-file', 'blob', `${commit}:${path}`)
      } catch {
        return undefined
      }
    },
  }
}

function whyNoCommit(directory: string, revision: string, error: unknown): string {
  const { code, stderr } = error as { code?: unknown; stderr?: string }
  if (code === 'ENOENT') return 'git is not installed; give two directories instead'
  const said = (stderr ?? '').trim().split('\n')[0]
  return said ? `${directory}: ${said}` : `${directory}: git knows no revision '${revision}'`
}
