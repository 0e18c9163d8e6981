/** Public surface of the simulator. */
export { type Answer, Failure, failed } from './answer.ts'
export type { KernelConfig } from './context.ts'
export type { LogLine, Subsystem } from './core.ts'
export { type Handover, handoverImage } from './handover.ts'
export { type ImageSource, imageHandover } from './image-handover.ts'
export { type ColdMachine, Kernel, type KernelOptions, type KernelState } from './kernel.ts'
export type { Census } from './pages.ts'
export { type SimulatedRelease, simulatedRelease, simulatedReleases } from './release.ts'
