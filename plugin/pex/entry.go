package pex

import "fmt"

// entryFiles returns __main__.py and __pex__/__init__.py: pex's own boot code and the call that starts it.
func entryFiles(boot, python, call string) (main, hook []byte) {
	body := boot + "\n" + call
	return []byte("#!/usr/bin/env python" + python + "\n\n" + body), []byte(body)
}

// bootCall returns the end of a __main__.py as pex writes it; pexHash is a Python expression.
func bootCall(pexHash string) string { return fmt.Sprintf(bootCallFormat, pexHash) }

const bootCallFormat = `
result, should_exit, is_globals = boot(
    bootstrap_dir='.bootstrap',
    pex_root='~/.cache/pex',
    pex_hash=%s,
    hermetic_boot=True,
    has_interpreter_constraints=False,
    pex_path=(),
    is_venv=False,
    inject_python_args=(),
)
if should_exit:
    sys.exit(0 if is_globals else result)
elif is_globals:
    globals().update(result)
`

// readInfo is where a source.pex differs from pex's own boot code: what depends on the sources is read from PEX-INFO, so
// that an edit changes no other file that pexpress adds, and the source roots go onto sys.path.
const readInfo = `

def __pex_info__():
    import json

    pex = getattr(__loader__, "archive", None)
    if pex is None:
        pex = __entry_point_from_filename__(os.path.abspath(__file__))
    info = json.loads(__loader__.get_data(os.path.join(pex, "PEX-INFO")).decode("utf-8"))
    roots = [
        os.path.join(pex, *root.split("/"))
        for root in info["build_properties"].get("pexpress_source_roots", ())
    ]
    if roots and os.path.isdir(pex):
        extra = os.environ.get("PEX_EXTRA_SYS_PATH", "").split(os.pathsep)
        roots.extend(entry for entry in extra if entry and entry not in roots)
        os.environ["PEX_EXTRA_SYS_PATH"] = os.pathsep.join(roots)
    return info["pex_hash"]

`

// looseBootCall is the end of a source.pex's __main__.py.
var looseBootCall = readInfo + bootCall("__pex_info__()")
