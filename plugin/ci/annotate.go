package ci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// Annotation is a message about a place in the checkout.
type Annotation struct {
	Level   string // "error" or "warning"
	File    string // relative to the workspace; "" if it is about none
	Line    int    // 0 if it is about the whole file
	Title   string
	Message string
}

var (
	// place matches where a message begins that names a file, as all of pexpress' do: pyproject.toml:12: …, or /path/pylock.toml: ….
	place = lazy.Regexp(`(?:^|[\s"'(])([^\s"'():]+\.(?:toml|py|txt|cfg|lock|yaml|yml|json))(?::(\d+))?(?::\d+)?:`)
	// frame matches a line of a Python traceback, in a checkout or in a codeserver's copy of the sources.
	frame = lazy.Regexp(`File "([^"\n]+)", line (\d+)`)
	// served is where a codeserver keeps source trees.
	served = lazy.Regexp(`^.*/store/trees/[0-9a-f]{64}-source(-[0-9]+)?/`)
)

// Annotate finds out which file an error is about. project is the directory of the project, absolute; without another file
// the error is about the project's pyproject.toml.
func Annotate(workspace, project, title, message string) Annotation {
	a := Annotation{Level: "error", Title: title, Message: message}
	// The last frame that is the project's own is where it went wrong.
	frames := frame().FindAllStringSubmatch(message, -1)
	for i := len(frames) - 1; i >= 0; i-- {
		name := served().ReplaceAllString(frames[i][1], "")
		if a.File = inCheckout(workspace, project, name); a.File != "" {
			a.Line, _ = strconv.Atoi(frames[i][2]) // digits
			return a
		}
	}
	for _, m := range place().FindAllStringSubmatch(message, -1) {
		if a.File = inCheckout(workspace, project, m[1]); a.File != "" {
			a.Line, _ = strconv.Atoi(m[2])
			return a
		}
	}
	a.File = inCheckout(workspace, project, "pyproject.toml")
	return a
}

// inCheckout returns a file's path relative to the workspace, "" if it is none of the checkout.
func inCheckout(workspace, project, name string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(project, filepath.FromSlash(name))
	}
	if st, err := os.Stat(name); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	rel, err := filepath.Rel(workspace, name)
	if err != nil || !filepath.IsLocal(rel) || workspace == "" {
		return ""
	}
	return filepath.ToSlash(rel)
}

// Command is the annotation as GitHub's runner reads it from a job's output.
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
func (a Annotation) Command() string {
	var properties []string
	add := func(name, value string) {
		if value != "" {
			properties = append(properties, name+"="+escapeProperty(value))
		}
	}
	add("file", a.File)
	if a.Line > 0 {
		add("line", strconv.Itoa(a.Line))
	}
	add("title", a.Title)
	return "::" + a.Level + " " + strings.Join(properties, ",") + "::" + escapeData(a.Message)
}

func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(escapeData(s))
}

// CodeQuality is annotations as GitLab shows them in a merge request.
// https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
func CodeQuality(all []Annotation) ([]byte, error) {
	type lines struct {
		Begin int `json:"begin"`
	}
	type location struct {
		Path  string `json:"path"`
		Lines lines  `json:"lines"`
	}
	type finding struct {
		Description string   `json:"description"`
		Check       string   `json:"check_name"`
		Fingerprint string   `json:"fingerprint"`
		Severity    string   `json:"severity"`
		Location    location `json:"location"`
	}
	findings := []finding{}
	for _, a := range all {
		if a.File == "" {
			continue
		}
		severity := "blocker"
		if a.Level == "warning" {
			severity = "minor"
		}
		sum := sha256.Sum256([]byte(a.File + "\x00" + a.Message))
		findings = append(findings, finding{
			a.Title + ": " + a.Message, "pexpress", hex.EncodeToString(sum[:]), severity,
			location{a.File, lines{max(1, a.Line)}},
		})
	}
	return json.MarshalIndent(findings, "", "  ")
}

// Plain returns text of others, such as a failed version's log, so that no line of it is a command to the runner.
func Plain(text string) string {
	text = strings.NewReplacer("##[", "# #[", "\r", "").Replace(text)
	return "  | " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  | ")
}

// Section returns the lines that begin and end a part of the log which can be folded away.
func (r *Run) Section(id, title string, now int64) (begin, end string) {
	if r.System == GitHub {
		return "::group::" + escapeData(title), "::endgroup::"
	}
	return fmt.Sprintf("\x1b[0Ksection_start:%d:%s\r\x1b[0K%s", now, id, title), fmt.Sprintf("\x1b[0Ksection_end:%d:%s\r\x1b[0K", now, id)
}
