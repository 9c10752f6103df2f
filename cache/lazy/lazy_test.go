package lazy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRegexp(t *testing.T) {
	broken := Regexp(`(`) // is not looked at before it is asked for
	require.Panics(t, func() { broken() })
	digits := Regexp(`[0-9]+`)
	require.Equal(t, "12", digits().FindString("a12b"))
	require.Same(t, digits(), digits(), "it is compiled once")
}
