package examples

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// waiting is a code location whose runs and ticks go on until a file of theirs is there, and then say which version of the
// sources ends them: what they import last is imported after the deploy that they outlive.
func waiting(dir string) string {
	return fmt.Sprintf(`"""Runs and ticks that wait."""

import pathlib
import time

import dagster as dg

GATES = pathlib.Path(%q)


def wait(name):
    (GATES / (name + ".begun")).touch()
    while not (GATES / name).exists():
        time.sleep(0.05)
    from quickstart import late

    return late.VERSION


@dg.op(config_schema={"gate": str})
def hold(context):
    version = wait(context.op_config["gate"])
    context.instance.add_run_tags(context.run_id, {"ended_by": version})


@dg.job
def holding():
    hold()


@dg.sensor(job=holding, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def watching(context):
    return dg.SkipReason("seen by " + wait("tick"))


@dg.schedule(job=holding, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def every_minute(context):
    return dg.SkipReason("seen by " + wait("minute"))


defs = dg.Definitions(jobs=[holding], sensors=[watching], schedules=[every_minute])
`, dir)
}

// holding is a host that serves the code location of waiting, with a webserver on it.
type holding struct {
	*host
	*graphql
	address, gates string
}

func newHolding(t *testing.T, serve ...string) *holding {
	bin := filepath.Join(clients(t), "bin")
	h := &holding{host: newHost(t, nil)}
	h.serve = append(serve, sameUser...)
	h.gates = filepath.Join(h.dir, "gates")
	require.NoError(t, os.MkdirAll(h.gates, 0o755))
	require.NoError(t, os.CopyFS(h.project, os.DirFS("dagster-quickstart")))
	h.write("quickstart/definitions.py", waiting(h.gates))
	h.write("quickstart/late.py", "VERSION = \"one\"\n")
	h.run("lock", "requirements.txt")
	h.start()
	h.address, _ = h.deploy()
	h.graphql = h.webserver(bin, h.address)
	return h
}

// launch launches a run that waits for a gate, and returns its id when it does.
func (h *holding) launch(gate string) string {
	var launched struct {
		Data struct {
			LaunchPipelineExecution struct {
				Typename string `json:"__typename"`
				Run      struct{ RunID string }
			}
		}
	}
	body := h.query(fmt.Sprintf(`mutation{launchPipelineExecution(executionParams:{mode:"default",selector:{
		repositoryLocationName:"quickstart",repositoryName:"__repository__",pipelineName:"holding"},
		runConfigData:"{\"ops\":{\"hold\":{\"config\":{\"gate\":\"%s\"}}}}"}){__typename ... on LaunchRunSuccess{run{runId}}
		... on PythonError{message stack}}}`, gate))
	require.NoError(h.host.t, json.Unmarshal([]byte(body), &launched), "%s", body)
	require.Equal(h.host.t, "LaunchRunSuccess", launched.Data.LaunchPipelineExecution.Typename, "%s", body)
	h.begun(gate)
	return launched.Data.LaunchPipelineExecution.Run.RunID
}

// begun waits until something waits for a gate.
func (h *holding) begun(gate string) {
	require.Eventually(h.host.t, func() bool {
		_, err := os.Stat(filepath.Join(h.gates, gate+".begun"))
		return err == nil
	}, 3*time.Minute, 50*time.Millisecond, "nothing waits for the gate %s", gate)
}

// open lets through what waits for a gate.
func (h *holding) open(gate string) {
	require.NoError(h.host.t, os.WriteFile(filepath.Join(h.gates, gate), nil, 0o644))
}

// ends waits until a run has ended and returns its status and the version that ended it.
func (h *holding) ends(run string) (status, version string) {
	var answer struct {
		Data struct {
			RunOrError struct {
				Status string
				Tags   []struct{ Key, Value string }
			}
		}
	}
	require.Eventually(h.host.t, func() bool {
		body := h.query(fmt.Sprintf(`{runOrError(runId:%q){... on Run{status tags{key value}}}}`, run))
		require.NoError(h.host.t, json.Unmarshal([]byte(body), &answer), "%s", body)
		status = answer.Data.RunOrError.Status
		return status == "SUCCESS" || status == "FAILURE" || status == "CANCELED"
	}, 2*time.Minute, 100*time.Millisecond, "run %s does not end", run)
	for _, tag := range answer.Data.RunOrError.Tags {
		if tag.Key == "ended_by" {
			version = tag.Value
		}
	}
	return status, version
}

