package codeserver

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// scrape is what Prometheus' own parser reads.
type scrape map[string]*dto.MetricFamily

func (h *host) scrape() scrape {
	h.t.Helper()
	w := httptest.NewRecorder()
	h.s.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(h.t, http.StatusOK, w.Code, "%s", w.Body)
	text := w.Body.String()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	require.NoError(h.t, err)
	require.Empty(h.t, problems)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(h.t, err)
	return families
}

// of returns the series with these labels, name and value in turn; nil if there is none.
func (s scrape) of(name string, labels ...string) *dto.Metric {
	for _, m := range s[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		fits := len(has) == len(labels)/2
		for i := 0; i < len(labels); i += 2 {
			fits = fits && has[labels[i]] == labels[i+1]
		}
		if fits {
			return m
		}
	}
	return nil
}

// value returns that of a counter or gauge; -1 if there is none.
func (s scrape) value(name string, labels ...string) float64 {
	m := s.of(name, labels...)
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	}
	return -1
}

// TestMetrics: what is counted is what happened, of each location, until it is removed.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	before := h.scrape()
	require.Nil(t, before["codeserver_requests_total"], "no location yet")
	require.Equal(t, 0., before.value("codeserver_forks_total"))

	d := h.deploy(h.spec(webApp("one")))
	require.True(t, h.deploy(h.spec(webApp("one"))).GetUnchanged())
	for range 5 {
		h.get(d, "/")
	}
	pid, err := strconv.Atoi(h.get(d, "/pid"))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool {
		u := h.s.messages("web")[0].GetVersions()[0].GetUsage()
		return u.GetRestarts() == 1 && u.GetProcesses() == 1
	}, "it is started again")
	await(t, d.GetLocation().GetAddress(), "one")
	h.refused(codes.FailedPrecondition, webRequest(h.spec(map[string]string{"app/__main__.py": "raise SystemExit(3)"})))
	h.deploy(h.spec(webApp("two")))

	s := h.scrape()
	web := []string{"location", "web"}
	with := func(more ...string) []string { return append([]string{"location", "web"}, more...) }
	for name, want := range map[string]float64{
		"codeserver_ready": 1, "codeserver_switches_total": 2, "codeserver_restarts_total": 1, "codeserver_fallbacks_total": 0,
		"codeserver_hung_replacements_total": 0, "codeserver_log_lines_lost_total": 0,
	} {
		require.Equal(t, want, s.value(name, web...), name)
	}
	require.Equal(t, 2., s.value("codeserver_deploys_total", with("outcome", "deployed")...))
	require.Equal(t, 1., s.value("codeserver_deploys_total", with("outcome", "unchanged")...))
	require.Equal(t, 1., s.value("codeserver_deploys_total", with("outcome", "failed")...))
	require.Equal(t, 1., s.value("codeserver_version_info", with("version", h.s.messages("web")[0].GetCurrent())...))
	require.Len(t, s["codeserver_version_info"].GetMetric(), 1)
	require.GreaterOrEqual(t, s.value("codeserver_requests_total", web...), 7.)
	require.Positive(t, s.value("codeserver_memory_bytes", web...))
	require.GreaterOrEqual(t, s.value("codeserver_memory_peak_bytes", web...), 1.)
	require.GreaterOrEqual(t, s.value("codeserver_processes", web...), 1.)
	require.Positive(t, s.value("codeserver_cpu_seconds_total", web...))
	took := s.of("codeserver_request_seconds", web...).GetHistogram()
	require.Equal(t, s.value("codeserver_requests_total", web...), float64(took.GetSampleCount()), "all have ended")
	require.Positive(t, took.GetSampleSum())
	last := uint64(0)
	for _, b := range took.GetBucket() {
		require.GreaterOrEqual(t, b.GetCumulativeCount(), last)
		last = b.GetCumulativeCount()
	}
	require.Equal(t, took.GetSampleCount(), last, "up to +Inf")
	for _, stage := range []string{"load deps", "load source", "environment", "ready", "switch"} {
		require.Positive(t, s.of("codeserver_stage_seconds", "stage", stage).GetHistogram().GetSampleCount(), stage)
	}
	require.Positive(t, s.value("codeserver_fetched_blobs_total"))
	require.Positive(t, s.value("codeserver_fetched_bytes_total"))
	require.Equal(t, 0., s.value("codeserver_store_blobs"), "it was empty when it was looked at last, a moment ago")
	require.Positive(t, s.value("codeserver_forks_total")+s.value("codeserver_fork_misses_total", "reason", "unknown"))
	eventually(t, func() bool { // a call is counted when it has ended, which its client does not wait for
		s = h.scrape()
		return s.value("codeserver_calls_total", "method", "Deploy", "code", "OK") == 3
	}, "three deploys")
	require.Equal(t, 1., s.value("codeserver_calls_total", "method", "Deploy", "code", "FailedPrecondition"))
	require.EqualValues(t, 4, s.of("codeserver_call_seconds", "method", "Deploy").GetHistogram().GetSampleCount())
	checkDocumented(t, s)

	_, err = h.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.NoError(t, err)
	eventually(t, func() bool { return len(h.s.messages("web")) == 0 }, "it is gone")
	for name, family := range h.scrape() {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				require.NotEqual(t, "web", l.GetValue(), name)
			}
		}
	}
}

// checkDocumented: each metric of the codeserver's own is in the documentation's table, and each in the table is one.
func checkDocumented(t *testing.T, s scrape) {
	b, err := os.ReadFile("../docs/observing.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "| `codeserver_") {
			continue
		}
		names, _, _ := strings.Cut(line[2:], " |")
		for name := range strings.SplitSeq(names, ",") {
			documented[strings.Trim(name, " `")] = true
		}
	}
	for name := range s {
		if strings.HasPrefix(name, "codeserver_") {
			require.True(t, documented[name], "docs/observing.md does not say what %s is", name)
		}
	}
	for name := range documented {
		sometimes := name == "codeserver_channel_followed" || name == "codeserver_fork_misses_total"
		require.True(t, s[name] != nil || sometimes, "there is no %s", name)
	}
}

// TestMetricsOfChannel: a location that follows a channel shows whether it can, before it serves anything.
func TestMetricsOfChannel(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.s.reportFollowed("web", "prod", nil)
	require.Empty(t, h.scrape()["codeserver_channel_followed"].GetMetric(), "there is nothing to say yet")
	h.s.reportFollowed("web", "prod", errAborted)
	require.Equal(t, 0., h.scrape().value("codeserver_channel_followed", "location", "web", "channel", "prod"))
	require.Nil(t, h.scrape().of("codeserver_ready", "location", "web"))
	h.deploy(h.spec(webApp("one")))
	h.s.reportFollowed("web", "prod", nil)
	require.Equal(t, 1., h.scrape().value("codeserver_channel_followed", "location", "web", "channel", "prod"))
}

// TestStagesAreFew: what deployers call their trees does not become series.
func TestStagesAreFew(t *testing.T) {
	h := newHost(t)
	for i := range 100 {
		h.s.metrics.stage(&codeserverpb.Stage{Name: "load tree-" + strconv.Itoa(i)})
	}
	require.Len(t, h.scrape()["codeserver_stage_seconds"].GetMetric(), 1)
	require.EqualValues(t, 100, h.scrape().of("codeserver_stage_seconds", "stage", "load output").GetHistogram().GetSampleCount())
}
