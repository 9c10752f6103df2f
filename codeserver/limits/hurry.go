package limits

import (
	"path/filepath"
	"sync"
	"time"
)

// hurryEvery is how often a process is moved so that no later one waits: for 15 to 20 ms after one nobody did.
const hurryEvery = 10 * time.Millisecond

// hurry is until when somebody may want to move a process at once.
type hurry struct {
	mu    sync.Mutex
	until time.Time
	on    bool
}

// Hurry is for whoever moves a process into a group in some ten milliseconds, or at any time for as long as is said. The kernel has the
// first one who moves a process wait until every processor has been elsewhere for once (an RCU grace period, 5 to 17 ms were seen),
// and nobody for a while after that. So this process is moved to where it is.
func (h *Host) Hurry(lasting time.Duration) {
	if h.layout == nil {
		return
	}
	r := &h.hurry
	r.mu.Lock()
	defer r.mu.Unlock()
	if until := time.Now().Add(lasting); until.After(r.until) {
		r.until = until
	}
	if r.on {
		return
	}
	r.on = true
	go func() {
		for {
			if dir := h.layout.home(); dir != "" { // somebody can have moved it meanwhile
				_ = write(filepath.Join(dir, "cgroup.procs"), "0")
			}
			if !r.goOn() {
				return
			}
			time.Sleep(hurryEvery)
		}
	}()
}

// goOn reports whether it is not over yet, and ends it otherwise.
func (r *hurry) goOn() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = time.Now().Before(r.until)
	return r.on
}
