/**
 * Live update as a machine of four states, the way it looks to whoever drives an update from outside.
 *
 * The kernel keeps no such state: it follows from its sessions and from whether the reboot has begun.
 * A transition is what a careful agent does by system calls, and is refused in every other state.
 */
import { type Answer, Failure, failed } from './answer.ts'
import type { Luo } from './luo.ts'
import type { LuoSession } from './luo-session.ts'
import type { Userspace } from './userspace.ts'

/**
 * normal: nothing is preserved; prepared: sessions of this kernel exist; frozen: they are serialized for
 * the next one; updated: sessions of the previous kernel are not finished yet.
 */
export type OrchestratorState = 'normal' | 'prepared' | 'frozen' | 'updated'

export interface PreparedSession {
  readonly name: string
  readonly files: readonly { readonly token: bigint; readonly fd: number }[]
}

export class Orchestrator {
  readonly #luo: Luo
  readonly #process: Userspace
  /** Descriptors of the sessions that prepare() created. */
  #sessions: number[] = []
  /** Of those that finish() retrieved and could not finish yet. */
  readonly #unfinished = new Map<LuoSession, number>()

  constructor(luo: Luo, process: Userspace) {
    this.#luo = luo
    this.#process = process
  }

  get state(): OrchestratorState {
    if (this.#luo.isFrozen) return 'frozen'
    if (this.#luo.sessions.hasIncoming) return 'updated'
    return this.#luo.sessions.outgoing.size > 0 ? 'prepared' : 'normal'
  }

  /** normal → prepared: all files are preserved, or none. */
  prepare(sessions: readonly PreparedSession[]): Answer {
    if (this.state !== 'normal') return new Failure('EINVAL')
    const answer = this.#withDevice((device) => this.#createAll(device, sessions))
    if (failed(answer)) this.#closeAll()
    return answer
  }

  /** prepared → frozen: liveupdate_reboot(), which undoes itself if it fails. */
  freeze(): Answer {
    return this.state === 'prepared' ? this.#luo.reboot(false) : new Failure('EINVAL')
  }

  /** prepared → normal: nothing is preserved any more. There is no way back from frozen. */
  cancel(): Answer {
    if (this.state !== 'prepared') return new Failure('EINVAL')
    this.#closeAll()
    return this.#luo.sessions.outgoing.size > 0 ? new Failure('EBUSY') : undefined
  }

  /**
   * updated → normal: every session of the previous kernel is finished and closed. One that a file holds
   * back stays open, for the next attempt.
   */
  finish(): Answer {
    if (this.state !== 'updated') return new Failure('EINVAL')
    return this.#withDevice((device) => this.#finishAll(device))
  }

  #createAll(device: number, sessions: readonly PreparedSession[]): Answer {
    for (const { name, files } of sessions) {
      const session = this.#process.createSession(device, name)
      if (failed(session)) return session
      this.#sessions.push(session)
      for (const { token, fd } of files) {
        const answer = this.#process.preserveFd(session, fd, token)
        if (failed(answer)) return answer
      }
    }
  }

  #finishAll(device: number): Answer {
    for (const incoming of [...this.#luo.sessions.incoming.values()]) {
      const session = this.#unfinished.get(incoming) ?? this.#process.retrieveSession(device, incoming.name)
      if (failed(session)) return session
      this.#unfinished.set(incoming, session)
      const answer = this.#process.finish(session)
      if (failed(answer)) return answer
      this.#unfinished.delete(incoming)
      this.#process.close(session)
    }
  }

  #withDevice(work: (device: number) => Answer): Answer {
    const device = this.#process.open('/dev/liveupdate')
    if (failed(device)) return device
    const answer = work(device)
    this.#process.close(device)
    return answer
  }

  #closeAll(): void {
    for (const session of this.#sessions) this.#process.close(session)
    this.#sessions = []
  }
}
