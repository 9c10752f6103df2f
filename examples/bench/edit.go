package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// edited is a project whose file is edited and deployed again and again.
type edited struct {
	what    string
	project string // below the bench's directory
	file    string // that is edited
	line    string // that is appended to it, %d is the number of the edit
	// serve is what the peer's source.pex is started with; {port} stands for the port.
	serve   []string
	answers func(address string) bool
	budget  string
}

const dagsterBudget = "<= 150 ms p50, <= 300 ms p99, >= 25 x"

func (b *bench) editDagster() (row, error) {
	return b.edits(edited{
		what: "real Dagster", project: "project", file: "quickstart/assets.py", line: "EDIT = %d", serve: dagsterServe(), answers: b.another,
		budget: dagsterBudget,
	})
}

// editASGI is the smallest web service.
func (b *bench) editASGI() (row, error) {
	if err := b.copyProject("asgi-hello", "hello"); err != nil {
		return row{}, err
	}
	return b.edits(edited{
		what: "asgi-hello", project: "hello", file: "src/hello/app.py", line: `GREETING = "Edit %d"`,
		serve: []string{"-m", "uvicorn", "--port", "{port}", "--app-dir", b.path("hello", "src"), "hello.app:app"}, answers: b.greets,
		budget: "none of its own",
	})
}

// editLarge is the Dagster example among 5,000 source files that it does not import.
func (b *bench) editLarge() (row, error) {
	if err := b.copyProject("dagster-quickstart", "large"); err != nil {
		return row{}, err
	}
	for i := range 5000 {
		name := b.path("large", fmt.Sprintf("quickstart/more%02d/m%04d.py", i%50, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return row{}, err
		}
		if err := os.WriteFile(name, fmt.Appendf(nil, "VALUE = %d\n", i), 0o644); err != nil {
			return row{}, err
		}
	}
	config, err := os.ReadFile(b.path("large/dagster_cloud.yaml"))
	if err != nil {
		return row{}, err
	}
	renamed := strings.ReplaceAll(string(config), "location_name: quickstart", "location_name: large")
	if err := os.WriteFile(b.path("large/dagster_cloud.yaml"), []byte(renamed), 0o644); err != nil {
		return row{}, err
	}
	return b.edits(edited{
		what: "5,000 source files beside real Dagster", project: "large", file: "quickstart/assets.py", line: "EDIT = %d", serve: dagsterServe(),
		answers: b.another, budget: dagsterBudget,
	})
}

func dagsterServe() []string {
	return []string{"-m", "dagster", "api", "grpc", "--host", "127.0.0.1", "--port", "{port}", "-m", "quickstart.definitions"}
}

// copyProject makes a project of an example, with its lock.
func (b *bench) copyProject(example, project string) error {
	if err := os.RemoveAll(b.path(project)); err != nil {
		return err
	}
	if err := os.CopyFS(b.path(project), os.DirFS(filepath.Join(b.top, "examples", example))); err != nil {
		return err
	}
	_, err := b.pexpress(project, "lock", "requirements.txt")
	return err
}

// between is the time from one deploy to the next edit. Nobody edits faster; what the codeserver puts away after a deploy, and
// prepares for the next one, is done by then. Each such deploy is followed by one without a pause.
const between = time.Second

// edits is the budget that the project is for: from the start of a deploy after an edit until the new version answers.
func (b *bench) edits(e edited) (row, error) {
	deps, err := b.peerDeps(e.project)
	if err != nil {
		return row{}, err
	}
	if err := b.warmUp(e); err != nil {
		return row{}, err
	}
	var ours, hurried, peer sample
	stages := map[string]sample{}
	for i := range b.deploys {
		b.noise()
		time.Sleep(between)
		took, events, err := b.editAndDeploy(e)
		if err != nil {
			return row{}, err
		}
		ours = append(ours, took)
		if took, _, err = b.editAndDeploy(e); err != nil {
			return row{}, err
		}
		hurried = append(hurried, took)
		for _, ev := range events {
			if name := cmp.Or(ev.Stage, ev.Output); name != "" {
				stages[name] = append(stages[name], time.Duration(ev.Milliseconds*float64(time.Millisecond)))
			}
		}
		if i%15 != 0 {
			continue
		}
		time.Sleep(between)
		took, err = b.peerEdit(e, deps)
		if err != nil {
			return row{}, err
		}
		if i > 0 || b.deploys == 1 { // the first one fills caches
			peer = append(peer, took)
		}
	}
	return row{
		fmt.Sprintf("deploy after an edit of one source file, %s, until the new version answers (n = %d)", e.what, len(ours)),
		fmt.Sprintf("p50 %s, p99 %s, %s%s\n            and of as many, each right after one of these: p50 %s, p99 %s, %s",
			words(ours.median()), words(ours.percentile(99)), ours, stageLines(stages),
			words(hurried.median()), words(hurried.percentile(99)), hurried),
		peer.String() + ": dagster-cloud-cli's source build + the same server under pex, caches warm", times(ours, peer), e.budget,
	}, nil
}

// warmUp deploys until versions are forked: the first teaches what is imported, and the zygote is made meanwhile, as the
// bytecode of all wheels is, which is waited for.
func (b *bench) warmUp(e edited) error {
	for range 60 {
		_, events, err := b.editAndDeploy(e)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if ev.Output == "deps.pex" && !slices.Contains(b.deps, ev.Root) {
				b.deps = append(b.deps, ev.Root)
			}
		}
		if slices.ContainsFunc(events, func(ev event) bool { return ev.Stage == "fork" }) {
			return b.untilBytecode("state", len(b.deps))
		}
		time.Sleep(200 * time.Millisecond)
	}
	return errors.New("no version is forked: the codeserver's log says why")
}

func (b *bench) editAndDeploy(e edited) (time.Duration, []event, error) {
	if err := b.edit(e); err != nil {
		return 0, nil, err
	}
	start := time.Now()
	events, err := b.pexpress(e.project, "deploy")
	if err == nil {
		err = b.serving(deployed(events), e.answers)
	}
	return time.Since(start), events, err
}

// edit changes one line of the project.
func (b *bench) edit(e edited) error {
	b.count++
	f, err := os.OpenFile(b.path(e.project, e.file), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, e.line+"\n", b.count)
	return errors.Join(err, f.Close())
}

func (b *bench) peerEdit(e edited, deps string) (time.Duration, error) {
	start := time.Now()
	source, err := b.peerSource(e.project)
	if err != nil {
		return 0, err
	}
	build := time.Since(start)
	serve, err := b.peerServe(e, source, deps, b.path("pex-root"))
	return build + serve, err
}

// stageLines returns the median of each step, those that take longest first.
func stageLines(stages map[string]sample) string {
	var names []string
	for name := range stages {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(stages[b].median(), stages[a].median()) })
	lines := ""
	for _, name := range names {
		lines += fmt.Sprintf("\n            %-16s p50 %8s  p99 %8s", name, words(stages[name].median()), words(stages[name].percentile(99)))
	}
	return lines
}
