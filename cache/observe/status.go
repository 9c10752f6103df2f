package observe

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Status is what the status page shows, and 'pexcache stats' prints.
type Status struct {
	Version   string           `json:"version"`
	Node      string           `json:"node"`
	Now       time.Time        `json:"now"`
	Started   time.Time        `json:"started"`
	Requests  int64            `json:"requests"`
	Errors    int64            `json:"errors"`
	Active    int64            `json:"active"`
	InFlight  int64            `json:"in_flight_bytes"`
	Instances []InstanceStatus `json:"instances"`
	Tiers     []Tier           `json:"tiers"`
	S3        S3Status         `json:"s3"`
	Slow      []SlowCall       `json:"slow"`
	History   []Point          `json:"history"`
}

// InstanceStatus is what one family of instances has done since the start.
type InstanceStatus struct {
	Name      string           `json:"name"`
	Hits      int64            `json:"hits"`
	Misses    int64            `json:"misses"`
	Updates   int64            `json:"updates"`
	Read      int64            `json:"bytes_read"`
	Written   int64            `json:"bytes_written"`
	Present   int64            `json:"present"`
	Missing   int64            `json:"missing"`
	Mnemonics []MnemonicStatus `json:"mnemonics"`
}

// MnemonicStatus counts the lookups of one kind of action.
type MnemonicStatus struct {
	Name   string `json:"name"`
	Hits   int64  `json:"hits"`
	Misses int64  `json:"misses"`
}

// S3Status counts requests to S3 and their price.
type S3Status struct {
	Requests int64         `json:"requests"`
	Dollars  float64       `json:"dollars"`
	ByOp     []OperationS3 `json:"operations"`
}

// OperationS3 counts one kind of requests to S3.
type OperationS3 struct {
	Name     string  `json:"name"`
	Requests int64   `json:"requests"`
	Dollars  float64 `json:"dollars"`
}

// Status returns what there is to see now. show says which families of instances may be shown; what the slow calls were
// about is shown with their instance.
func (v *Observer) Status(show func(family string) bool) Status {
	s := Status{
		Version: v.o.Version, Node: v.node, Now: v.o.Now(), Started: v.started,
		Requests: v.total.requests.Load(), Errors: v.total.errors.Load(), Active: v.active.Load(), InFlight: v.moving.Load(),
		Tiers: v.o.Tiers(), History: append(v.history.list(), v.point()),
		Instances: []InstanceStatus{}, Slow: []SlowCall{},
	}
	v.tallies.each(func(family string, t *tally) {
		if show(family) {
			s.Instances = append(s.Instances, t.status(family))
		}
	})
	slices.SortFunc(s.Instances, func(a, b InstanceStatus) int { return cmp.Compare(a.Name, b.Name) })
	for _, c := range v.slow.list() {
		if show(c.Instance) {
			s.Slow = append(s.Slow, c)
		}
	}
	s.S3 = v.s3Status(s.Tiers)
	return s
}

func (v *Observer) s3Status(tiers []Tier) S3Status {
	s := S3Status{ByOp: []OperationS3{}}
	for _, t := range tiers {
		for op, n := range t.Requests {
			o := OperationS3{Name: op, Requests: n, Dollars: v.o.Prices.of(op) * float64(n)}
			s.Requests += n
			s.Dollars += o.Dollars
			s.ByOp = append(s.ByOp, o)
		}
	}
	slices.SortFunc(s.ByOp, func(a, b OperationS3) int {
		return cmp.Or(cmp.Compare(b.Dollars, a.Dollars), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Name, b.Name))
	})
	return s
}

func (t *tally) status(family string) InstanceStatus {
	s := InstanceStatus{
		Name: family, Hits: t.hits.Load(), Misses: t.misses.Load(), Updates: t.updates.Load(), Read: t.read.Load(),
		Written: t.written.Load(), Present: t.present.Load(), Missing: t.absent.Load(), Mnemonics: []MnemonicStatus{},
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for name, m := range t.mnemonics {
		s.Mnemonics = append(s.Mnemonics, MnemonicStatus{Name: name, Hits: m.hits.Load(), Misses: m.misses.Load()})
	}
	slices.SortFunc(s.Mnemonics, func(a, b MnemonicStatus) int {
		return cmp.Or(cmp.Compare(b.Hits+b.Misses, a.Hits+a.Misses), cmp.Compare(a.Name, b.Name))
	})
	return s
}

// Guard decides what a request may see: nothing, with an answer written already, or the families that show names.
type Guard func(w http.ResponseWriter, r *http.Request) (show func(family string) bool, all, ok bool)

// StatusPage serves the page at /, and /status.json, which it reads again every few seconds.
func (v *Observer) StatusPage(guard Guard) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := guard(w, r); !ok {
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(page) // a browser that is gone needs no page
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, r *http.Request) {
		show, _, ok := guard(w, r)
		if !ok {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(v.Status(show))
	})
	return mux
}

// Metrics serves the metrics to those who may see everything.
func (v *Observer) Metrics(guard Guard) http.Handler {
	h := promhttp.HandlerFor(v.registry, promhttp.HandlerOpts{Registry: v.registry})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, all, ok := guard(w, r)
		if !ok {
			return
		}
		if !all {
			http.Error(w, "metrics cover all instances, and you may not read all of them: who runs the cache can list you under observers", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

//go:embed status.html
var page []byte

// policy allows the page its own style and script and nothing else, from anywhere.
var policy = func() string {
	return "default-src 'none'; style-src " + hashOf("style") + "; script-src " + hashOf("script") +
		"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

func hashOf(element string) string {
	m := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindSubmatch(page)
	if m == nil {
		panic("observe: the status page has no " + element)
	}
	sum := sha256.Sum256(m[1])
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
