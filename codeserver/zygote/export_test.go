package zygote

import "time"

// Pause replaces the pauses after which a pool learns what versions import after they became ready, and makes zygotes anew.
func (p *Pool) Pause(pause func(time.Duration) bool) { p.pause = pause }

// WaitLate waits until the pool has learned what versions have imported after they became ready.
func (p *Pool) WaitLate() { p.late.Wait() }
