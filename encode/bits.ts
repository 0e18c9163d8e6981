/** Sets `count` bits of a bitmap from bit `from` on; bit 0 is the lowest of the first byte. */
export function setBits(bitmap: Uint8Array, from: number, count: number): void {
  const end = from + count
  let bit = from
  for (; bit < end && bit % 8 !== 0; bit++) bitmap[bit >>> 3] = (bitmap[bit >>> 3] ?? 0) | (1 << (bit % 8))
  const wholeBytes = Math.floor((end - bit) / 8)
  bitmap.fill(0xff, bit >>> 3, (bit >>> 3) + wholeBytes)
  for (bit += wholeBytes * 8; bit < end; bit++) {
    bitmap[bit >>> 3] = (bitmap[bit >>> 3] ?? 0) | (1 << (bit % 8))
  }
}
