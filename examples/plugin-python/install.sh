#!/usr/bin/env bash
# Installs the plugin into a virtual environment of its own: install.sh DIRECTORY. Put DIRECTORY/bin on PATH afterwards.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
env=$(cd "$1" && pwd)
"${PYTHON:-python3.11}" -m venv "$env"
"$env/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/requirements.txt"
cp "$here"/pexpress_plugin_assets.py "$here"/protocol_pb2.py "$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
cat > "$env/bin/pexpress-plugin-assets" <<END
#!$env/bin/python
from pexpress_plugin_assets import main

main()
END
chmod 0755 "$env/bin/pexpress-plugin-assets"
