package zygote

import "time"

// Pause replaces the pauses after which a pool learns what versions import after they became ready, and makes zygotes anew.
func (p *Pool) Pause(pause func(time.Duration) bool) {
	p.after = func(d time.Duration, f func(bool)) { p.late.Go(func() { f(pause(d)) }) }
}

// WaitLate waits until the pool has learned what versions have imported after they became ready.
func (p *Pool) WaitLate() { p.late.Wait() }

// Busy keeps the pool from making zygotes in the background, until the function that it returns is called.
func (p *Pool) Busy() (done func()) {
	p.slots <- struct{}{}
	return func() { <-p.slots }
}

// EndIdle does what the pool does by itself every now and then.
func (p *Pool) EndIdle(now time.Time) { p.endIdle(now) }

// Backdate has it be longer ago that the versions of a key were found not to bear a fork.
func (p *Pool) Backdate(key string, by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.get(key)
	w.BadAt = w.BadAt.Add(-by)
}
