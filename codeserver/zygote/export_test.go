package zygote

import "time"

// Pause replaces the pauses after which a pool learns what versions import after they became ready, and makes zygotes anew.
func (p *Pool) Pause(pause func(time.Duration) bool) {
	p.after = func(d time.Duration, f func(bool)) { p.late.Go(func() { f(pause(d)) }) }
}

// WaitLate waits until the pool has learned what versions have imported after they became ready.
func (p *Pool) WaitLate() { p.late.Wait() }
