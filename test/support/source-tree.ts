/** A kernel source tree in memory: texts by path. */
import type { SourceTree } from '../../inspect/source-tree.ts'

export function memoryTree(files: Readonly<Record<string, string>>, name = 'tree'): SourceTree {
  return {
    name,
    list: async (directory) =>
      Object.keys(files).filter((path) => path.slice(0, path.lastIndexOf('/')) === directory),
    read: async (path) => files[path],
  }
}
