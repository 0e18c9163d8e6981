/** Public surface: opening images, finding and decoding handovers, rendering them; asking about the ABI. */
export { checkStructs } from './abi-check.ts'
export { type Comparison, compareDocuments, compareReleases, compareVersions } from './abi-compare.ts'
export { type AbiDocument, describeAbi, stableJson } from './abi-document.ts'
export { exportC } from './abi-export-c.ts'
export { exportKsy } from './abi-export-ksy.ts'
export { exportMarkdown } from './abi-export-markdown.ts'
export { lintTree } from './abi-lint.ts'
export { lintChange } from './abi-lint-change.ts'
export { parseStored } from './abi-stored.ts'
export type { KhoData } from './boot-entry.ts'
export type { BlockStorage, UnitStorage } from './chain.ts'
export { columnOf } from './columns.ts'
export { type DecodeOptions, decodeHandover, type Handover } from './decode.ts'
export { type Candidate, type FindOptions, type Found, findHandovers } from './find.ts'
export {
  type Image,
  type ImageFormat,
  type ImageSource,
  imageFormats,
  type Opened,
  type OpenOptions,
  openImage,
  parseImageSource,
} from './image.ts'
export { type Extent, type MapPage, PreservedMap, type PreservedSummary, type UnitRun } from './map.ts'
export { noPaint, type Paint } from './paint.ts'
export { type Region, regionsIn, type Span } from './regions.ts'
export { type HexOptions, renderHex } from './render-hex.ts'
export {
  DUMP_SCHEMA,
  handoverToJson,
  type Json,
  type JsonOptions,
  jsonText,
  nodeToJson,
} from './render-json.ts'
export { renderFaults, renderNode, renderText, type TextOptions } from './render-text.ts'
export { decodeText, printable } from './text.ts'
export {
  child,
  childrenOf,
  findNode,
  itemsAt,
  type ListNode,
  type Node,
  numberAt,
  parsePath,
  type RecordNode,
  type ValueNode,
} from './tree.ts'
export { VmallocArray } from './vmalloc.ts'
