package pex

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what PEX-INFO names things by; nothing here trusts it
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Info is a PEX-INFO as pex writes one: its fields sorted by name. docs/pex-info.md explains each.
type Info struct {
	BindResourcePaths            map[string]string `json:"bind_resource_paths"`
	BootstrapHash                string            `json:"bootstrap_hash"`
	BuildProperties              map[string]any    `json:"build_properties"`
	CodeHash                     string            `json:"code_hash"`
	DepsAreWheelFiles            bool              `json:"deps_are_wheel_files"`
	Distributions                map[string]string `json:"distributions"`
	EmitWarnings                 bool              `json:"emit_warnings"`
	Excluded                     []string          `json:"excluded"`
	IgnoreErrors                 bool              `json:"ignore_errors"`
	IncludesTools                bool              `json:"includes_tools"`
	InheritPath                  string            `json:"inherit_path"`
	InjectArgs                   []string          `json:"inject_args"`
	InjectEnv                    map[string]string `json:"inject_env"`
	InjectPythonArgs             []string          `json:"inject_python_args"`
	InterpreterConstraints       []string          `json:"interpreter_constraints"`
	InterpreterSelectionStrategy string            `json:"interpreter_selection_strategy"`
	MaxInstallJobs               int               `json:"max_install_jobs"`
	Overridden                   []string          `json:"overridden"`
	PexHash                      string            `json:"pex_hash,omitempty"`
	PexPath                      string            `json:"pex_path"`
	PexPaths                     []string          `json:"pex_paths"`
	Requirements                 []string          `json:"requirements"`
	StripPexEnv                  bool              `json:"strip_pex_env"`
	Venv                         bool              `json:"venv"`
	VenvBinPath                  string            `json:"venv_bin_path"`
	VenvCopies                   bool              `json:"venv_copies"`
	VenvHermeticScripts          bool              `json:"venv_hermetic_scripts"`
	VenvSitePackagesCopies       bool              `json:"venv_site_packages_copies"`
	VenvSystemSitePackages       bool              `json:"venv_system_site_packages"`
}

// sourceRootsProperty is the build property in which source.pex names the directories to import from.
const sourceRootsProperty = "pexpress_source_roots"

// newInfo returns what pex writes for a PEX with nothing in it.
func newInfo(b facts) *Info {
	return &Info{
		BindResourcePaths:            map[string]string{},
		BootstrapHash:                b.Hash,
		BuildProperties:              map[string]any{"pex_version": b.Version},
		CodeHash:                     sha1Hex(nil),
		Distributions:                map[string]string{},
		EmitWarnings:                 true,
		Excluded:                     []string{},
		InheritPath:                  "false",
		InjectArgs:                   []string{},
		InjectEnv:                    map[string]string{},
		InjectPythonArgs:             []string{},
		InterpreterConstraints:       []string{},
		InterpreterSelectionStrategy: "oldest",
		MaxInstallJobs:               1,
		Overridden:                   []string{},
		PexPaths:                     []string{},
		Requirements:                 []string{},
		StripPexEnv:                  true,
		VenvBinPath:                  "false",
		VenvHermeticScripts:          true,
	}
}

func sha1Hex(b []byte) string {
	s := sha1.Sum(b) //nolint:gosec // as above
	return hex.EncodeToString(s[:])
}

// seal computes pex_hash, the sha1 of all else, and returns the file's content.
func (i *Info) seal() ([]byte, error) {
	i.PexHash = ""
	b, err := i.dump()
	if err != nil {
		return nil, err
	}
	i.PexHash = sha1Hex(b)
	return i.dump()
}

// dump returns the JSON that Python's json.dumps(sort_keys=True, separators=(",", ":")) gives: pure ASCII.
func (i *Info) dump() ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(i); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, r := range string(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))) {
		switch {
		case r < 0x80:
			out.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return out.Bytes(), nil
}
