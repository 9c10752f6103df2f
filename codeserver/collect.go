package codeserver

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pexpress/pexpress/codeserver/limits"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// collector hands what the server knows to Prometheus when it asks.
type collector struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("codeserver_"+name, help, labels, nil)
}

var (
	descVersion   = desc("version_info", "The version that a location serves.", "location", "version")
	descReady     = desc("ready", "Whether a version of the location answers at its address.", "location")
	descRequests  = desc("requests_total", "Requests begun.", "location")
	descFailed    = desc("failed_requests_total", "Requests that failed by the version's fault.", "location")
	descOpen      = desc("requests_in_flight", "Requests under way.", "location")
	descSeconds   = desc("request_seconds", "How long answers took, first byte to last.", "location")
	descDeploys   = desc("deploys_total", "Deploys, rollbacks and restarts that ended.", "location", "outcome")
	descSwitches  = desc("switches_total", "Times that traffic was moved to another process.", "location")
	descRestarts  = desc("restarts_total", "Times that a version ended by itself, or did not come up again.", "location")
	descReplaced  = desc("hung_replacements_total", "Times that another process took the place of one that hung.", "location")
	descFallbacks = desc("fallbacks_total", "Times that the location went back from a version that kept ending.", "location")
	descCPU       = desc("cpu_seconds_total", "Processor time of all versions.", "location")
	descMemory    = desc("memory_bytes", "Memory of all versions (PSS).", "location")
	descPeak      = desc("memory_peak_bytes", "The most memory that the version that serves had at once.", "location")
	descProcesses = desc("processes", "Processes of all versions.", "location")
	descVersions  = desc("versions", "Versions by state.", "location", "state")
	descLines     = desc("log_lines_lost_total", "Lines of versions' logs that could not be written.", "location")
	descCut       = desc("log_cut_bytes_total", "Bytes of versions' logs that were dropped for being old.", "location")
	descChannel   = desc("channel_followed", "Whether the location's channel could be followed when it was looked at last.", "location", "channel")
	descZygotes   = desc("zygotes", "Processes that versions are forked from.")
	descZygoteMem = desc("zygote_memory_bytes", "Their memory (PSS).")
	descForks     = desc("forks_total", "Versions that were forked.")
	descMisses    = desc("fork_misses_total", "Versions that could have been forked and started by themselves.", "reason")
	descBytes     = desc("fetched_bytes_total", "Bytes of blobs that came from the cache.")
	descBlobs     = desc("fetched_blobs_total", "Blobs that came from the cache.")
	descHeld      = desc("store_bytes", "Bytes of blobs in the state directory.")
	descHeldBlobs = desc("store_blobs", "Blobs in the state directory.")
)

// Describe implements prometheus.Collector: locations come and go.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// emit hands on one series.
type emit struct{ out chan<- prometheus.Metric }

func (e emit) count(d *prometheus.Desc, n float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n, labels...)
}

func (e emit) gauge(d *prometheus.Desc, n float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	e := emit{out}
	for _, m := range c.s.messagesOf("", measureEvery) {
		c.s.mu.Lock()
		l := c.s.locations[m.GetName()]
		c.s.mu.Unlock()
		e.shown(m)
		if l != nil {
			c.s.collect(e, l, m)
		}
	}
	z := c.s.zygotes.Stats()
	memory := int64(0)
	for _, pid := range z.Zygotes {
		memory += limits.PSS(pid)
	}
	e.gauge(descZygotes, float64(len(z.Zygotes)))
	e.gauge(descZygoteMem, float64(memory))
	e.count(descForks, float64(z.Forked))
	for reason, n := range z.Missed {
		e.count(descMisses, float64(n), reason)
	}
	fetched, held := c.s.loader.Fetched(), c.s.metrics.store(c.s)
	e.count(descBytes, float64(fetched.Bytes))
	e.count(descBlobs, float64(fetched.Blobs))
	e.gauge(descHeld, float64(held.Bytes))
	e.gauge(descHeldBlobs, float64(held.Blobs))
}

// shown hands on what the control API shows of a location.
func (e emit) shown(m *codeserverpb.Location) {
	name := m.GetName()
	if m.GetChannel() != "" {
		e.gauge(descChannel, truth(m.GetChannelError() == ""), name, m.GetChannel())
	}
	if len(m.GetVersions()) == 0 {
		return // it has only a channel
	}
	var open, memory, peak, processes int64
	ready, found := false, false
	states := map[codeserverpb.State]int{}
	for _, v := range m.GetVersions() {
		u := v.GetUsage()
		open, memory, processes = open+u.GetActiveRequests(), memory+u.GetMemoryBytes(), processes+u.GetProcesses()
		states[v.GetState()]++
		if v.GetName() == m.GetCurrent() && v.GetPid() != 0 && !found { // the first of the name is the one that serves
			found, peak, ready = true, u.GetMemoryPeakBytes(), v.GetState() == codeserverpb.State_READY && m.GetListenError() == ""
		}
	}
	if m.GetCurrent() != "" {
		e.gauge(descVersion, 1, name, m.GetCurrent())
	}
	e.gauge(descReady, truth(ready), name)
	e.gauge(descOpen, float64(open), name)
	e.gauge(descMemory, float64(memory), name)
	e.gauge(descPeak, float64(peak), name)
	e.gauge(descProcesses, float64(processes), name)
	for n, label := range stateLabels {
		e.gauge(descVersions, float64(states[n]), name, label)
	}
}

var stateLabels = map[codeserverpb.State]string{
	codeserverpb.State_STARTING: "starting", codeserverpb.State_READY: "ready", codeserverpb.State_DRAINING: "draining",
	codeserverpb.State_STOPPED: "stopped", codeserverpb.State_FAILED: "failed",
}

// collect hands on what a location has done since the codeserver's start: all versions together, those that are forgotten
// included.
func (s *Server) collect(e emit, l *location, m *codeserverpb.Location) {
	s.mu.Lock()
	n, cpu := l.done, l.past
	n.deploys = maps.Clone(n.deploys)
	for _, v := range l.known() {
		if r := v.running; r != nil && !r.counted {
			cpu += r.usage.CPU
		}
	}
	s.mu.Unlock()
	name, requests, took := m.GetName(), l.stats.Counts(), l.stats.Histogram()
	e.count(descRequests, float64(requests.Begun), name)
	e.count(descFailed, float64(requests.Failed), name)
	e.out <- prometheus.MustNewConstHistogram(descSeconds, took.Count, took.Sum.Seconds(), took.Buckets, name)
	for _, outcome := range []string{outcomeDeployed, outcomeUnchanged, outcomeFailed} {
		e.count(descDeploys, float64(n.deploys[outcome]), name, outcome)
	}
	e.count(descSwitches, float64(n.switches), name)
	e.count(descRestarts, float64(n.restarts), name)
	e.count(descReplaced, float64(n.replaced), name)
	e.count(descFallbacks, float64(n.fallbacks), name)
	e.count(descCPU, float64(cpu)/float64(time.Second), name)
	e.count(descLines, float64(l.lost.lines.Load()), name)
	e.count(descCut, float64(l.lost.bytes.Load()), name)
}

func truth(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}
