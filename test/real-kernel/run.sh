#!/bin/bash
# `npm run test:kernel`: gets and builds what is missing, then runs the suites and writes their tables into docs.
# Arguments go to vitest: run.sh test/real-kernel/captured.suite.ts
set -u
cd "$(dirname "$0")/../.."
test/real-kernel/kernels.sh || {
  status=$?
  # Without tools there is nothing to build with; the suites say what they miss.
  [ $status = 2 ] || exit $status
}
export REAL_KERNEL_DATE=${REAL_KERNEL_DATE:-$(date -u +%Y-%m-%d)}
exec npx vitest run --config vitest.kernel.config.ts "$@"
