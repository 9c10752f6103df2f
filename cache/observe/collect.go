package observe

import "github.com/prometheus/client_golang/prometheus"

// collector hands the counters that are kept here to Prometheus when it asks.
type collector struct{ v *Observer }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("pexcache_"+name, help, labels, nil)
}

var (
	descActions  = desc("action_results_total", "Lookups of ActionResults.", "instance", "mnemonic", "outcome")
	descUpdates  = desc("action_result_updates_total", "ActionResults stored.", "instance")
	descFound    = desc("find_missing_digests_total", "Digests that FindMissingBlobs was asked for.", "instance", "outcome")
	descReads    = desc("blob_reads_total", "Blobs read.", "instance", "outcome")
	descBytes    = desc("blob_bytes_total", "Bytes of blobs read and written by clients.", "instance", "direction")
	descActive   = desc("requests_in_flight", "Requests under way.")
	descMoving   = desc("in_flight_bytes", "Sizes of the blobs that are being read or written.")
	descHeld     = desc("tier_bytes", "Bytes that a tier of the store holds.", "tier")
	descMax      = desc("tier_max_bytes", "Bytes that a tier may hold, 0 for no limit.", "tier")
	descEntries  = desc("tier_entries", "Blobs and ActionResults that a tier holds.", "tier")
	descLookups  = desc("tier_lookups_total", "Lookups in a tier.", "tier", "outcome")
	descTraffic  = desc("tier_traffic_bytes_total", "Bytes read from and written to a tier.", "tier", "direction")
	descEvicted  = desc("tier_evicted_total", "Entries evicted from a tier.", "tier")
	descDamaged  = desc("tier_damaged_total", "Entries set aside because their bytes were wrong.", "tier")
	descWaiting  = desc("write_back_entries", "Blobs and ActionResults acknowledged and not yet in S3 (write-back only).")
	descViewAge  = desc("s3_view_age_seconds", "Time since the bucket was looked at.")
	descRequests = desc("s3_requests_total", "Requests to S3.", "operation")
	descDollars  = desc("s3_request_dollars_total", "What the requests to S3 cost, by the configured prices.", "operation")
)

// Describe implements prometheus.Collector: none are named before, since tiers differ between servers.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n, labels...)
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	gauge(descActive, float64(c.v.active.Load()))
	gauge(descMoving, float64(c.v.moving.Load()))
	c.v.tallies.each(func(family string, t *tally) { t.collect(family, count) })
	for _, t := range c.v.o.Tiers() {
		t.collect(c.v.o.Prices, count, gauge)
	}
}

type emit func(d *prometheus.Desc, n float64, labels ...string)

func (t *tally) collect(family string, count emit) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for name, m := range t.mnemonics {
		count(descActions, float64(m.hits.Load()), family, name, "hit")
		count(descActions, float64(m.misses.Load()), family, name, "miss")
	}
	count(descUpdates, float64(t.updates.Load()), family)
	count(descFound, float64(t.present.Load()), family, "present")
	count(descFound, float64(t.absent.Load()), family, "missing")
	count(descReads, float64(t.reads.Load()), family, "hit")
	count(descReads, float64(t.gone.Load()), family, "miss")
	count(descBytes, float64(t.read.Load()), family, "read")
	count(descBytes, float64(t.written.Load()), family, "written")
}

func (t *Tier) collect(prices Prices, count, gauge emit) {
	gauge(descHeld, float64(t.Bytes), t.Name)
	gauge(descMax, float64(t.MaxBytes), t.Name)
	gauge(descEntries, float64(t.Entries), t.Name)
	count(descLookups, float64(t.Hits), t.Name, "hit")
	count(descLookups, float64(t.Misses), t.Name, "miss")
	count(descTraffic, float64(t.BytesRead), t.Name, "read")
	count(descTraffic, float64(t.BytesWritten), t.Name, "written")
	count(descEvicted, float64(t.Evicted), t.Name)
	count(descDamaged, float64(t.Damaged), t.Name)
	if t.Requests == nil {
		return
	}
	gauge(descWaiting, float64(t.Waiting))
	gauge(descViewAge, t.ViewAge)
	for op, n := range t.Requests {
		count(descRequests, float64(n), op)
		count(descDollars, prices.of(op)*float64(n), op)
	}
}
