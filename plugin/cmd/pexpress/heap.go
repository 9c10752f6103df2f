package main

import (
	"runtime"
	"runtime/debug"
)

// firstCollection is the size of the heap at whose first passing garbage is collected, in units of Go's 4 MiB.
const firstCollection = 16

// sparing puts off the first collection of garbage: most commands, and the builder, end before they have made 64 MiB of it,
// and would spend a tenth of their processor time on collecting. After the first one collections are as usual.
func sparing() {
	debug.SetGCPercent(firstCollection * 100)
	runtime.AddCleanup(new([16]byte), func(usual int) { debug.SetGCPercent(usual) }, 100)
}
