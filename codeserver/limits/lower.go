package limits

import "sync"

// lowered counts who wants a group to give way: Balance, and Yield for its time. It does so until none of them does.
type lowered struct {
	mu sync.Mutex
	by map[string]int // by group
}

// lower has a group give way until it is raised as often.
func (h *Host) lower(group string) error {
	l := &h.lowered
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[group] == 0 {
		if err := h.layout.weigh(group, true); err != nil {
			return err
		}
	}
	if l.by == nil {
		l.by = map[string]int{}
	}
	l.by[group]++
	return nil
}

// raise takes one lower back.
func (h *Host) raise(group string) error {
	l := &h.lowered
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[group] > 1 {
		l.by[group]--
		return nil
	}
	delete(l.by, group)
	return h.layout.weigh(group, false)
}

// unlower has a group not give way that nobody here wants to: a codeserver that was killed can have left it so.
func (h *Host) unlower(group string) {
	l := &h.lowered
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by[group] == 0 {
		_ = h.layout.weigh(group, false)
	}
}
