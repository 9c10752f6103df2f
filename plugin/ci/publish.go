package ci

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
)

// Publish leaves the report where the system and later steps look for it: summary.md, comment.md and report.json in dir;
// on GitHub the job's summary and outputs; on GitLab variables.env (a dotenv report) and code-quality.json.
func Publish(r *Report, annotations []Annotation, dir string, env Env) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// GitLab takes artifacts from the checkout only: the tag keeps them out of source.pex.
	if err := durable.TagCache(dir); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r.json(), "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{"summary.md": r.Summary(), "comment.md": r.Comment(), "report.json": string(raw) + "\n"}
	if r.Run.System == GitLab {
		quality, err := CodeQuality(annotations)
		if err != nil {
			return err
		}
		files["code-quality.json"], files["variables.env"] = string(quality)+"\n", r.dotenv()
	}
	for name, content := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	if r.Run.System == GitHub {
		outputs, oerr := r.githubOutputs(dir)
		err = errors.Join(err, oerr, appendTo(env("GITHUB_STEP_SUMMARY"), files["summary.md"]), appendTo(env("GITHUB_OUTPUT"), outputs))
	}
	return err
}

// appendTo adds to a file of the runner's; a runner that has none for it is no error.
func appendTo(path, text string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// outputs are what later steps can use, in order.
func (r *Report) outputs() [][2]string {
	all := [][2]string{{"kind", string(r.Kind())}, {"url", r.URL()}}
	l := &Location{}
	if len(r.Locations) > 0 {
		l = r.Locations[0]
	}
	return append(all, [2]string{"location", l.As}, [2]string{"version", l.Version},
		[2]string{"deps-digest", l.Digest("deps.pex").String()}, [2]string{"source-digest", l.Digest("source.pex").String()})
}

// githubOutputs writes each value between lines of a random word: a value cannot end early and begin another one.
func (r *Report) githubOutputs(dir string) (string, error) {
	locations, err := json.Marshal(append([]*Location{}, r.Locations...))
	if err != nil {
		return "", err
	}
	var word [16]byte
	if _, err := rand.Read(word[:]); err != nil {
		return "", err
	}
	end := "end-" + hex.EncodeToString(word[:])
	var b strings.Builder
	for _, o := range append(r.outputs(), [2]string{"locations", string(locations)},
		[2]string{"comment-file", filepath.Join(dir, "comment.md")}, [2]string{"summary-file", filepath.Join(dir, "summary.md")}) {
		fmt.Fprintf(&b, "%s<<%s\n%s\n%s\n", o[0], end, o[1], end)
	}
	return b.String(), nil
}

// dotenv writes variables as GitLab reads them: one line each, without quotes.
func (r *Report) dotenv() string {
	var b strings.Builder
	for _, o := range r.outputs() {
		name := "PEXPRESS_" + strings.ToUpper(strings.ReplaceAll(o[0], "-", "_"))
		fmt.Fprintf(&b, "%s=%s\n", name, strings.Join(strings.Fields(o[1]), ""))
	}
	return b.String()
}

func (r *Report) json() any {
	return struct {
		Kind      Kind        `json:"kind"`
		Branch    string      `json:"branch"`
		Commit    string      `json:"commit,omitempty"`
		URL       string      `json:"url,omitempty"`
		Locations []*Location `json:"locations"`
		Warnings  []string    `json:"warnings,omitempty"`
		Error     string      `json:"error,omitempty"`
		Took      float64     `json:"milliseconds"`
	}{
		r.Kind(), r.Run.Branch, r.Run.Commit, r.URL(), append([]*Location{}, r.Locations...), r.Warnings, r.Error,
		float64(r.Took.Microseconds()) / 1000,
	}
}