// TestRunsOverDeploys has a real webserver and daemon launch runs and evaluate a sensor and a schedule, and deploys an edit
// under them: each ends on the version that it began on; runs of the version before are listed, and can be cancelled.
func TestRunsOverDeploys(t *testing.T) {
	h := newHolding(t)
	home, workspace := h.instance(h.address)
	h.dagster(home, filepath.Join(clients(t), "bin/dagster-daemon"), "run", "-w", workspace)
	d := drive(t, h.address)
	var id, next string
	d.ask("id", &id)
	first, cancelled := h.launch("first"), h.launch("cancelled")
	h.begun("tick")
	h.begun("minute")

	h.write("quickstart/late.py", "VERSION = \"two\"\n")
	_, events := h.deploy()
	require.NotNil(t, find(events, "stage", "stage", "definitions"), "%v", events)
	d.ask("id", &next)
	require.NotEqual(t, id, next, "clients see by it that there is something to load")

	second := h.launch("second")
	var runs []string
	d.ask("runs", &runs)
	require.ElementsMatch(t, []string{first, cancelled, second}, runs)
	h.require(fmt.Sprintf(`mutation{terminatePipelineExecution(runId:%q){__typename ... on PythonError{message stack}}}`, cancelled),
		`"TerminateRunSuccess"`)
	status, _ := h.ends(cancelled)
	require.Equal(t, "CANCELED", status)

	for _, gate := range []string{"first", "second", "tick", "minute"} {
		h.open(gate)
	}
	status, version := h.ends(first)
	require.Equal(t, []string{"SUCCESS", "one"}, []string{status, version})
	status, version = h.ends(second)
	require.Equal(t, []string{"SUCCESS", "two"}, []string{status, version})
	h.ticks("sensor", "watching", "seen by one", "seen by two")
	h.ticks("schedule", "every_minute", "seen by one")

	var ended bool
	d.ask("shutdown", &ended)
	require.True(t, ended)
	h.require(`mutation{shutdownRepositoryLocation(repositoryLocationName:"quickstart"){__typename}}`, `"ShutdownRepositoryLocationSuccess"`)
	d.ask("id", &id)
	require.Equal(t, next, id, "a client's ShutdownServer ends no version")
	pings, failures := d.end()
	require.Empty(t, failures)
	t.Logf("%d pings, none failed", pings)
	require.Eventually(t, func() bool { return len(h.processesOf("grpc")) == 1 }, time.Minute, 100*time.Millisecond,
		"the version before ends when its runs have: %v", h.processes)
}

// processesOf lists the versions' processes with a word among their arguments.
func (h *host) processesOf(word string) (found []string) {
	for _, p := range h.processes() {
		if strings.Contains(p, " "+word+" ") {
			found = append(found, p)
		}
	}
	return found
}

// ticks waits until a sensor or schedule has been evaluated with each of the results, in that order.
func (h *holding) ticks(kind, name string, results ...string) {
	query := fmt.Sprintf(`{instigationStateOrError(instigationSelector:{repositoryLocationName:"quickstart",
		repositoryName:"__repository__",name:%q}){... on InstigationState{ticks(limit:20){status skipReason error{message}}}}}`, name)
	var body string
	require.Eventually(h.host.t, func() bool {
		body = h.query(query)
		last := len(body)
		for _, r := range results { // the newest tick comes first
			at := strings.LastIndex(body[:last], r)
			if at < 0 {
				return false
			}
			last = at
		}
		return true
	}, 3*time.Minute, 200*time.Millisecond, "the ticks of %s %s", kind, name)
	require.NotContains(h.host.t, body, "FAILURE")
}

// TestDrainDeadline has a run that overstays on a version that was forked: it is told to have failed when its version is
// ended, and not for ever to go on.
func TestDrainDeadline(t *testing.T) {
	h := newHolding(t, "--drain-timeout", "3s")
	h.forked("two")
	run := h.launch("never")
	h.forked("three")
	status, _ := h.ends(run)
	require.Equal(t, "FAILURE", status)
	require.Eventually(t, func() bool { return len(h.processesOf("grpc")) == 1 }, time.Minute, 100*time.Millisecond, "%v", h.processes)
}

// forked deploys edits until one is forked: the process that it is forked from is made in the background.
func (h *holding) forked(version string) {
	for i := range 100 {
		h.write("quickstart/late.py", fmt.Sprintf("VERSION = \"%s\"  # %d\n", version, i))
		if _, events := h.deploy(); find(events, "stage", "stage", "fork") != nil {
			return
		}
	}
	require.Fail(h.host.t, "no version is forked")
}
