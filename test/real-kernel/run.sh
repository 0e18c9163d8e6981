#!/bin/bash
# `npm run test:kernel`: gets and builds what is missing, then runs the suites and writes their tables into docs.
# Arguments go to vitest: run.sh test/real-kernel/captured.suite.ts
# Without tools or kernels suites are skipped and say what they miss; sources that cannot be had are a failure.
set -u
cd "$(dirname "$0")/../.."
if [ -n "${KERNEL:-}" ] && [ ! -f "$KERNEL" ]; then
  echo "KERNEL=$KERNEL: there is no such file" >&2
  exit 1
fi
test/real-kernel/kernels.sh || [ $? = 77 ] || exit 1
export REAL_KERNEL_DATE=${REAL_KERNEL_DATE:-$(date -u +%Y-%m-%d)}
exec npx vitest run --config vitest.kernel.config.ts "$@"
