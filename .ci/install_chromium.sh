#!/usr/bin/env bash
# Chromium for the browser tests: the one on PATH, or Debian's. Playwright brings none of its own.
set -euo pipefail
if command -v chromium > /dev/null; then
  exit 0
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
  echo "install Chromium so that \`chromium\` is on PATH (on Debian, as root: apt-get install chromium)" >&2
  exit 1
fi
apt-get update --quiet
DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends chromium
