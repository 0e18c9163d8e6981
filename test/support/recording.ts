/** File handlers and FLBs of a driver of its own, which write down every callback that they get. */
import { Failure } from '../../simulate/answer.ts'
import { File, type FileOperations } from '../../simulate/file.ts'
import type { KernelModule } from '../../simulate/kernel-module.ts'
import type { FileArguments, FileHandler } from '../../simulate/luo-file.ts'
import type { Flb } from '../../simulate/luo-flb.ts'
import type { Userspace } from '../../simulate/userspace.ts'
import { value } from './live.ts'

export interface Troubles {
  /** What the handler is registered as, and what its files are known by. */
  readonly compatible?: string
  /** Files whose callback fails, by their handles. */
  readonly failsToPreserve?: readonly bigint[]
  readonly failsToFreeze?: readonly bigint[]
  readonly failsToRetrieve?: readonly bigint[]
  readonly refusesToFinish?: readonly bigint[]
  /** What freeze() answers instead of 0. */
  readonly freezeAnswer?: number
  /** freeze() adds this to the handle. */
  readonly freezeAdds?: bigint
}

/** Handles of the files of such drivers. */
const handles = new WeakMap<File, { readonly compatible: string; readonly handle: bigint }>()

const COMPATIBLE = 'fake-v1'

function newFile(handle: bigint, compatible: string, operations: FileOperations = {}): File {
  const file = new File(operations)
  handles.set(file, { compatible, handle })
  return file
}

/** An open file of the driver in a process. */
export function fakeFile(
  user: Pick<Userspace, 'files'>,
  handle: bigint,
  compatible = COMPATIBLE,
  operations: FileOperations = {},
): number {
  const fd = value(user.files.reserve())
  user.files.install(fd, newFile(handle, compatible, operations))
  return fd
}

/** `calls` grows by `preserve 1`, `finish 1 0` (with the status), and so on. */
export function recordingHandler(calls: string[], troubles: Troubles = {}): FileHandler {
  const { compatible = COMPATIBLE } = troubles
  const note = (name: string, { file, serialized_data }: FileArguments): bigint => {
    const handle = (file && handles.get(file)?.handle) ?? serialized_data
    calls.push(`${name} ${handle}`)
    return handle
  }
  const noteStatus = (name: string, args: FileArguments): void => {
    calls.push(`${name} ${args.serialized_data} ${args.retrieve_status}`)
  }
  return {
    compatible,
    ops: {
      can_preserve: (file) => handles.get(file)?.compatible === compatible,
      preserve: (args) => {
        const handle = note('preserve', args)
        if (troubles.failsToPreserve?.includes(handle)) return new Failure('EIO')
        args.serialized_data = handle
      },
      unpreserve: (args) => void note('unpreserve', args),
      freeze: (args) => {
        const handle = note('freeze', args)
        if (troubles.failsToFreeze?.includes(handle)) return new Failure('EIO')
        args.serialized_data += troubles.freezeAdds ?? 0n
        return troubles.freezeAnswer ?? 0
      },
      unfreeze: (args) => void note('unfreeze', args),
      retrieve: (args) => {
        const handle = note('retrieve', args)
        if (troubles.failsToRetrieve?.includes(handle)) return new Failure('EIO')
        args.file = newFile(handle, compatible)
      },
      can_finish: (args) => {
        noteStatus('can_finish', args)
        return !troubles.refusesToFinish?.includes(args.serialized_data)
      },
      finish: (args) => noteStatus('finish', args),
    },
  }
}

interface FlbTroubles {
  readonly failsToPreserve?: boolean
  readonly failsToRetrieve?: boolean
  readonly owner?: KernelModule
  readonly data?: bigint
}

/** An FLB whose callbacks are written down as `a preserve`, `a finish restored 4096`, and so on. */
export function recordingFlb(calls: string[], compatible: string, troubles: FlbTroubles = {}): Flb {
  const data = troubles.data ?? 0x1000n
  return {
    compatible,
    ...(troubles.owner ? { owner: troubles.owner } : {}),
    ops: {
      preserve: (args) => {
        calls.push(`${compatible} preserve`)
        if (troubles.failsToPreserve) return new Failure('EIO')
        args.data = data
        args.obj = `live ${compatible}`
      },
      unpreserve: ({ data: handle }) => void calls.push(`${compatible} unpreserve ${handle}`),
      retrieve: (args) => {
        calls.push(`${compatible} retrieve ${args.data}`)
        if (troubles.failsToRetrieve) return new Failure('EIO')
        args.obj = `restored ${args.data}`
      },
      finish: ({ obj }) => void calls.push(`${compatible} finish ${obj}`),
    },
  }
}
