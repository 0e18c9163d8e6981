/** What a simulated kernel does with a handover, told the same way as what a real one does. */
import type { Expectation } from '../../qemu/expectation.ts'
import { type FileReport, type KernelReport, readConsole, type SessionReport } from '../../qemu/report.ts'
import { wordSum } from '../../qemu/word-sum.ts'
import { type Answer, failed } from '../../simulate/answer.ts'
import type { Handover } from '../../simulate/handover.ts'
import { Kernel } from '../../simulate/kernel.ts'
import { LiveUpdate } from '../../simulate/live-update.ts'
import type { Userspace } from '../../simulate/userspace.ts'

const CONFIG = { testKho: true, liveupdateTest: true }

/** Boots a simulated release on a handover and takes back what is wanted, as the guest does. */
export function takeOver(
  handover: Handover,
  release: string,
  wanted: Expectation,
  parameters: string,
): Pick<KernelReport, 'handover' | 'regions' | 'flbs' | 'complaints' | 'panic' | 'device' | 'sessions'> {
  let live: LiveUpdate | undefined
  const kernel = Kernel.takeOver(handover, {
    release,
    cmdline: `kho=on liveupdate=on ${parameters}`,
    config: CONFIG,
    subsystems: (inside) => {
      live = new LiveUpdate(inside)
      return [live]
    },
  })
  const user = (live as LiveUpdate | undefined)?.process()
  const device = user && kernel.state === 'running' ? user.open('/dev/liveupdate') : undefined
  const sessions =
    user && device !== undefined && !failed(device)
      ? wanted.sessions.map((session) => retrieve(user, device, session, wanted.finish === true))
      : []
  const said = readConsole(kernel.console.map(({ text }) => text))
  return { ...said, sessions, device: device === undefined ? undefined : errnoOf(device) }
}

function retrieve(
  user: Userspace,
  device: number,
  { name, files }: Expectation['sessions'][number],
  finish: boolean,
): SessionReport {
  const session = user.retrieveSession(device, Buffer.from(name, 'hex'))
  if (failed(session)) return { name, errno: errnoOf(session), files: [] }
  const report: SessionReport = {
    name,
    errno: 0,
    files: files.map(({ token }) => describe(user, user.retrieveFd(session, token), token)),
  }
  if (finish) report.finish = errnoOf(user.finish(session))
  return report
}

function describe(user: Userspace, fd: Answer<number>, token: bigint): FileReport {
  if (failed(fd)) return { token, errno: errnoOf(fd) }
  const { size } = succeeded(user.fstat(fd))
  return {
    token,
    errno: 0,
    size,
    pos: succeeded(user.lseek(fd, 0, 'SEEK_CUR')),
    seals: succeeded(user.getSeals(fd)),
    sum: wordSum(succeeded(user.pread(fd, Number(size), 0))),
  }
}

function succeeded<T>(answer: Answer<T>): T {
  if (failed(answer)) throw new Error(`${answer.errno}`)
  return answer as T
}

/** The number that a process sees. */
function errnoOf(answer: Answer<unknown>): number {
  return failed(answer) ? -answer.number : 0
}
