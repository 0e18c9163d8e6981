/** Public surface of the encoder: values to bytes, documents to memory, memory to image files. */
export * from './content.ts'
export * from './fdt.ts'
export * from './handover.ts'
export * from './image.ts'
export * from './image-elf.ts'
export * from './image-kdump.ts'
export {
  type ImageFile,
  type Piece,
  sequential,
  trimmed,
  type Unwritable,
  type WritableMemory,
} from './image-pieces.ts'
export { formatHandoverDocument, type ParsedDocument, parseHandoverDocument } from './json-document.ts'
export { type PageFill, SparseMemory } from './memory.ts'
export { PageAllocator } from './page-allocator.ts'
export { type Run, RunTable, UNPLACED } from './runs.ts'
export {
  type ReadTimeline,
  readTimeline,
  type Timeline,
  type TimelineOptions,
} from './timeline.ts'
export { splitPages, type UnitRun, type UnitTable, unitTable } from './units.ts'
export * from './write.ts'
export { type WrittenHandover, writeHandover } from './write-handover.ts'
