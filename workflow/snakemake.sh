#!/bin/sh
# Snakemake of this project, whether or not its environment is activated: for dvc.yaml.
if [ -n "${MEMLEAK_PYTHON:-}" ]; then exec "$MEMLEAK_PYTHON" -m snakemake "$@"; fi
if [ -x .venv/bin/snakemake ]; then exec .venv/bin/snakemake "$@"; fi
if command -v snakemake > /dev/null; then exec snakemake "$@"; fi
echo "snakemake was found neither in .venv nor in PATH: run 'make audit' once, or set MEMLEAK_PYTHON to the python of its environment" >&2
exit 1
