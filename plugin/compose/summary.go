package compose

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/project"
)

// SummaryVersion is that of the JSON of a Summary and of a Descriptor. It changes when an older pexpress would read a
// newer file wrongly.
const SummaryVersion = 1

// Summary says all of a composed tree but its files' contents. It is a file of its own beside the tree, so that a build
// tool whose outputs lie in a remote cache need not fetch a tree to describe it.
type Summary struct {
	Version     int
	Kind        string
	Python      string
	Platform    string
	SourceRoots []string
	Run         *Run // of a project's source.pex
	Tree        *merkle.Tree
}

// Run is what a location's process runs, in the words of pexpress.toml.
type Run struct {
	Location         string            `json:"location"`
	Preset           string            `json:"preset"`
	Args             []string          `json:"args,omitempty"`
	WorkingDirectory string            `json:"working_directory,omitempty"`
	Readiness        *Readiness        `json:"readiness,omitempty"`
	Env              map[string]string `json:"env,omitempty"`
	Listen           string            `json:"listen,omitempty"`
}

// Readiness says when a version can serve: exactly one of its fields is set.
type Readiness struct {
	GRPCService *string `json:"grpc_service,omitempty"`
	HTTPPath    string  `json:"http_path,omitempty"`
	TCP         bool    `json:"tcp,omitempty"`
}

// runOf returns what a location's configuration says, nil if it says nothing that can run.
func runOf(l *project.Location) *Run {
	if l.Entry.Preset == "" {
		return nil
	}
	r := &Run{
		Location: l.Name, Preset: l.Entry.Preset, Args: l.Entry.Args, WorkingDirectory: l.Entry.WorkingDirectory,
		Env: l.Env, Listen: l.Listen,
	}
	if e := l.Entry.Readiness; e != (project.Readiness{}) {
		r.Readiness = &Readiness{GRPCService: e.GRPCService, HTTPPath: e.HTTPPath, TCP: e.TCP}
	}
	return r
}

// treeJSON is a tree: its root's digest, which identifies it, and REAPI's message with all its Directories.
type treeJSON struct {
	Root digest.Digest `json:"root"`
	Tree string        `json:"tree"`
}

func encodeTree(t *merkle.Tree) (treeJSON, error) {
	data, _, err := digest.Marshal(t.Proto())
	return treeJSON{Root: t.Root(), Tree: base64.StdEncoding.EncodeToString(data)}, err
}

// decode checks that the tree is the one that its root says.
func (j treeJSON) decode() (*merkle.Tree, error) {
	data, err := base64.StdEncoding.DecodeString(j.Tree)
	if err != nil {
		return nil, fmt.Errorf("%w: its tree is not base64: %w", ErrInput, err)
	}
	var msg repb.Tree
	if err := proto.Unmarshal(data, &msg); err != nil {
		return nil, fmt.Errorf("%w: its tree is none: %w", ErrInput, err)
	}
	t, err := merkle.FromProto(&msg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if t.Root() != j.Root {
		return nil, fmt.Errorf("%w: it says that the tree's root is %s, and the tree's is %s", ErrInput, j.Root, t.Root())
	}
	return t, nil
}

type summaryJSON struct {
	Version     int      `json:"version"`
	Kind        string   `json:"kind"`
	Python      string   `json:"python"`
	Platform    string   `json:"platform"`
	SourceRoots []string `json:"source_roots,omitempty"`
	Run         *Run     `json:"run,omitempty"`
	treeJSON
}

// MarshalJSON implements json.Marshaler.
func (s Summary) MarshalJSON() ([]byte, error) {
	t, err := encodeTree(s.Tree)
	if err != nil {
		return nil, err
	}
	return json.Marshal(summaryJSON{s.Version, s.Kind, s.Python, s.Platform, s.SourceRoots, s.Run, t})
}

// ReadSummary reads the file that a tree was summarized in.
func ReadSummary(path string) (*Summary, error) {
	var j summaryJSON
	if err := readJSON(path, &j); err != nil {
		return nil, err
	}
	if err := checkVersion(path, j.Version); err != nil {
		return nil, err
	}
	t, err := j.decode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Summary{j.Version, j.Kind, j.Python, j.Platform, j.SourceRoots, j.Run, t}, nil
}

func readJSON(path string, v any) error {
	b, err := durable.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %s is not what pexpress compose writes: %w", ErrInput, path, err)
	}
	return nil
}

func checkVersion(path string, version int) error {
	if version != SummaryVersion {
		return fmt.Errorf("%w: %s is of version %d, and this pexpress reads version %d: make it and deploy it with the same pexpress",
			ErrInput, path, version, SummaryVersion)
	}
	return nil
}

// WriteJSON writes v, one line, to path with mode 0644 whatever the umask.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(b, '\n'), 0o644)
}
